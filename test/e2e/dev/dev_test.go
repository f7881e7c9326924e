// Package dev tries `portico dev` as a newcomer would.
package dev

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// session is a `portico dev` that has said it is ready.
type session struct {
	cmd    *exec.Cmd
	tmp    string
	client *kubernetes.Clientset
	keys   io.Writer // what is typed
	rest   io.Reader
}

var exported = regexp.MustCompile(`export KUBECONFIG=(\S+)`)

func binary(t *testing.T) string {
	t.Helper()
	return proxy.Binary(t)
}

func start(t *testing.T, env ...string) *session {
	t.Helper()
	return startWith(t, nil, env...)
}

func startWith(t *testing.T, args []string, env ...string) *session {
	t.Helper()
	s := &session{tmp: t.TempDir()}
	s.cmd = exec.Command(binary(t), append([]string{"dev", "--dir=" + filepath.Join(s.tmp, "dev"), "--secure-port=0"}, args...)...)
	s.cmd.Env = append(append(os.Environ(), "TMPDIR="+s.tmp, "KUBECONFIG="), env...)
	s.cmd.Stderr = t.Output()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.keys, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	s.client = s.connect(t, out)
	s.rest = out
	return s
}

// connect reads what is printed until the end of the greeting, and believes it.
func (s *session) connect(t *testing.T, out io.Reader) *kubernetes.Clientset {
	t.Helper()
	lines := bufio.NewScanner(out)
	var kubeconfig, said string
	for lines.Scan() {
		said += lines.Text() + "\n"
		if m := exported.FindStringSubmatch(lines.Text()); m != nil {
			kubeconfig = m[1]
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatalf("the kubeconfig %q does not work: %v\n%s", kubeconfig, err, said)
	}
	return kubernetes.NewForConfigOrDie(cfg)
}

// interrupt presses Ctrl-C and waits for the end.
func (s *session) interrupt(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s.rest); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestNewcomerGetsAClusterAndNothingIsLeft(t *testing.T) {
	s := start(t)
	nodes, err := s.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range nodes.Items {
		names = append(names, n.Name)
	}
	if diff := cmp.Diff([]string{"node-0", "node-1"}, names); diff != "" {
		t.Error(diff)
	}
	if len(processesOf(t, s.tmp)) < 5 {
		t.Fatalf("only %v run", processesOf(t, s.tmp))
	}
	s.interrupt(t)
	if left := processesOf(t, s.tmp); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// processesOf returns the programs that have dir on their command line.
func processesOf(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(line), dir) {
			found = append(found, strings.Split(string(line), "\x00")[0])
		}
	}
	return found
}

func TestExistingClusterIsUsedByItsKubeconfig(t *testing.T) {
	cp := controlplane.New(t, controlplane.Options{Users: []controlplane.User{{Name: "jane"}}})
	token := filepath.Join(t.TempDir(), "token.kubeconfig")
	if err := cp.Kubeconfig(cp.Token("jane")).WriteFile(token); err != nil {
		t.Fatal(err)
	}
	for want, kubeconfig := range map[string]string{"admin": cp.KubeconfigPath(), "jane": token} {
		t.Run(want, func(t *testing.T) {
			s := start(t, "KUBECONFIG="+kubeconfig)
			if got := whoami(t.Context(), t, s.client); got != want {
				t.Errorf("through the proxy the user is %q", got)
			}
			s.interrupt(t)
		})
	}
}

func whoami(ctx context.Context, t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo.Username
}

package dev

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/portico-proxy/portico/bpf"
)

// workloadVariable makes a process of this test binary a workload: it asks the
// cluster of the kubeconfig that is named who answers, whenever it is told to.
const workloadVariable = "PORTICO_TEST_WORKLOAD"

func TestMain(m *testing.M) {
	kubeconfig := os.Getenv(workloadVariable)
	if kubeconfig == "" {
		os.Exit(m.Run())
	}
	if err := work(kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(kubeconfig string) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	cfg.Timeout = 10 * time.Second
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		fmt.Println(strings.ReplaceAll(whoAnswers(client, cfg.Host), "\n", " "))
		client.CloseIdleConnections()
	}
	return lines.Err()
}

func whoAnswers(client *http.Client, host string) string {
	res, err := client.Get(host + "/api/v1/nodes")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err.Error()
	}
	switch {
	case res.StatusCode != http.StatusOK:
		return res.Status
	case res.Header.Get("Portico-Served-By") != "":
		return "proxy"
	}
	return "API server"
}

// workload is a process in a cgroup.
type workload struct {
	in  io.Writer
	out *bufio.Scanner
}

func newWorkload(t *testing.T, cgroup, kubeconfig string) *workload {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workloadVariable+"="+kubeconfig)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &workload{in, bufio.NewScanner(out)}
}

func (w *workload) ask(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(w.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if !w.out.Scan() {
		t.Fatal("the workload has ended")
	}
	return w.out.Text()
}

// until asks until the wanted one answers. Besides answers, only what a proxy that
// is ending says may come, and only for a moment.
func (w *workload) until(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		switch got := w.ask(t); {
		case got == want:
			return
		case !slices.ContainsFunc([]string{"proxy", "API server", "refused", "reset", "EOF", "503"}, func(s string) bool { return strings.Contains(got, s) }):
			t.Fatalf("%q instead of an answer", got)
		case time.Now().After(deadline):
			t.Fatalf("%s answers, want %s", got, want)
		}
	}
}

func TestWorkloadsAreDrawnToTheProxy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := bpf.Supported(); err != nil {
		t.Skip(err)
	}
	root, err := bpf.FindCgroup()
	if err != nil {
		t.Skip(err)
	}
	cgroup := filepath.Join(root, fmt.Sprintf("portico-test-dev-%d", os.Getpid()))
	pins := filepath.Join(mountBPF(t), "portico")
	s := startWith(t, []string{"--redirect", "--cgroup=" + cgroup, "--pin-path=" + pins})
	t.Run("proxy-and-then-the-API-server-itself", func(t *testing.T) {
		w := newWorkload(t, cgroup, filepath.Join(s.tmp, "dev", "workload.kubeconfig"))
		w.until(t, "proxy")
		if _, err := io.WriteString(s.keys, "\n"); err != nil {
			t.Fatal(err)
		}
		w.until(t, "API server")
	})
	s.interrupt(t)
	for _, left := range []string{cgroup, pins} {
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
}

func mountBPF(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skip("needs a BPF file system: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestRedirectNeedsAControlPlaneOfItsOwn(t *testing.T) {
	cmd := exec.Command(binary(t), "dev", "--redirect", "--kubeconfig=somebody's")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "unset $KUBECONFIG") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("it says %q, error %v", out, err)
	}
}

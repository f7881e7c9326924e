package clients

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var announced = regexp.MustCompile(`^proxy at (https://\S+), certificate (\S+)$`)

// TestProxyRunsInAnotherProgramsManager runs examples/embed.
func TestProxyRunsInAnotherProgramsManager(t *testing.T) {
	program := filepath.Join(t.TempDir(), "embed")
	if out, err := exec.Command("go", "build", "-o", program, "../../../examples/embed").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+world.KubeconfigPath(), "CERT_DIR="+t.TempDir())
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var m []string
	for lines := bufio.NewScanner(out); m == nil && lines.Scan(); {
		m = announced.FindStringSubmatch(lines.Text())
	}
	if m == nil {
		t.Fatal("it does not say where it listens")
	}
	cfg := &rest.Config{Host: m[1], BearerToken: world.Token("admin").Token, TLSClientConfig: rest.TLSClientConfig{CAFile: m[2]}}
	if _, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

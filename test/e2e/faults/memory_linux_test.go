package faults

import (
	"bufio"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/proxy"
)

// TestMemoryLimitOfTheCgroupIsKnown runs a proxy in a cgroup with a limit.
func TestMemoryLimitOfTheCgroupIsKnown(t *testing.T) {
	group, file := memoryCgroup(t)
	if err := os.WriteFile(filepath.Join(group, file), []byte("1073741824"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The shell enters the cgroup and becomes the proxy.
	script := `echo $$ > "$0/cgroup.procs" && exec "$@"`
	cmd := exec.Command("sh", "-c", script, group, proxy.Binary(t), "proxy", "--kubeconfig="+world.KubeconfigPath(), "--bind-address=127.0.0.1",
		"--secure-port="+port(t), "--cert-dir="+t.TempDir(), "--health-probe-bind-address="+controlplane.FreeAddress(t), "--metrics-bind-address=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := ""
	for lines := bufio.NewScanner(log); said == "" && lines.Scan(); {
		if strings.Contains(lines.Text(), "memory is limited") {
			said = lines.Text()
		}
	}
	if want := "bytes=966367641"; !strings.Contains(said, want) { // nine tenths
		t.Errorf("the proxy said %q, want %s", said, want)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func port(t *testing.T) string {
	t.Helper()
	_, number, _ := strings.Cut(controlplane.FreeAddress(t), ":")
	return number
}

// memoryCgroup makes a cgroup below the test's own and returns the name of the
// file that holds its limit.
func memoryCgroup(t *testing.T) (dir, file string) {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skipf("no cgroups: %v", err)
	}
	mounts, file := "/sys/fs/cgroup", "memory.max"
	m := regexp.MustCompile(`(?m)^0::(.*)$`).FindSubmatch(own)
	if v1 := regexp.MustCompile(`(?m)^\d+:memory:(.*)$`).FindSubmatch(own); v1 != nil {
		m, mounts, file = v1, "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	}
	if m == nil {
		t.Skip("no cgroup that limits memory")
	}
	dir = filepath.Join(mounts, string(m[1]), "portico-test-"+rand.Text())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Skipf("may not make a cgroup: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
		t.Skipf("memory is not limited by cgroups below %s", filepath.Dir(dir))
	}
	return dir, file
}

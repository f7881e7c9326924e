package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/discovery"

	"github.com/portico-proxy/portico/test/controlplane"
)

// machine says where and on what figures were taken.
func machine(b *testing.B, cp *controlplane.ControlPlane) string {
	b.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(cp.Config())
	if err != nil {
		b.Fatal(err)
	}
	kubernetes, err := client.ServerVersion()
	if err != nil {
		b.Fatal(err)
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%s, %d cores, %s %s, %s, kube-apiserver %s", cpuModel(), runtime.NumCPU(),
		unix.ByteSliceToString(host.Sysname[:]), unix.ByteSliceToString(host.Release[:]), runtime.Version(), kubernetes.GitVersion)
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	if model := strings.TrimLeft(line, "\t :"); model != "" {
		return model
	}
	return runtime.GOARCH
}

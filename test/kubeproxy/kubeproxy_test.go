package kubeproxy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/portico-proxy/portico/core/redirect"
)

// A world is what kube-proxy on one node sees; rules/main.go reads it.
type world struct {
	Node      *corev1.Node
	Addresses []string
	Services  []*corev1.Service
	Slices    []*discoveryv1.EndpointSlice
}

// A choice is what becomes of a destination; rules/main.go writes it.
type choice struct {
	Backends []string
	Affinity int
}

// There is no telling from a Service's fields which of them matter together, so all of
// them are drawn at random, always the same ones.
func TestEndpointsAreThoseOfKubeProxy(t *testing.T) {
	const worlds = 5000
	var all []world
	for seed := range uint64(worlds) {
		all = append(all, newDice(seed).world())
	}
	seen, differing := 0, 0
	for i, want := range askKubeProxy(t, all) {
		got := ours(all[i])
		seen += len(want)
		if diff := gocmp.Diff(want, got); diff != "" && differing < 3 {
			differing++
			t.Errorf("world %d (-kube-proxy +ours):\n%s\nfrom\n%s", i, diff, describe(t, all[i]))
		}
	}
	// Where nothing is chosen, everything agrees.
	if seen < 10*worlds {
		t.Errorf("%d worlds have %d destinations", worlds, seen)
	}
}

// ours is what core/redirect makes of a world. That kube-proxy offers no NodePorts at
// ::1, and it does, is on purpose.
func ours(w world) map[string]choice {
	node := redirect.Node{Name: w.Node.Name, Object: w.Node}
	for _, a := range w.Addresses {
		node.Addresses = append(node.Addresses, netip.MustParseAddr(a))
	}
	d := redirect.Decide(redirect.World{Node: node, Services: w.Services, EndpointSlices: w.Slices, ResolveServices: true})
	all := map[string]choice{}
	for target, e := range d.Table {
		if target.Addr() == netip.IPv6Loopback() {
			continue
		}
		c := choice{Backends: []string{}, Affinity: int(e.Service.Affinity.Seconds())}
		for _, b := range e.Service.Backends {
			c.Backends = append(c.Backends, b.String())
		}
		slices.Sort(c.Backends)
		all[target.String()] = c
	}
	return all
}

func askKubeProxy(t *testing.T, worlds []world) []map[string]choice {
	t.Helper()
	in, err := json.Marshal(worlds)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), buildRules(t))
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("ask kube-proxy: %v\n%s", err, &complaints)
	}
	var answers []map[string]choice
	if err := json.Unmarshal(out.Bytes(), &answers); err != nil {
		t.Fatal("read what kube-proxy says: ", err)
	}
	if len(answers) != len(worlds) {
		t.Fatalf("kube-proxy answers for %d worlds, not %d", len(answers), len(worlds))
	}
	return answers
}

// buildRules builds as the control plane's programs are built, so that the compiler has
// most of it in its cache already.
func buildRules(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rules")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", program, ".")
	cmd.Dir = "rules"
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "PWD=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build kube-proxy's rules: %v\n%s", err, out)
	}
	return program
}

func describe(t *testing.T, w world) string {
	t.Helper()
	text, err := json.MarshalIndent(w, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The rules are those of the Kubernetes that everything else is tested with.
func TestKubeProxyIsOfTheControlPlanesVersion(t *testing.T) {
	version := regexp.MustCompile(`k8s\.io/kubernetes (v\S+)`)
	var found []string
	for _, path := range []string{"rules/go.mod", "../controlplane/programs/go.mod"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, strings.Join(version.FindAllString(string(text), -1), ", "))
	}
	if found[0] == "" || found[0] != found[1] {
		t.Errorf("kube-proxy is %s, the control plane is %s", found[0], found[1])
	}
}

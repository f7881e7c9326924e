package redirect

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what is decided now into testdata, to be read before it is committed")

// Each file of testdata is a world in YAML, and what is to be decided, as people
// read it.
func TestDecisions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d worlds, error %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			w := readWorld(t, file)
			got := render(Decide(w))
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(string(want), got); diff != "" {
				t.Errorf("decision differs (-want +got):\n%s", diff)
			}
			shuffle(&w)
			if again := render(Decide(w)); again != got {
				t.Errorf("decision depends on the order of what is in the world (-before +after):\n%s", gocmp.Diff(got, again))
			}
		})
	}
}

func shuffle(w *World) {
	mix := func(n int, swap func(i, j int)) { rand.Shuffle(n, swap) }
	mix(len(w.Services), func(i, j int) { w.Services[i], w.Services[j] = w.Services[j], w.Services[i] })
	mix(len(w.EndpointSlices), func(i, j int) {
		w.EndpointSlices[i], w.EndpointSlices[j] = w.EndpointSlices[j], w.EndpointSlices[i]
	})
	mix(len(w.Pods), func(i, j int) { w.Pods[i], w.Pods[j] = w.Pods[j], w.Pods[i] })
	mix(len(w.LocalRedirects), func(i, j int) {
		w.LocalRedirects[i], w.LocalRedirects[j] = w.LocalRedirects[j], w.LocalRedirects[i]
	})
	mix(len(w.Balancings), func(i, j int) { w.Balancings[i], w.Balancings[j] = w.Balancings[j], w.Balancings[i] })
}

// scene is the first document of a world's file.
type scene struct {
	// Node is the Node's name that the table is for; it may be that of no Node.
	Node            string   `json:"node"`
	Addresses       []string `json:"addresses"`
	ResolveServices bool     `json:"resolveServices"`
	// Servers are the addresses of the API server, if they are given.
	Servers []string `json:"servers"`
	// Silent are the backends that do not answer.
	Silent []string `json:"silent"`
	// Cgroups are by the pods' UIDs.
	Cgroups map[string]uint64 `json:"cgroups"`
}

func readWorld(t *testing.T, file string) World {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(text, []byte("\n---\n"))
	var s scene
	if err := yaml.UnmarshalStrict(documents[0], &s); err != nil {
		t.Fatal(err)
	}
	w := World{
		Node: Node{Name: s.Node}, ResolveServices: s.ResolveServices, Cgroups: map[types.UID]uint64{},
		Answers: func(b Target) bool { return !slices.Contains(s.Silent, b.String()) },
	}
	for _, a := range s.Addresses {
		w.Node.Addresses = append(w.Node.Addresses, netip.MustParseAddr(a))
	}
	for _, a := range s.Servers {
		w.APIServers = append(w.APIServers, netip.MustParseAddrPort(a))
	}
	for uid, id := range s.Cgroups {
		w.Cgroups[types.UID(uid)] = id
	}
	for i, document := range documents[1:] {
		if err := add(&w, document); err != nil {
			t.Fatalf("document %d: %v", i+2, err)
		}
	}
	return w
}

func add(w *World, document []byte) error {
	var kind struct {
		Kind string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "Service":
		return decode(document, &w.Services)
	case "EndpointSlice":
		return decode(document, &w.EndpointSlices)
	case "Pod":
		return decode(document, &w.Pods)
	case "LocalRedirectPolicy":
		return decode(document, &w.LocalRedirects)
	case "BalancingPolicy":
		return decode(document, &w.Balancings)
	case "Node":
		if err := decode(document, &w.Nodes); err != nil {
			return err
		}
		if n := w.Nodes[len(w.Nodes)-1]; n.Name == w.Node.Name {
			w.Node.Object = n
		}
		return nil
	}
	return fmt.Errorf("unknown kind %q", kind.Kind)
}

func decode[T any](document []byte, to *[]*T) error {
	object := new(T)
	*to = append(*to, object)
	return yaml.UnmarshalStrict(document, object)
}

// render writes a decision for people.
func render(d Decision) string {
	var b strings.Builder
	for _, t := range slices.SortedFunc(maps.Keys(d.Table), Target.compare) {
		e := d.Table[t]
		fmt.Fprintln(&b, t)
		renderLayer(&b, "policy", e.Policy)
		renderLayer(&b, "service", e.Service)
	}
	slices.SortFunc(d.Policies, func(a, b PolicyResult) int {
		return cmp.Or(cmp.Compare(a.Policy.GetName(), b.Policy.GetName()), cmp.Compare(a.Kind, b.Kind))
	})
	for _, p := range d.Policies {
		fmt.Fprintf(&b, "%s %s: accepted=%t holds=%t %s frontends=%d backends=%d", p.Kind, p.Policy.GetName(), p.Accepted, p.Holds, p.Reason, p.Frontends, p.Backends)
		fmt.Fprintln(&b, flagged(p.Message != "", "\n  "+p.Message))
	}
	for _, t := range d.Probes {
		fmt.Fprintf(&b, "probe %s\n", t)
	}
	return b.String()
}

func renderLayer(b *strings.Builder, name string, l *Layer) {
	if l == nil {
		return
	}
	fmt.Fprintf(b, "  %s %v", name, l.Backends)
	fmt.Fprint(b, flagged(l.Affinity > 0, fmt.Sprintf(" affinity=%v", l.Affinity)), flagged(l.PerCgroup, " per-cgroup"))
	fmt.Fprint(b, flagged(l.HostOnly, " host-only"))
	fmt.Fprint(b, flagged(l.Leased, " leased"), flagged(l.Strict, " strict"))
	fmt.Fprint(b, flagged(l.Clients != nil, fmt.Sprintf(" clients=%v", l.Clients)), flagged(l.Except != nil, fmt.Sprintf(" except=%v", l.Except)))
	fmt.Fprintf(b, " by %s\n", l.Owner)
}

func flagged(when bool, text string) string {
	if when {
		return text
	}
	return ""
}

package scale

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/scale.md's tables anew")

const (
	page       = "../../docs/scale.md"
	begin, end = "<!-- computed -->\n", "<!-- end of computed -->\n"
)

// TestPageShowsWhatIsComputed keeps docs/scale.md true to the model. -update
// writes it.
func TestPageShowsWhatIsComputed(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	was, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for what is computed", page)
	}
	if *update {
		if err := os.WriteFile(page, []byte(head+begin+tables()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(tables(), was); diff != "" {
		t.Errorf("%s is not what is computed (run go test ./test/scale -update): %s", page, diff)
	}
}

// cluster is one of n nodes.
func cluster(n int) Cluster {
	return Cluster{Nodes: n, PodsPerNode: 30, Informers: 2, Changes: 1. / 600}
}

func tables() string {
	var b strings.Builder
	for _, n := range []int{100, 1000, 5000} {
		k := cluster(n)
		fmt.Fprintf(&b, "\n%d nodes, %d pods, %d informers\n\n", n, n*k.PodsPerNode, n*k.Informers)
		b.WriteString("| proxies | watches | sent | processors | busiest proxy | memory of one | start, sent | start, processor time |\n|---|---|---|---|---|---|---|---|\n")
		for _, t := range Topologies {
			l := Measured.Of(k, t)
			fmt.Fprintf(&b, "| %s | %d | %s/s | %.2f | %s | %s | %s | %.0f s |\n",
				t.Name, l.Watches, bytesOf(l.Bytes), l.CPU, orNone(l.Busiest, "%.2f"), orNone(l.Memory/mebi, "%.0f MiB"), bytesOf(l.StartBytes), l.StartCPU)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func bytesOf(n float64) string {
	for _, unit := range []string{"KB", "MB", "GB"} {
		if n /= 1000; n < 1000 {
			return fmt.Sprintf("%.1f %s", n, unit)
		}
	}
	return fmt.Sprintf("%.1f TB", n/1000)
}

func orNone(v float64, format string) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// TestModelTellsWhatWasMeasured holds the model to the runs that it was not made
// of: a hundred informers that start, directly and through one proxy.
func TestModelTellsWhatWasMeasured(t *testing.T) {
	k := Cluster{Nodes: 100, PodsPerNode: 100, Informers: 1}
	for _, tt := range []struct {
		of   Topology
		sent float64 // MB, by kube-apiserver
	}{{Topologies[0], 11050}, {Topologies[2], 111}} {
		got := Measured.Of(k, tt.of).StartBytes / 1e6
		if got < 0.9*tt.sent || got > 1.1*tt.sent {
			t.Errorf("%s: the model says %.0f MB, and %.0f were measured", tt.of.Name, got, tt.sent)
		}
	}
}

func TestProxiesAreAllThatTheAPIServerSees(t *testing.T) {
	for _, of := range Topologies[1:] {
		small, large := Measured.Of(cluster(1000), of), Measured.Of(Cluster{Nodes: 1000, PodsPerNode: 30, Informers: 20, Changes: 1. / 600}, of)
		if small.Watches != large.Watches || small.CPU != large.CPU {
			t.Errorf("%s: more informers cost the API server more", of.Name)
		}
	}
}

package abuse

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/test/proxy"
)

const (
	collection = "/api/v1/namespaces/default/configmaps"
	objects    = 1000
	// heapLimit is the proxy's GOMEMLIMIT and peakLimit what it may take at most,
	// both in MiB: connections and buffers of the kernel's making come on top of the
	// heap.
	heapLimit = 384
	peakLimit = 2 * heapLimit
)

const remembered = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: configmaps}
spec:
  resources:
  - resource: configmaps
`

// lengthOf is how long PORTICO_ABUSE asks to go on, or a short time.
func lengthOf(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PORTICO_ABUSE")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PORTICO_ABUSE: %v", err)
	}
	return d
}

// TestAbuseHarmsNobodyElse sends a proxy everything that attacks knows, each
// kind by itself and then all together, while a caller goes about its work.
func TestAbuseHarmsNobodyElse(t *testing.T) {
	fill(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(remembered), 0o600); err != nil {
		t.Fatal(err)
	}
	p := proxy.New(t, proxy.Options{
		Kubeconfig: world.KubeconfigPath(), Env: []string{fmt.Sprintf("GOMEMLIMIT=%dMiB", heapLimit)},
		Flags: append([]string{"--policy-dir=" + dir, "--cache-memory-limit=64Mi", "--max-connections=2000", "--profiling"},
			strings.Fields(os.Getenv("PORTICO_ABUSE_FLAGS"))...),
	})
	kinds := chosen()
	measured := os.Getenv("PORTICO_ABUSE") != ""
	long := measured && os.Getenv("PORTICO_ABUSE_ONLY") == ""
	length := lengthOf(t) / time.Duration(len(kinds)+2)
	nothing := floor(t)
	if measured {
		takePrecedence(t)
	}
	through, direct := p.Config(world.Token("admin")), world.ConfigFor(world.Token("admin"))
	r := &report{t: t, quiet: work(t, through, length)}
	goroutines, files := p.Gauge("go_goroutines"), p.Gauge("process_open_fds")
	attacked := append(slices.Collect(one(kinds)), kinds)
	if os.Getenv("PORTICO_ABUSE_ONLY") == "all" {
		attacked = attacked[len(kinds):]
	}
	for _, attack := range attacked {
		name := nameOf(attack)
		done := profile(t, p, name, length)
		got, cost := under(t, attack, through, through, length)
		done()
		most := peak(t, p)
		r.add("", name, got, fmt.Sprintf("resident at most %d MiB; %s", most, cost))
		if most > peakLimit && !proxy.Race {
			t.Fatalf("%s: the proxy takes %d MiB, and may take %d", name, most, peakLimit)
		}
		if measured {
			calm(t)
			r.quiet = append(r.quiet, work(t, through, length/quietShare)...)
		}
	}
	settle(t, p, "go_goroutines", goroutines+100)
	settle(t, p, "process_open_fds", files+100)
	if long {
		// The API server comes last: it has to do with an attack long after that.
		for _, attack := range attacked {
			got, cost := under(t, attack, nothing, through, min(length, comparedFor))
			r.add("elsewhere", nameOf(attack), got, cost)
		}
		for _, attack := range attacked {
			got, cost := under(t, attack, direct, direct, min(length, comparedFor))
			r.add("directly", nameOf(attack), got, cost)
			calm(t)
		}
	}
	r.end()
}

// chosen are the kinds that PORTICO_ABUSE_KINDS names, or all.
func chosen() []string {
	all := slices.Sorted(maps.Keys(attacks))
	if only := strings.Fields(os.Getenv("PORTICO_ABUSE_KINDS")); len(only) > 0 {
		return slices.DeleteFunc(all, func(kind string) bool { return !slices.Contains(only, kind) })
	}
	return all
}

// quietShare is how much longer an attack lasts than the quiet after it that it is
// compared with, as it is with all the other quiet: machines change while this runs.
const quietShare = 3

// report is what has been measured.
type report struct {
	t     *testing.T
	quiet times // of the whole run
	rows  []row
}

type row struct {
	where, name, cost string
	took              times
}

// add tells of a row, compared with the quiet so far.
func (r *report) add(where, name string, took times, cost string) {
	r.rows = append(r.rows, row{where, name, cost, took})
	r.t.Logf("%-9s %-13s %s; %s; %s", where, name, took, r.compared(took), cost)
}

func (r *report) compared(took times) string {
	return fmt.Sprintf("p50 %.1f x, p99 %.1f x", float64(took.at(0.5))/float64(r.quiet.at(0.5)), float64(took.at(0.99))/float64(r.quiet.at(0.99)))
}

// end tells of all rows, compared with all of the quiet.
func (r *report) end() {
	r.t.Logf("all told: quiet %s", r.quiet)
	for _, row := range r.rows {
		r.t.Logf("%-9s %-13s %s", row.where, row.name, r.compared(row.took))
	}
}

// comparedFor is how long at most each attack goes on that is there to compare with.
const comparedFor = 10 * time.Second

func nameOf(attack []string) string {
	if len(attack) > 1 {
		return "all"
	}
	return attack[0]
}

// calm waits until the API server has done with an attack, or for a minute.
func calm(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	const server = "kube-apiserver"
	for before, n := children(t)[server], 0; n < 120; n++ {
		<-tick.C
		now := children(t)[server]
		if now-before < 100*time.Millisecond {
			return
		}
		before = now
	}
}

// one makes a set of each kind.
func one(kinds []string) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for _, k := range kinds {
			if !yield([]string{k}) {
				return
			}
		}
	}
}

// fill makes a collection that is worth asking for.
func fill(t *testing.T) {
	t.Helper()
	cfg := world.Config()
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 4<<10)
	for i := range objects {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c-%04d", i)}, Data: map[string]string{"text": text}}
		if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

// under is how a caller fares with a server while this or another is attacked, and
// which part of a processor each process takes.
func under(t *testing.T, attack []string, attacked, server *rest.Config, length time.Duration) (times, string) {
	t.Helper()
	stop := attackBy(t, attacked, attack)
	defer stop()
	before, begun := children(t), time.Now()
	took := work(t, server, length)
	return took, children(t).since(before, time.Since(begun))
}

// attackBy runs an attacking process until stop.
func attackBy(t *testing.T, server *rest.Config, kinds []string) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(plan{
		Kinds: kinds, Workers: 8, Address: strings.TrimPrefix(server.Host, "https://"), CA: server.CAData, Token: world.Token("mallory").Token,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), attackEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = in.Close() // its end is the attack's, however this process ends
		if err := cmd.Wait(); err != nil {
			t.Errorf("the attack failed: %v", err)
		}
	}
}

// times are how long a caller's requests took.
type times []time.Duration

func (s times) at(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func (s times) String() string {
	return fmt.Sprintf("%d requests, p50 %v, p99 %v", len(s), s.at(0.5).Round(10*time.Microsecond), s.at(0.99).Round(10*time.Microsecond))
}

// work is what a caller does meanwhile: it reads, writes, and follows what it
// writes. All of it must succeed, as client-go sees it, which heeds Retry-After.
func work(t *testing.T, server *rest.Config, length time.Duration) times {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	cfg := rest.CopyConfig(server)
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps("default")
	var took times
	timed := func(what string, do func() error) {
		start := time.Now()
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		took = append(took, time.Since(start))
	}
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 0; n == 0 || ctx.Err() == nil; n++ {
		<-pace.C
		name, want := fmt.Sprintf("c-%04d", n%objects), strconv.FormatInt(time.Now().UnixNano(), 10)
		var wrote *corev1.ConfigMap
		timed("write", func() (err error) {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"text": want}}
			wrote, err = maps.Update(t.Context(), m, metav1.UpdateOptions{})
			return err
		})
		if wrote == nil {
			continue
		}
		for _, rv := range []string{"", wrote.ResourceVersion} {
			timed("read", func() error {
				got, err := maps.Get(t.Context(), name, metav1.GetOptions{ResourceVersion: rv})
				if err == nil && got.Data["text"] != want {
					t.Errorf("%s at %q is not what was written to it", name, rv)
				}
				return err
			})
		}
	}
	return took
}

// peak is the most that the proxy has taken so far, in MiB.
func peak(t *testing.T, p *proxy.Proxy) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// settle waits until the attacks have left no more than most of something.
func settle(t *testing.T, p *proxy.Proxy, series string, most float64) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for got := p.Gauge(series); got > most; got = p.Gauge(series) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s is %.0f after the attacks, and was to be at most %.0f", series, got, most)
		}
	}
}

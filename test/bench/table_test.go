package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// A table is what a person reads. Benchmark lines are for programs.
type table struct {
	machine string
	rows    []row
}

// A row is one figure. Proxied is, where it has two parts, the proxy's and
// kube-apiserver's behind it. Compared says how proxied relates to direct, and
// goal what it is to be at most; nothing is judged here, as one run on a busy
// machine proves nothing.
type row struct{ what, direct, proxied, compared, goal string }

func (t *table) add(r row) { t.rows = append(t.rows, r) }

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n\n", t.machine)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\tdirect\tproxied\tcompared\tgoal")
	for _, r := range t.rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", r.what, r.direct, r.proxied, r.compared, r.goal)
	}
	fmt.Fprintln(tw)
	_ = tw.Flush() // as with all that is printed
}

// what names a row.
func what(b *testing.B, figure string) string {
	b.Helper()
	_, name, _ := strings.Cut(b.Name(), "/")
	return name + ", " + figure
}

// latency adds what two roads, direct and proxied, took in milliseconds.
func (t *table) latency(b *testing.B, took [2]sample, goals ...string) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	for i, q := range []float64{0.5, 0.99} {
		name := fmt.Sprintf("p%.0f", q*100)
		direct, proxied := took[0].at(q), took[1].at(q)
		b.ReportMetric(direct, name+"-direct-ms")
		b.ReportMetric(proxied, name+"-proxied-ms")
		b.ReportMetric(proxied-direct, name+"-added-ms")
		t.add(row{what(b, name), ms(direct), ms(proxied), fmt.Sprintf("%+.2f ms", proxied-direct), append(goals, "", "")[i]})
	}
}

// ratio adds what two roads, direct and proxied, took in milliseconds.
func (t *table) ratio(b *testing.B, figure string, took [2]sample, goal string) {
	b.Helper()
	direct, proxied := took[0].median(), took[1].median()
	b.ReportMetric(proxied/direct, figure+"-proxied/direct")
	t.add(row{what(b, figure), ms(direct), ms(proxied), fmt.Sprintf("%.2f x", proxied/direct), goal + " x"})
}

// costs are CPU times in milliseconds, one figure a round: kube-apiserver's
// when asked directly, the proxy's, and kube-apiserver's behind the proxy.
type costs struct{ direct, proxy, behind sample }

func (t *table) cost(b *testing.B, c costs, goal string) {
	b.Helper()
	var ratio sample
	for i := range c.direct {
		ratio.add(c.proxy[i] / c.direct[i])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(c.direct.median(), "apiserver-direct-cpu-ms")
	b.ReportMetric(c.behind.median(), "apiserver-proxied-cpu-ms")
	b.ReportMetric(c.proxy.median(), "proxy-cpu-ms")
	b.ReportMetric(ratio.median(), "proxy/apiserver")
	t.add(row{what(b, "CPU"), ms(c.direct.median()), fmt.Sprintf("%s + %s", ms(c.proxy.median()), ms(c.behind.median())),
		fmt.Sprintf("%.2f x", ratio.median()), goal + " x"})
}

// A sample is a set of measurements of one thing.
type sample []float64

func (s *sample) add(v float64) { *s = append(*s, v) }

// addTime adds d in milliseconds.
func (s *sample) addTime(d time.Duration) { s.add(d.Seconds() * 1e3) }

// at is the quantile q, 0 to 1, by nearest rank.
func (s sample) at(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (s sample) median() float64 { return s.at(0.5) }

func ms(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f ms", v)
	}
	return fmt.Sprintf("%.3g ms", v)
}

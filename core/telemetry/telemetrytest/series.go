package telemetrytest

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Series returns the values of the metric called name, by labels: "code=200
// verb=GET", in the order of their names and without empty ones. Of histograms
// the value is the number of observations. Gauges at zero are left out: nobody
// can tell them from ones that never were.
func Series(tb testing.TB, g prometheus.Gatherer, name string) map[string]float64 {
	tb.Helper()
	got := map[string]float64{}
	for _, m := range family(tb, g, name) {
		value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		if value != 0 {
			got[labels(m)] = value
		}
	}
	return got
}

// Exemplars returns the exemplars of a histogram, each as "label=value".
func Exemplars(tb testing.TB, g prometheus.Gatherer, name string) (found []string) {
	tb.Helper()
	for _, m := range family(tb, g, name) {
		for _, b := range m.GetHistogram().GetBucket() {
			for _, l := range b.GetExemplar().GetLabel() {
				found = append(found, l.GetName()+"="+l.GetValue())
			}
		}
	}
	return found
}

func family(tb testing.TB, g prometheus.Gatherer, name string) []*dto.Metric {
	tb.Helper()
	families, err := g.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric
		}
	}
	return nil
}

func labels(m *dto.Metric) string {
	var all []string
	for _, l := range m.Label {
		if l.GetValue() != "" {
			all = append(all, l.GetName()+"="+l.GetValue())
		}
	}
	return strings.Join(all, " ")
}

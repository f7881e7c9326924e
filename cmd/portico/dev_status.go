package main

import (
	"fmt"
	"io"

	"k8s.io/component-base/term"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// statusLine says on one line of a terminal what the proxy is doing.
type statusLine struct {
	out      io.Writer
	terminal bool
	requests float64
}

func newStatusLine(out io.Writer) *statusLine {
	_, _, err := term.TerminalSize(out)
	return &statusLine{out: out, terminal: err == nil}
}

// update writes over what was said a second ago.
func (s *statusLine) update() {
	if !s.terminal {
		return
	}
	total, inFlight, watches := sum("portico_request_total"), sum("portico_current_inflight_requests"), sum("portico_longrunning_requests")
	fmt.Fprintf(s.out, "\r\033[K%.0f requests, %.0f/s, %.0f in flight, %.0f watches and streams",
		total, total-s.requests, inFlight, watches)
	s.requests = total
}

// sum adds up all series of a counter or gauge.
func sum(name string) float64 {
	families, err := metrics.Registry.Gather()
	if err != nil {
		return 0
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

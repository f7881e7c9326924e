package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/portico-proxy/portico/filters/rego"
)

// decisionOptions are the flags of the decision log.
type decisionOptions struct {
	file      string
	sample    float64
	perSecond int
	mask      []string
}

func (o *decisionOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.file, "decision-log-file", o.file, `File to which decisions of policies in Rego are appended, as lines of JSON; "-" is standard output. Empty logs none.`)
	f.Float64Var(&o.sample, "decision-log-sample", o.sample, "Which part of the decisions that let requests pass is logged, between 0 and 1. Denials and failures are logged all.")
	f.IntVar(&o.perSecond, "decision-log-max-per-second", o.perSecond, "How many decisions are logged in a second; the others are dropped and counted.")
	f.StringSliceVar(&o.mask, "decision-log-mask", o.mask, "Fields of the policies' input that are not logged, nor what is decided by them.")
}

// stdout stays open when a log ends.
type stdout struct{ io.Writer }

func (stdout) Close() error { return nil }

// logDecisions opens the log of decisions; nil is none.
func (p *proxy) logDecisions(o proxyOptions) (*rego.DecisionLog, error) {
	if o.decisions.file == "" {
		return nil, nil
	}
	dropped, err := p.telemetry.ObserveDecisionLog()
	if err != nil {
		return nil, err
	}
	to := io.WriteCloser(stdout{os.Stdout})
	if o.decisions.file != "-" {
		if to, err = os.OpenFile(o.decisions.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("open --decision-log-file: %w", err)
		}
	}
	log, err := rego.NewDecisionLog(rego.LogOptions{
		To: to, Sample: o.decisions.sample, PerSecond: o.decisions.perSecond, Mask: o.decisions.mask,
		Node: o.nodeName, Dropped: dropped, Log: p.log.WithName("decisions"),
	})
	if err != nil {
		return nil, err
	}
	p.beside = append(p.beside, log)
	return log, nil
}

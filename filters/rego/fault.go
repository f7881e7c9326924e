package rego

import (
	"context"
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/config"
)

const (
	// faultEvery is how often it is logged that a policy fails.
	faultEvery = time.Minute
	// maxFault is how much of an error is told of in a status, in bytes.
	maxFault = 1024
)

// faults are what was wrong with what a policy said of requests. Who throttles lets
// requests pass then, so somebody has to be told.
type faults struct {
	mu     sync.Mutex // guards following
	first  string
	logged time.Time
}

// add takes note of a fault, and says whether it is the first and is to be logged.
func (f *faults) add(err error, now time.Time) (first, log bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// What a machine is too busy for is no mistake.
	if f.first == "" && !errors.Is(err, errDeadline) {
		text := err.Error()
		f.first, first = text[:min(len(text), maxFault)], true
	}
	if log = now.Sub(f.logged) >= faultEvery; log {
		f.logged = now
	}
	return first, log
}

// condition is what there is to say of a policy's answers.
func (f *faults) condition() metav1.Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == "" {
		return metav1.Condition{Type: config.Evaluated, Status: metav1.ConditionTrue, Reason: "Evaluated", Message: "Nothing that it has said of requests had to be refused."}
	}
	return metav1.Condition{
		Type: config.Evaluated, Status: metav1.ConditionFalse, Reason: "Refused",
		Message: f.first + ". Requests of which it says so fare as the failurePolicy of the binding says: where that throttles and says nothing, they pass without a limit.",
	}
}

// blame tells that a policy failed on a request.
func (f *Filter) blame(ctx context.Context, b *binding, err error) {
	if ctx.Err() != nil {
		return // it was not let finish
	}
	if f.options.Failed != nil {
		f.options.Failed(b.policy.name, err)
	}
	first, log := b.policy.faults.add(err, time.Now())
	if log {
		f.options.Log.Error(err, "Policy failed on a request; it is not said again for a minute", "policy", b.policy.name, "binding", b.name)
	}
	if first {
		f.wake()
	}
}

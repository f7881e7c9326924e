package rego

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// small is a limit whose onExceed is written as no limit's is.
const small = `package a

limits contains {"id": "lists", "key": [input.user.name], "tokens": {"rate": 1}, "onExceed": "reject"} if input.verb == "list"
`

func TestWhatAPolicySaysWrongIsTold(t *testing.T) {
	logged := make(chan string, 100)
	failed := 0
	l := NewLibrary(Options{
		Failed: func(string, error) { failed++ },
		Log:    funcr.New(func(_, args string) { logged <- args }, funcr.Options{}),
	})
	ctx, stop := context.WithCancel(context.Background())
	again, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- l.Start(ctx, func() error { again <- struct{}{}; return nil }) }()
	p, b := policy("p", small), bind("p", v1alpha1.PhaseThrottle, nil)
	if _, found := ask(t, l, asking{"GET", "/api/v1/pods/a", jane}, p, b); !strings.Contains(conditions(found, p), "Evaluated=True") {
		t.Errorf("before it has failed: %s", conditions(found, p))
	}
	for range 3 {
		if got, _ := ask(t, l, asking{"GET", "/api/v1/namespaces/a/pods", jane}, p, b); got.code != 0 || len(got.limits) > 0 {
			t.Errorf("who throttles fails open: %+v", got)
		}
	}
	<-again
	const want = "limit lists: onExceed: must be one of [Reject Delay ServeCached Warn]"
	_, found := ask(t, l, asking{"GET", "/api/v1/pods/a", jane}, p, b)
	if got := conditions(found, p); !strings.Contains(got, "Evaluated=False: "+want) {
		t.Errorf("found %s", got)
	}
	if line := <-logged; !strings.Contains(line, want) || len(logged) > 0 || failed != 3 {
		t.Errorf("%d faults; logged %s and %d more", failed, line, len(logged))
	}
	p = policy("p", strings.Replace(small, "reject", "Reject", 1))
	if _, found := ask(t, l, asking{"GET", "/api/v1/namespaces/a/pods", jane}, p, b); !strings.Contains(conditions(found, p), "Evaluated=True") {
		t.Errorf("of the one after it: %s", conditions(found, p))
	}
	stop()
	if err := <-ended; err != nil || len(again) > 0 {
		t.Errorf("%v; %d more times", err, len(again))
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var f faults
	now := time.Unix(1000, 0)
	if first, log := f.add(errDeadline, now); first || !log {
		t.Error("a deadline is logged, and no mistake")
	}
	if first, log := f.add(errors.New(strings.Repeat("x", 2*maxFault)), now.Add(faultEvery-1)); !first || log {
		t.Error("the first mistake is told of")
	}
	if first, log := f.add(errors.New("y"), now.Add(faultEvery)); first || !log {
		t.Error("another is only logged")
	}
	if c := f.condition(); c.Type != config.Evaluated || c.Status != metav1.ConditionFalse || len(c.Message) > maxFault+300 {
		t.Errorf("got %+v", c)
	}
}

func TestTestsFailWhereTheProxyWouldRefuse(t *testing.T) {
	const tests = "package a_test\n\nimport data.a\n\ntest_list if count(a.limits) == 1 with input as {\"verb\": \"list\", \"user\": {\"name\": \"joe\"}}\n\n" +
		"test_other if count(a.limits) == 0 with input as {\"verb\": \"get\"}\n"
	results, err := Test(t.Context(), map[string]string{"a.rego": small, "a_test.rego": tests})
	if err != nil || len(results) != 2 || results[1].Err != nil {
		t.Fatalf("got %v, %v", results, err)
	}
	const want = "a.rego, line 3, column 1: the proxy would refuse what limits contains: limit lists: onExceed: must be one of [Reject Delay ServeCached Warn]"
	if results[0].Err == nil || results[0].Err.Error() != want {
		t.Errorf("got %v", results[0].Err)
	}
}

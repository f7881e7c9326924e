package rego

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drops are what a log was told to have dropped, by reason.
type drops struct {
	mu sync.Mutex
	by map[string]int
}

func (d *drops) add(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]int{}
	}
	d.by[reason]++
}

func (d *drops) all() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.by
}

// A page is a sink that remembers.
type page struct {
	bytes.Buffer
	closed bool
}

func (p *page) Close() error {
	p.closed = true
	return nil
}

// logged does something with a log that is written, and returns its text.
func logged(t *testing.T, o LogOptions, do func(*DecisionLog)) string {
	t.Helper()
	p := &page{}
	o.To = p
	l := decisionLog(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Start(ctx) }()
	do(l)
	cancel()
	if err := <-done; err != nil || !p.closed {
		t.Errorf("it ended with %v, closed %t", err, p.closed)
	}
	return p.String()
}

func decisionLog(t *testing.T, o LogOptions) *DecisionLog {
	t.Helper()
	if o.PerSecond == 0 {
		o.PerSecond = 1 << 20
	}
	if o.Dropped == nil {
		o.Dropped = func(reason string) { t.Errorf("dropped: %s", reason) }
	}
	o.Log = testr.New(t)
	l, err := NewDecisionLog(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var extraMasked = []string{"user.extra"}

// lines are a log's, without what differs from run to run.
func lines(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, key := range []string{"decision_id", "timestamp", "metrics", "digest", "input_hash"} {
			if e[key] == nil && (key != "input_hash" || e["input"] != nil) && (key != "digest" || e["path"] != nil) {
				t.Errorf("there is no %s in %s", key, line)
			}
			delete(e, key)
		}
		all = append(all, e)
	}
	return all
}

// TestDecisionsAreLogged has each kind of decision logged as OPA would.
func TestDecisionsAreLogged(t *testing.T) {
	input := `"input": {"user": {"name": "jane"}, "verb": "list", "apiGroup": "", "resource": "%s", "subresource": "", "namespace": "", "name": ""}`
	audit := func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit }
	for name, tt := range map[string]struct {
		phase  v1alpha1.FilterPhase
		change func(*v1alpha1.FilterBindingSpec)
		path   string
		caller user.Info
		want   string
	}{
		"denied": {v1alpha1.PhaseRestrict, nil, "secrets", jane, `"path": "a", "phase": "Restrict", "mode": "Enforce", "decision": "deny", "result": {"deny": ["no secrets"]}, ` + fmt.Sprintf(input, "secrets")},
		"warned": {v1alpha1.PhaseRestrict, audit, "pods", jane, `"path": "a", "phase": "Restrict", "mode": "Audit", "decision": "pass", "result": {"warn": ["pods\nare dear"]}, ` + fmt.Sprintf(input, "pods")},
		"limited": {v1alpha1.PhaseThrottle, nil, "pods", jane, `"path": "a", "phase": "Throttle", "mode": "Enforce", "decision": "pass", "result":
			{"limits": [{"id": "all", "key": ["jane"], "tokens": {"rate": 1, "burst": 1}, "cost": 1, "onExceed": "Reject", "applies": "Client"}]}, ` + fmt.Sprintf(input, "pods")},
		"unknown": {v1alpha1.PhaseThrottle, nil, "pods", nil, `"phase": "Throttle", "mode": "Enforce", "decision": "error", "error": "a policy of this proxy concerns the request, and its credential is not one that the API server would review"`},
	} {
		t.Run(name, func(t *testing.T) {
			text := logged(t, LogOptions{Sample: 1, Mask: extraMasked, Node: "n1"}, func(d *DecisionLog) {
				ask(t, NewLibrary(Options{Log: testr.New(t), Decisions: d}), asking{"GET", "/api/v1/" + tt.path, tt.caller}, policy("p", restricts), bind("p", tt.phase, tt.change))
			})
			var want map[string]any
			if err := json.Unmarshal([]byte(`{"labels": {"node": "n1"}, "policy": "p", "binding": "b", `+tt.want+"}"), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]map[string]any{want}, lines(t, text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMaskedValuesAreNeverLogged plants them where a policy tells what it reads, and
// where it fails because of it.
func TestMaskedValuesAreNeverLogged(t *testing.T) {
	const marker = "planted"
	caller := &user.DefaultInfo{Name: marker + "-name", UID: marker + "-uid", Extra: map[string][]string{"example.org/" + marker: {marker + "-extra"}}}
	for name, tt := range map[string]struct {
		rego string
		mask []string
		path string
		want string // that there is something in the log nonetheless
	}{
		"not-read":       {`warn contains "said" if input.verb == "list"`, []string{"user.name"}, "/api/v1/pods", `"said"`},
		"denial":         {`deny contains input.user.name`, []string{"input.user.name"}, "/api/v1/pods", `"/result"`},
		"helper":         {"deny contains who\n\nwho := object.get(input, [\"user\", \"name\"], \"\")", []string{"user"}, "/api/v1/pods", `"/result"`},
		"whole":          {`deny contains json.marshal(input)`, []string{"user"}, "/api/v1/pods", `"/result"`},
		"extra":          {`warn contains json.marshal(input.user.extra)`, []string{"user.extra", "user.name"}, "/api/v1/pods", `"/result"`},
		"one-of-extra":   {`warn contains json.marshal(input.user.extra)`, []string{"user.extra.x", "user.name"}, "/api/v1/pods", `"/result"`},
		"failure":        {`deny contains "x" if to_number(input.user.name) > 3`, []string{"user.name"}, "/api/v1/pods", `"/error"`},
		"key":            {`deny contains "x" if {input.user.uid == ""; input.user.name == ""}`, []string{"user"}, "/api/v1/pods", `"/result"`},
		"name-in-path":   {`deny contains input.path`, []string{"name", "user.name"}, "/api/v1/namespaces/a/pods/" + marker, `"/input/path"`},
		"behind-proxies": {`warn contains input.path`, []string{"user.name"}, "/api/v1/namespaces/a/pods/web/proxy/" + marker, `"/input/path"`},
	} {
		t.Run(name, func(t *testing.T) {
			text := logged(t, LogOptions{Sample: 1, Mask: tt.mask}, func(d *DecisionLog) {
				ask(t, NewLibrary(Options{Log: logr.Discard(), Decisions: d}), asking{"GET", tt.path, caller}, policy("p", "package a\n\n"+tt.rego+"\n"), bind("p", v1alpha1.PhaseRestrict, nil))
			})
			if strings.Contains(text, marker) || !strings.Contains(text, tt.want) {
				t.Errorf("logged %s", text)
			}
		})
	}
}

// TestCredentialsAreNotInput has a request with a token and a body logged whole.
func TestCredentialsAreNotInput(t *testing.T) {
	text := logged(t, LogOptions{Sample: 1}, func(d *DecisionLog) {
		l := NewLibrary(Options{Log: testr.New(t), Decisions: d})
		ask(t, l, asking{"POST", "/api/v1/namespaces/a/secrets?fieldManager=x", jane}, policy("p", "package a\n\nwarn contains json.marshal(input)\n"), bind("p", v1alpha1.PhaseRestrict, nil))
	})
	if text == "" || strings.Contains(text, "Bearer") {
		t.Errorf("logged %q", text)
	}
}

// decided many times, each by a request of its own.
func decideOften(t *testing.T, d *DecisionLog, times int, rego string) {
	t.Helper()
	l := NewLibrary(Options{Log: logr.Discard(), Decisions: d})
	objects := []runtime.Object{policy("p", rego), bind("p", v1alpha1.PhaseRestrict, nil)}
	for n := range times {
		ask(t, l, asking{"GET", fmt.Sprintf("/api/v1/namespaces/a/pods/p-%d", n), jane}, objects...)
	}
}

const (
	passes = "package a\n\nwarn contains \"x\" if input.name != \"\"\n"
	denies = "package a\n\ndeny contains \"x\" if input.name != \"\"\n"
)

func TestDecisionsAreSampled(t *testing.T) {
	count := func(sample float64, rego string) int {
		return strings.Count(logged(t, LogOptions{Sample: sample}, func(d *DecisionLog) { decideOften(t, d, 500, rego) }), "\n")
	}
	if got := count(0, passes); got != 0 {
		t.Errorf("none were asked for, and %d are logged", got)
	}
	if got := count(0, denies); got != 500 {
		t.Errorf("%d of 500 denials are logged", got)
	}
	if got := count(0.5, passes); got < 100 || got > 400 {
		t.Errorf("%d of 500 are no half", got)
	}
	for _, o := range []LogOptions{{Sample: 1.5, PerSecond: 1}, {Sample: -1, PerSecond: 1}, {Sample: 1}, {PerSecond: 1, Mask: []string{"user.nam"}}, {PerSecond: 1, Mask: []string{""}}} {
		if _, err := NewDecisionLog(o); err == nil {
			t.Errorf("%+v was not refused", o)
		}
	}
}

func TestDecisionsASecondAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped drops
		text := logged(t, LogOptions{Sample: 1, PerSecond: 10, Dropped: dropped.add}, func(d *DecisionLog) {
			for range 2 {
				decideOften(t, d, 25, denies)
				<-time.After(time.Second)
			}
		})
		if got := strings.Count(text, "\n"); got != 20 {
			t.Errorf("%d are logged", got)
		}
		if diff := cmp.Diff(map[string]int{telemetry.UnloggedRate: 30}, dropped.all()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestLongDecisionsAreCutOrDropped has a parameter that is longer than a line, and
// a denial that is.
func TestLongDecisionsAreCutOrDropped(t *testing.T) {
	for name, tt := range map[string]struct{ rego, want string }{
		"input":  {"package a\n\nwarn contains \"x\" if input.options.resourceVersion != \"\"\n", `"erased":["/input"]`},
		"result": {"package a\n\ndeny contains input.options.resourceVersion\n", `"erased":["/input","/result"]`},
	} {
		t.Run(name, func(t *testing.T) {
			text := logged(t, LogOptions{Sample: 1}, func(d *DecisionLog) {
				l := NewLibrary(Options{Log: testr.New(t), Decisions: d})
				ask(t, l, asking{"GET", "/api/v1/pods?resourceVersion=" + strings.Repeat("a", maxEvent), jane}, policy("p", tt.rego), bind("p", v1alpha1.PhaseRestrict, nil))
			})
			if !strings.Contains(text, tt.want) || len(text) > maxEvent {
				t.Errorf("logged %s", text)
			}
		})
	}
}

// TestSlowLogHoldsNobodyUp has a sink that takes nothing for as long as requests
// come, and then takes what there was room for, or nothing ever.
func TestSlowLogHoldsNobodyUp(t *testing.T) {
	for name, wakes := range map[string]bool{"slow": true, "never": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from, to := io.Pipe()
				var dropped drops
				d := decisionLog(t, LogOptions{Sample: 1, To: to, Dropped: dropped.add})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- d.Start(ctx) }()
				decideOften(t, d, 1, denies)
				synctest.Wait() // it is being written
				began := time.Now()
				decideOften(t, d, maxQueued+100, denies)
				if took := time.Since(began); took != 0 {
					t.Errorf("requests waited %v", took)
				}
				if got := dropped.all()[telemetry.UnloggedQueue]; got != 100 {
					t.Errorf("%d were dropped", got)
				}
				read := make(chan string, 1)
				if wakes {
					go func() {
						text, _ := io.ReadAll(from)
						read <- string(text)
					}()
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if !wakes {
					synctest.Wait() // who writes finds out that it is closed, and says so
					return
				}
				if got := strings.Count(<-read, "\n"); got != maxQueued+1 {
					t.Errorf("%d were written", got)
				}
			})
		})
	}
}

// TestFullDiskHoldsNobodyUp has the kernel's own.
func TestFullDiskHoldsNobodyUp(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	var dropped drops
	d := decisionLog(t, LogOptions{Sample: 1, To: full, Dropped: dropped.add})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Start(ctx) }()
	decideOften(t, d, 20, denies)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]int{telemetry.UnloggedWrite: 20}, dropped.all()); diff != "" {
		t.Error(diff)
	}
}

// fills is a disk that has room for so many bytes, and then has room again.
type fills struct {
	page
	room int
}

func (f *fills) Write(line []byte) (int, error) {
	if f.room >= len(line) {
		return f.Buffer.Write(line)
	}
	n, _ := f.Buffer.Write(line[:f.room])
	f.room = 1 << 20
	return n, io.ErrShortWrite
}

func TestLineAfterAFullDiskIsWhole(t *testing.T) {
	var dropped drops
	to := &fills{room: 30}
	d := decisionLog(t, LogOptions{Sample: 1, To: to, Dropped: dropped.add})
	lines := []string{`{"one": 1, "and": "so much more"}` + "\n", `{"two": 2}` + "\n", `{"three": 3}` + "\n"}
	for _, line := range lines {
		d.append([]byte(line))
	}
	if diff := cmp.Diff(lines[0][:30]+"\n"+lines[1]+lines[2], to.String()); diff != "" {
		t.Error(diff)
	}
}

package rego

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/telemetry"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// An event is one line of the decision log. What OPA's decision logs have as well
// has OPA's name.
type event struct {
	ID        string            `json:"decision_id"`
	Labels    map[string]string `json:"labels,omitempty"`
	Timestamp time.Time         `json:"timestamp"`
	// Policy is the RegoPolicy, and Digest that of its spec: the one in force,
	// which may be older than what the API has.
	Policy  string               `json:"policy"`
	Bundles map[string]revision  `json:"bundles,omitempty"`
	Digest  string               `json:"digest,omitempty"`
	Path    string               `json:"path,omitempty"` // of the package
	Binding string               `json:"binding"`
	Phase   v1alpha1.FilterPhase `json:"phase"`
	Mode    v1alpha1.FilterMode  `json:"mode"`
	AuditID string               `json:"audit_id,omitempty"`
	Input   map[string]any       `json:"input,omitempty"`
	Hash    string               `json:"input_hash,omitempty"`
	Erased  []string             `json:"erased,omitempty"`
	Said    string               `json:"decision"`
	Result  *result              `json:"result,omitempty"`
	Error   string               `json:"error,omitempty"`
	Metrics map[string]int64     `json:"metrics"`
}

// A revision is what whoever built a bundle calls it.
type revision struct {
	Revision string `json:"revision,omitempty"`
}

// A result is what a policy said.
type result struct {
	Deny   []string      `json:"deny,omitempty"`
	Warn   []string      `json:"warn,omitempty"`
	Limits []loggedLimit `json:"limits,omitempty"`

	Selectors []Selector `json:"selectors,omitempty"`
}

// A loggedLimit is a limit in the words of whoever wrote the policy.
type loggedLimit struct {
	ID       string             `json:"id"`
	Key      []string           `json:"key"`
	Tokens   map[string]float64 `json:"tokens,omitempty"`
	InFlight map[string]int     `json:"inFlight,omitempty"`
	Cost     float64            `json:"cost,omitempty"` // if it was known
	OnExceed limit.OnExceed     `json:"onExceed"`
	Applies  limit.Applies      `json:"applies"`
	Scope    limit.Scope        `json:"scope,omitempty"` // but for Proxy
}

// decided is what there is to be said of one decision.
type decided struct {
	binding *binding
	facts   *Facts
	known   bool // whether it is known who the caller is
	answer  Answer
	said    string
	err     error
	took    time.Duration
}

const (
	// maxEvent is the longest line, in bytes. What is longer loses its input, and
	// then its result.
	maxEvent = 16 << 10
	// maxError is how much of an error is logged, in bytes.
	maxError = 1 << 10
)

// always are the fields that tell which request it was. Of the others only those
// are logged that the policy reads.
var always = []string{"user.name", "verb", "apiGroup", "resource", "subresource", "namespace", "name"}

// A mask says which fields are not logged.
type mask struct {
	hidden map[string]bool
	key    []byte // of hashes: without it, nobody can try what a hash may be of
}

// newMask hides the fields that paths, as in user.extra, name, and those that tell
// the same.
func newMask(paths []string, key []byte) (*mask, error) {
	m := &mask{hidden: map[string]bool{}, key: key}
	for _, path := range paths {
		path = strings.TrimPrefix(path, "input.")
		found := false
		for i := range fields {
			if path != "" && touches(path, fields[i].path) {
				m.hidden[fields[i].path], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no input.%s", path)
		}
	}
	for _, one := range []struct{ of, tells string }{
		{"user.name", "workload.namespace"}, {"user.name", "workload.serviceAccount"},
		{"namespace", "path"}, {"name", "path"}, {"name", "options.fieldSelector"}, {"resource", "path"},
	} {
		m.hidden[one.tells] = m.hidden[one.tells] || m.hidden[one.of]
	}
	return m, nil
}

// hides reports whether a field of a request is not logged. What follows in the
// path of a request to somebody behind the API server is not the API's.
func (m *mask) hides(f *field, facts *Facts) bool {
	return m.hidden[f.path] || f.path == "path" && facts.Info.Subresource == "proxy"
}

// line is a decision's in the log, or nil if it is too long.
func (m *mask) line(d *decided, node string) []byte {
	e := event{
		ID: uuid.NewString(), Timestamp: time.Now().UTC(), Policy: d.binding.spec.FilterRef.Name, Digest: d.binding.digest,
		Binding: d.binding.name, Phase: d.binding.spec.Phase, Mode: v1alpha1.ModeEnforce, AuditID: telemetry.AuditID(d.facts.Request),
		Said: d.said, Metrics: map[string]int64{"timer_server_handler_ns": d.took.Nanoseconds()},
	}
	if node != "" {
		e.Labels = map[string]string{"node": node}
	}
	if p := d.binding.policy; p != nil && p.revision != "" {
		e.Bundles = map[string]revision{p.name: {p.revision}}
	}
	if d.binding.audits() {
		e.Mode = v1alpha1.ModeAudit
	}
	if d.err != nil {
		e.Error = strings.ToValidUTF8(d.err.Error()[:min(len(d.err.Error()), maxError)], "")
	} else {
		e.Result = resultOf(&d.answer)
	}
	if d.known {
		m.describe(&e, d)
	}
	return e.text()
}

// describe adds what the policy was asked. What it said may tell what it read: if
// that is masked, so is this.
func (m *mask) describe(e *event, d *decided) {
	e.Input = map[string]any{}
	reads := map[string]bool{}
	if q := d.binding.asked(); q != nil {
		e.Path = d.binding.policy.path()
		e.Hash = m.hash(q.input.key(nil, d.facts))
		for _, f := range q.input.used {
			reads[f.path] = true
		}
	}
	tells := false
	for i := range fields {
		f := &fields[i]
		if !reads[f.path] && !slices.Contains(always, f.path) {
			continue
		}
		if !m.hides(f, d.facts) {
			f.put(e.Input, d.facts)
			continue
		}
		e.erase("/input/" + strings.ReplaceAll(f.path, ".", "/"))
		tells = tells || reads[f.path]
	}
	if !tells {
		return
	}
	if e.Error != "" {
		e.Error = ""
		e.erase("/error")
		return
	}
	e.Result = nil
	e.erase("/result")
}

func (e *event) erase(path string) { e.Erased = append(e.Erased, path) }

// text is e as JSON, made shorter if it is too long.
func (e *event) text() []byte {
	for _, shorten := range []func(){
		func() {},
		func() { e.Input = nil; e.erase("/input") },
		func() { e.Result = nil; e.erase("/result") },
	} {
		shorten()
		// Nothing in it cannot be marshalled.
		text, _ := json.Marshal(e)
		if len(text) < maxEvent {
			return append(text, '\n')
		}
	}
	return nil
}

// hash is equal for inputs that are, within the life of one process.
func (m *mask) hash(key []byte) string {
	sum := hmac.New(sha256.New, m.key)
	sum.Write(key)
	return hex.EncodeToString(sum.Sum(nil))
}

func resultOf(a *Answer) *result {
	r := &result{Deny: a.Deny, Warn: a.Warn, Selectors: a.Selectors}
	for i := range a.Limits {
		l := &a.Limits[i]
		logged := loggedLimit{ID: l.ID, Key: l.Key, Cost: l.Cost.Fixed, OnExceed: l.OnExceed, Applies: l.Applies}
		if l.Scope != limit.Proxy {
			logged.Scope = l.Scope
		}
		if l.Tokens != nil {
			logged.Tokens = map[string]float64{"rate": l.Tokens.Rate, "burst": l.Tokens.Burst}
		}
		if l.InFlight != nil {
			logged.InFlight = map[string]int{"max": l.InFlight.Max}
		}
		r.Limits = append(r.Limits, logged)
	}
	return r
}

// put adds a field to an input.
func (f *field) put(input map[string]any, facts *Facts) {
	object, name := f.parent()
	if object != "" {
		if input[object] == nil {
			input[object] = map[string]any{}
		}
		input = input[object].(map[string]any)
	}
	switch {
	case f.text != nil:
		input[name] = f.text(facts)
	case f.number != nil:
		input[name] = f.number(facts)
	case f.flag != nil:
		input[name] = f.flag(facts)
	case f.list != nil:
		input[name] = f.list(facts)
	default:
		input[name] = f.lists(facts)
	}
}

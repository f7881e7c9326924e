package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	diff "github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/yaml"

	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/wasm"
)

// tried are the files that a filter is tried with.
type tried struct{ module, policy, cases string }

func (o *tried) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.module, "wasm", "filter.wasm", "Module to try.")
	cmd.Flags().StringVar(&o.policy, "policy", "policy.yaml", "File with the WasmFilter whose configuration, capabilities and limits the module gets.")
	cmd.Flags().StringVar(&o.cases, "cases", "cases.yaml", "File of what the module is asked.")
}

var errHandlerCases = errors.New("cases are for modules of PorticoV1: try one of HTTPWasmV1 with the tools it was made with")

// A filterCase is what a filter is asked, and what it shall answer.
type filterCase struct {
	Name string `json:"name"`
	// Phase is Restrict, which is what it is without one, or View.
	Phase   v1alpha1.FilterPhase `json:"phase,omitempty"`
	Request wasm.Described       `json:"request"`
	Object  *json.RawMessage     `json:"object,omitempty"`
	// Previous is what a watcher of phase View has the object from: without an object,
	// it was deleted.
	Previous *json.RawMessage `json:"previous,omitempty"`
	// Known are the objects that can be looked up, by their resource.
	Known map[string][]json.RawMessage `json:"known,omitempty"`
	Want  filterAnswer                 `json:"want"`
}

// A filterAnswer is empty for a request that passes unchanged and an object that
// is kept, or shown, as it is.
type filterAnswer struct {
	Refused  *wasm.Denial     `json:"refused,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
	Dropped  bool             `json:"dropped,omitempty"` // of phase View
	Event    kwatch.EventType `json:"event,omitempty"`   // that a watcher is sent
	Object   *json.RawMessage `json:"object,omitempty"`  // if it is changed
	// Fields are some of the object, by JSON pointers: those that are wanted, of the
	// object as it was left. Null is for what is not there.
	Fields map[string]*json.RawMessage `json:"fields,omitempty"`
	Error  string                      `json:"error,omitempty"`
}

// trial is a module with its cases.
type trial struct {
	engine *wasm.Engine
	module *wasm.Module
	known  *wasm.Known
	cases  []filterCase
}

// begin loads the module.
func (o *tried) begin(ctx context.Context, log io.Writer) (*trial, error) {
	spec, err := o.spec()
	if err != nil {
		return nil, err
	}
	t := &trial{}
	if t.cases, err = readCases(o.cases); err != nil {
		return nil, fmt.Errorf("read --cases: %w", err)
	}
	if t.engine, err = wasm.NewEngine("", printed(log)); err != nil {
		return nil, err
	}
	t.known = spec.Known
	if t.module, err = t.engine.Load(ctx, *spec); err != nil {
		return nil, errors.Join(err, t.engine.Close(ctx))
	}
	return t, nil
}

func (t *trial) end(ctx context.Context) error {
	t.module.Close(ctx)
	return t.engine.Close(ctx)
}

// spec is what the policy says of the module.
func (o *tried) spec() (*wasm.Spec, error) {
	code, err := os.ReadFile(o.module)
	if err != nil {
		return nil, fmt.Errorf("read --wasm: %w", err)
	}
	loader := config.Loader{Scheme: runtime.NewScheme()}
	if err := v1alpha1.AddToScheme(loader.Scheme); err != nil {
		return nil, fmt.Errorf("register policies: %w", err)
	}
	policies, err := loader.LoadFile(o.policy)
	if err != nil {
		return nil, err
	}
	for _, p := range policies {
		if w, ok := p.(*v1alpha1.WasmFilter); ok {
			if w.Spec.ABI == v1alpha1.WasmHTTPWasmV1 {
				return nil, errHandlerCases
			}
			spec := wasm.SpecOf(w, code)
			spec.Known = wasm.NewKnown(w.Spec.ContextResources)
			spec.WallClock = max(spec.WallClock, time.Second) // what is tried is not in a hurry
			return &spec, nil
		}
	}
	return nil, fmt.Errorf("--policy=%s has no WasmFilter", o.policy)
}

// ask puts one case to the module.
func (t *trial) ask(ctx context.Context, c *filterCase) (got filterAnswer) {
	if err := t.known.Set(c.Known); err != nil {
		return filterAnswer{Error: "known: " + err.Error()}
	}
	put := t.restrict
	if c.Phase == v1alpha1.PhaseView {
		put = t.view
	}
	got, err := put(ctx, c)
	if err != nil {
		got.Error = err.Error()
	}
	return got
}

// restrict puts a request to the module, and the object that it carries.
func (t *trial) restrict(ctx context.Context, c *filterCase) (got filterAnswer, err error) {
	facts := c.Request.Facts()
	v, err := t.module.Request(ctx, facts)
	got.Refused, got.Warnings = v.Denial, v.Warnings
	if err != nil || got.Refused != nil || c.Object == nil {
		return got, err
	}
	o, err := t.module.Object(ctx, facts, wasm.Pair{Current: *c.Object})
	got.Warnings = append(got.Warnings, o.Warnings...)
	got.Refused, got.Object = o.Refusal(), shown(o.Patched)
	return got, err
}

func shown(object []byte) *json.RawMessage {
	if object == nil {
		return nil
	}
	return new(json.RawMessage(object))
}

// view shows the module an object of an answer, and to a watcher what it was before.
func (t *trial) view(ctx context.Context, c *filterCase) (got filterAnswer, err error) {
	var before, now wasm.ObjectVerdict
	if c.Previous != nil {
		if before, err = t.module.View(ctx, c.Request.Facts(), *c.Previous); err != nil {
			return got, err
		}
	}
	if c.Object != nil {
		if now, err = t.module.View(ctx, c.Request.Facts(), *c.Object); err != nil {
			return got, err
		}
	}
	was, is := c.Previous != nil && !before.Dropped, c.Object != nil && !now.Dropped
	got.Dropped, got.Object = !is && (now.Dropped || before.Dropped), shown(now.Patched)
	switch {
	case c.Previous == nil:
	case was && is:
		got.Event = kwatch.Modified
	case is:
		got.Event = kwatch.Added
	case was: // it is sent as it was last seen
		got.Event, got.Object = kwatch.Deleted, shown(before.Patched)
	}
	return got, nil
}

// failed says how the answer to a case is not the one that is wanted; "" if it is.
func (c *filterCase) failed(got filterAnswer) string {
	if len(c.Want.Fields) > 0 {
		left := cmp.Or(got.Object, c.Object)
		if got.Event == kwatch.Deleted {
			left = cmp.Or(got.Object, c.Previous)
		}
		got.Fields = map[string]*json.RawMessage{}
		for pointer := range c.Want.Fields {
			got.Fields[pointer] = fieldOf(left, pointer)
		}
		if c.Want.Object == nil {
			got.Object = nil // the fields are what is wanted of it
		}
	}
	return differs(c.Want, got)
}

// fieldOf is what is at a pointer; nil is nothing, or null.
func fieldOf(object *json.RawMessage, pointer string) *json.RawMessage {
	if object == nil {
		return nil
	}
	value, err := document.Get(*object, pointer)
	if err != nil || string(value) == "null" {
		return nil
	}
	return shown(value)
}

// differs says how an answer is not the one that is wanted. Objects are compared
// by what they say, not by how they are written.
func differs(want, got filterAnswer) string {
	if same(want, got) {
		return ""
	}
	return diff.Diff(described(want), described(got))
}

func same(a, b filterAnswer) bool { return reflect.DeepEqual(plain(a), plain(b)) }

func plain(a filterAnswer) (v any) {
	b, err := json.Marshal(a)
	if err != nil || json.Unmarshal(b, &v) != nil {
		return a
	}
	return v
}

// described is an answer as YAML.
func described(a filterAnswer) string {
	text, err := yaml.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text))
}

// printed is a log that shows what modules say.
func printed(w io.Writer) logr.Logger {
	return funcr.New(func(_, line string) { fmt.Fprintln(w, "log:", line) }, funcr.Options{Verbosity: 1})
}

// Package tck holds the cases that every guest language and every host of
// portico.v1 must pass together.
package tck

import (
	"reflect"
	"testing"
)

// Config is the configuration that the guests of the cases have.
const Config = `{"greeting":"hello"}`

// A Case is what a guest is asked. The caller is jane, of the group devs, and
// creates a pod in the namespace shop with the parameter fieldManager=kubectl
// and a credential in the header Authorization.
type Case struct {
	Name string
	// Header is the value of X-Case.
	Header string
	// Object is the one that the guest is asked about, as JSON; without one it is
	// asked about the request.
	Object string
	Want   Answer
}

// An Answer is what a host understood.
type Answer struct {
	Code            int // of a refusal; 0 is none
	Reason, Message string
	RetryAfter      int
	Warnings        []string
	Patched         string // "" if the object was left alone
}

// Cases are those that both on_request and on_object of the guests know.
var Cases = []Case{
	{Name: "continue"},
	{Name: "deny", Header: "deny", Want: Answer{Code: 403, Reason: "Forbidden", Message: "not here"}},
	{Name: "slow", Header: "slow", Want: Answer{Code: 429, Reason: "TooManyRequests", Message: "slower", RetryAfter: 7}},
	{Name: "attribute", Header: "warn", Want: Answer{Warnings: []string{"jane"}}},
	{Name: "parameter", Header: "param", Want: Answer{Warnings: []string{"kubectl"}}},
	{Name: "configuration", Header: "config", Want: Answer{Warnings: []string{"hello"}}},
	{Name: "groups", Header: "group", Want: Answer{Warnings: []string{"true false"}}},
	{Name: "no-credential", Header: "credential"},
	{Name: "keep", Object: `{"metadata":{"name":"web","labels":{"team":"x"}}}`},
	{Name: "drop", Object: `{"metadata":{"labels":{"hide":"yes"}}}`, Want: Answer{Code: 403, Reason: "Forbidden", Message: "hidden"}},
	{Name: "set", Object: `{"metadata":{"name":"web"}}`, Want: Answer{Patched: `{"metadata":{"labels":{"team":"web"},"name":"web"}}`}},
	{Name: "remove", Object: `{"metadata":{"annotations":{"secret":"s"}}}`, Want: Answer{Patched: `{"metadata":{"annotations":{}}}`}},
	{Name: "sealed", Object: `{"metadata":{"name":"web","labels":{"hide":"rename"}}}`},
}

// Known are the objects that guests of the cases about lookup can look up, by
// their resources. Of deployments.apps there are those of the namespace shop
// alone.
var Known = map[string][]string{
	"namespaces":       {`{"metadata":{"name":"shop","labels":{"team":"till"}}}`, `{"metadata":{"name":"bank"}}`},
	"deployments.apps": {`{"metadata":{"name":"web","namespace":"shop"},"spec":{"template":{"kind":"Pod"}}}`},
}

// LookupCases are those that guests with the capability lookup know. With the
// header undeclared or elsewhere they look up what they may not, which fails.
var LookupCases = []Case{
	{Name: "nothing"},
	{Name: "label", Header: "label", Want: Answer{Warnings: []string{"till"}}},
	{Name: "nested", Header: "nested", Want: Answer{Warnings: []string{"Pod"}}},
	{Name: "missing", Header: "missing", Want: Answer{Warnings: []string{"none"}}},
	{Name: "object", Object: `{"metadata":{"name":"web"}}`, Want: Answer{Patched: `{"metadata":{"labels":{"team":"till"},"name":"web"}}`}},
}

// Run asks a guest about every case.
func Run(t *testing.T, ask func(Case) (Answer, error)) {
	t.Helper()
	run(t, Cases, ask)
}

// RunLookup asks a guest that may look things up about every case of that.
func RunLookup(t *testing.T, ask func(Case) (Answer, error)) {
	t.Helper()
	run(t, LookupCases, ask)
}

func run(t *testing.T, cases []Case, ask func(Case) (Answer, error)) {
	t.Helper()
	for _, c := range cases {
		got, err := ask(c)
		if err != nil || !reflect.DeepEqual(got, c.Want) {
			t.Errorf("%s: got %+v, %v; want %+v", c.Name, got, err, c.Want)
		}
	}
}

package main

import (
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
	"github.com/portico-proxy/portico/plugins/tck"
)

func ask(c tck.Case) (got tck.Answer, err error) {
	in := guesttest.Input{
		Object: c.Object, Attrs: map[abi.Attr]string{abi.Namespace: "shop"}, Header: map[string]string{"X-Case": c.Header}, Known: tck.Known,
	}
	asked := onRequest
	if c.Object != "" {
		asked = onObject
	}
	out := guesttest.Run(in, asked)
	got.Warnings = out.Warnings
	if out.Result == abi.Patched {
		got.Patched = out.Object
	}
	return got, nil
}

func TestCasesNeedNoWebAssembly(t *testing.T) { tck.RunLookup(t, ask) }

func TestWhatIsNotDeclaredIsAFault(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a resource that Input.Known does not have was looked up")
		}
	}()
	_, _ = ask(tck.Case{Header: "undeclared"})
}

package main

import (
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
	"github.com/portico-proxy/portico/plugins/tck"
)

// TestCasesNeedNoWebAssembly is what a filter's author can have in a second.
func TestCasesNeedNoWebAssembly(t *testing.T) {
	tck.Run(t, func(c tck.Case) (got tck.Answer, err error) {
		in := guesttest.Input{
			Config: tck.Config, Object: c.Object,
			Attrs:  map[abi.Attr]string{abi.User: "jane", abi.Groups: `["devs"]`},
			Header: map[string]string{"X-Case": c.Header}, Params: map[string]string{"fieldManager": "kubectl"},
		}
		asked := onRequest
		if c.Object != "" {
			asked = onObject
		}
		out := guesttest.Run(in, asked)
		got.Warnings = out.Warnings
		if r := out.Refusal; r != nil {
			got.Code, got.Reason, got.Message, got.RetryAfter = r.Code, r.Reason, r.Message, r.RetryAfter
		}
		if out.Result == abi.Patched {
			got.Patched = out.Object
		}
		return got, nil
	})
}

func TestConfigurationIsRefused(t *testing.T) {
	if out := guesttest.Run(guesttest.Input{Config: `[]`}, configure); out.Result == 0 || out.Failure != "the configuration must be an object" {
		t.Errorf("got %+v", out)
	}
}

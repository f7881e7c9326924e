package main

import (
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
)

func TestObjectsOfATeamAreLabelled(t *testing.T) {
	for name, tt := range map[string]struct {
		namespace, object string
		result            int32
		want              string
	}{
		"new":      {"team-a-web", `{"metadata":{"name":"x"}}`, abi.Patched, `{"metadata":{"labels":{"team":"a"},"name":"x"}}`},
		"labelled": {"team-a-web", `{"metadata":{"labels":{"team":"a"}}}`, abi.Keep, `{"metadata":{"labels":{"team":"a"}}}`},
		"wrong":    {"team-a-web", `{"metadata":{"labels":{"team":"b"}}}`, abi.Drop, `{"metadata":{"labels":{"team":"b"}}}`},
		"nobodys":  {"default", `{}`, abi.Keep, `{}`},
	} {
		in := guesttest.Input{Config: `{"label":"team"}`, Attrs: map[abi.Attr]string{abi.Namespace: tt.namespace}, Object: tt.object}
		if out := guesttest.Run(in, onObject); out.Result != tt.result || out.Object != tt.want {
			t.Errorf("%s: got %+v", name, out)
		}
	}
}

func TestConfigurationNamesTheLabel(t *testing.T) {
	if out := guesttest.Run(guesttest.Input{Config: `{}`}, configure); out.Result == 0 {
		t.Error("accepted without a label")
	}
	if out := guesttest.Run(guesttest.Input{Config: `{"label":"team"}`}, configure); out.Result != 0 {
		t.Error(out.Failure)
	}
}

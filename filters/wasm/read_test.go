package wasm

import (
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
)

const web = `{ "kind" : "Pod", "metadata":{"name":"web","labels":{"app.kubernetes.io/name":"shop","q\"~":"x\ny"},"deletionGracePeriodSeconds":30},
 "spec":{"hostNetwork":true,"nodeName":null,"containers":[{"name":"a"},{"name":"b"}],"volumes":[]}}`

func TestReadFollowsPointers(t *testing.T) {
	tests := map[string]struct {
		kind abi.Kind
		want string
	}{
		"/kind": {abi.String, "Pod"},
		"/metadata/labels/app.kubernetes.io~1name": {abi.String, "shop"},
		"/metadata/labels/q\"~0":                   {abi.String, "x\ny"},
		"/metadata/deletionGracePeriodSeconds":     {abi.Number, "30"},
		"/spec/hostNetwork":                        {abi.Bool, "true"},
		"/spec/nodeName":                           {abi.Null, ""},
		"/spec/containers/1/name":                  {abi.String, "b"},
		"/spec/containers/0":                       {abi.Object, `{"name":"a"}`},
		"/spec/volumes":                            {abi.Array, "[]"},
		"":                                         {abi.Object, web},
		"/spec/containers/2":                       {abi.Absent, ""},
		"/spec/containers/01":                      {abi.Absent, ""},
		"/spec/containers/-":                       {abi.Absent, ""},
		"/kind/x":                                  {abi.Absent, ""},
		"/Kind":                                    {abi.Absent, ""},
		"kind":                                     {abi.Absent, ""},
		"/metadata/labels/app.kubernetes.io/name": {abi.Absent, ""},
	}
	for pointer, tt := range tests {
		if kind, got := read([]byte(web), pointer); kind != tt.kind || string(got) != tt.want {
			t.Errorf("%q: got %d %q", pointer, kind, got)
		}
	}
}

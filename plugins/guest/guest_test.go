package guest_test

import (
	"encoding/json"
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
)

func TestPointersAndQuotes(t *testing.T) {
	if got := guest.Pointer("metadata", "labels", "a/b~c"); got != "/metadata/labels/a~1b~0c" {
		t.Errorf("got %s", got)
	}
	for _, s := range []string{"", "plain", `a "quoted" \ text`, "lines\nand\ttabs\x00", "größer ≤ 雪"} {
		var back string
		if err := json.Unmarshal([]byte(guest.Quote(s)), &back); err != nil || back != s {
			t.Errorf("%q became %s: %v", s, guest.Quote(s), err)
		}
	}
}

func TestObjectsAreReadAndChanged(t *testing.T) {
	in := guesttest.Input{
		Object: `{"kind":"Pod","metadata":{"name":"web","labels":{"a/b":"c"}},"spec":{"hostNetwork":true,"replicas":3,"list":["x"]}}`,
	}
	out := guesttest.Run(in, func() int32 {
		return guest.OnObject(func(_ guest.Request, o guest.Object) guest.Decision {
			if o.Kind() != "Pod" || o.Name() != "web" || o.Label("a/b") != "c" || !o.Bool("/spec/hostNetwork") {
				t.Error("a field is not what it is")
			}
			if v, ok := o.Value("/spec/replicas"); !ok || v != "3" {
				t.Errorf("a number is %q", v)
			}
			if o.Has("/spec/none") || o.SetString("/metadata/name", "other") || o.Remove("/spec/none") {
				t.Error("something is done that cannot be")
			}
			o.SetAnnotation("seen/by", "me")
			o.Set("/spec/list/0", "1")
			o.Remove("/spec/replicas")
			return guest.Keep
		})
	})
	const want = `{"kind":"Pod","metadata":{"annotations":{"seen/by":"me"},"labels":{"a/b":"c"},"name":"web"},"spec":{"hostNetwork":true,"list":[1]}}`
	if out.Result != abi.Patched || out.Object != want {
		t.Errorf("got %d, %s", out.Result, out.Object)
	}
}

func TestGroupsAreToldApart(t *testing.T) {
	in := guesttest.Input{Attrs: map[abi.Attr]string{abi.Groups: `["a\"b","devs","system:authenticated"]`}}
	guesttest.Run(in, func() int32 {
		return guest.OnRequest(func(r guest.Request) guest.Decision {
			for name, want := range map[string]bool{"devs": true, "dev": false, "evs": false, "system:authenticated": true, ",": false, "": false} {
				if r.InGroup(name) != want {
					t.Errorf("%q: %v", name, !want)
				}
			}
			return guest.Continue
		})
	})
}

func TestCountersAndTheEnd(t *testing.T) {
	counters := map[string]int64{"bytes": 5}
	in := guesttest.Input{End: guest.End{Code: 200, Bytes: 7, Micros: 9}, Counters: counters, Now: 42}
	out := guesttest.RunEnd(in, func() {
		guest.OnEnd(func(_ guest.Request, e guest.End) {
			if e != in.End || guest.Count("bytes", e.Bytes, 1000) != 12 || guest.Counted("bytes") != 12 || guest.NowMillis() != 42 {
				t.Errorf("got %+v", e)
			}
			guest.Log("done")
		})
	})
	if len(out.Logged) != 1 {
		t.Errorf("logged %v", out.Logged)
	}
}

package limit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func decoded(t *testing.T, text string) (Limit, error) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return Decode(v)
}

func TestDecodeReadsEveryField(t *testing.T) {
	got, err := decoded(t, `{
		"id": "list-bytes", "key": ["jane", "pods"], "tokens": {"rate": 0.5, "burst": 20}, "inFlight": {"max": 2},
		"cost": {"from": "responseBytes", "per": 100000}, "onExceed": "Delay", "maxDelay": "2s", "mode": "Audit", "applies": "Upstream", "scope": "ClusterShare", "message": "no"
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := Limit{
		ID: "list-bytes", Key: []string{"jane", "pods"}, Tokens: &Tokens{Rate: 0.5, Burst: 20}, InFlight: &InFlight{Max: 2},
		Cost: Cost{From: ResponseBytes, Per: 100000}, OnExceed: Delay, MaxDelay: 2 * time.Second, Audit: true, Applies: Upstream, Scope: ClusterShare, Message: "no",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeHasDefaults(t *testing.T) {
	for text, burst := range map[string]float64{
		`{"id": "l", "key": ["k"], "tokens": {"rate": 0.1}}`:               1,
		`{"id": "l", "key": ["k"], "tokens": {"rate": 2.5}}`:               3,
		`{"id": "l", "key": ["k"], "tokens": {"rate": 2.5, "burst": 0.5}}`: 0.5,
		`{"id": "l", "key": ["k"], "tokens": {"rate": 0, "burst": 0}}`:     0,
	} {
		got, err := decoded(t, text)
		if err != nil || got.Tokens.Burst != burst || got.OnExceed != Reject || got.Applies != Client || got.Scope != Proxy || got.Cost.Fixed != 1 || got.MaxDelay != time.Second || got.Audit {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{
		`7`:                                     "a limit is an object",
		`{"key": ["k"], "tokens": {"rate": 1}}`: "has no id",
		`{"id": "L", "key": ["k"], "tokens": {"rate": 1}}`:                                         "id: must be of lower-case",
		`{"id": "l", "tokens": {"rate": 1}}`:                                                       "has no key",
		`{"id": "l", "key": [1], "tokens": {"rate": 1}}`:                                           "key: must be a list of strings",
		`{"id": "l", "key": ["k"]}`:                                                                "neither tokens nor inFlight",
		`{"id": "l", "key": ["k"], "inFlight": {"max": 1}, "cost": {"from": "duration"}}`:          "no tokens to take it from",
		`{"id": "l", "key": ["k"], "inFlight": {"most": 1}}`:                                       "most is no field of inFlight",
		`{"id": "l", "key": ["k"], "tokens": {"rate": -1}}`:                                        "tokens: must be a number of at least 0",
		`{"id": "l", "key": ["k"], "tokens": {"rates": 1}}`:                                        "rates is no field of tokens",
		`{"id": "l", "key": ["k"], "tokens": {"rate": "1"}}`:                                       "tokens: is no number",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "cost": {"from": "duration", "per": 0}}`: "per is 0",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "cost": {"per": 1}}`:                     "says not from what",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "onExceed": "reject"}`:                   "onExceed: must be one of",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "mode": "Monitor"}`:                      "mode: must be one of",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "maxDelay": "1h"}`:                       "maxDelay: must be a duration",
		`{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "burst": 1}`:                             "burst: is no field of a limit",
	} {
		if _, err := decoded(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	long := `{"id": "l", "key": ["k"], "tokens": {"rate": 1}, "message": "` + strings.Repeat("x", maxMessage+1) + `"}`
	if _, err := decoded(t, long); err == nil {
		t.Error("a message may be of any length")
	}
}

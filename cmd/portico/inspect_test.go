package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache"
)

func TestRowsOfTalkersAreNotNegative(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[{"user":"joe"}]`) }))
	defer proxy.Close()
	for rows, want := range map[string]string{"-1": "--rows=-1", "0": "", "1": "", "9": ""} {
		cmd := newInspectTalkersCommand()
		cmd.SetArgs([]string{"--metrics-bind-address=" + proxy.Listener.Addr().String(), "--rows=" + rows})
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s rows: %v", rows, err)
		}
	}
}

func TestWhatIsSavedIsNeverLessThanNothing(t *testing.T) {
	var out bytes.Buffer
	if err := printStreams(&out, []cache.StreamInfo{{Loaded: true, Saved: -1}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if !strings.HasSuffix(lines[1], " 0") {
		t.Errorf("got %s", out.String())
	}
}

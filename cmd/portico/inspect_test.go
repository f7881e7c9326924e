package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/portico-proxy/portico/core/cache"
)

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

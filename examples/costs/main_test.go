package main

import (
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
)

func TestCostsAreReported(t *testing.T) {
	in := guesttest.Input{
		Config: `{"every":1000}`, Attrs: map[abi.Attr]string{abi.User: "jane"}, Counters: map[string]int64{}, End: guest.End{Code: 200, Bytes: 600},
	}
	if out := guesttest.RunEnd(in, onEnd); len(out.Logged) != 0 {
		t.Errorf("logged %v", out.Logged)
	}
	if out := guesttest.RunEnd(in, onEnd); len(out.Logged) != 1 || out.Logged[0] != "jane was sent 1200 bytes by 2 requests" {
		t.Errorf("logged %v", out.Logged)
	}
}

package main

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/redirect"
)

// dialTo makes a connection by the road to a listener of its own.
func dialTo(t *testing.T, r *road) (net.Conn, redirect.Target) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := r.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, redirect.Target{AddrPort: netip.MustParseAddrPort(l.Addr().String()), Protocol: corev1.ProtocolTCP}
}

func isOpen(c net.Conn) bool {
	_, err := c.Write([]byte("x"))
	return !errors.Is(err, net.ErrClosed)
}

func TestConnectionsFollowTheRoad(t *testing.T) {
	r := newRoad(0)
	before, to := dialTo(t, r)
	other, _ := dialTo(t, r)
	led := redirect.Table{to: {Policy: &redirect.Layer{Backends: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:443")}}}}
	r.follow(redirect.Table{})
	if !isOpen(before) {
		t.Fatal("nothing leads anywhere, and the connection ends")
	}
	r.follow(led)
	if isOpen(before) || !isOpen(other) {
		t.Errorf("a policy leads elsewhere: the connection is open: %t, another one %t", isOpen(before), isOpen(other))
	}
	after, err := r.dial(t.Context(), "tcp", to.AddrPort.String())
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	r.follow(led)
	if !isOpen(after) {
		t.Error("the policy still leads where the connection is, and it ends")
	}
	r.follow(redirect.Table{to: {Policy: &redirect.Layer{Strict: true}}}) // which leads to nobody
	if isOpen(after) || !isOpen(other) {
		t.Errorf("the policy is gone: the connection is open: %t, another one %t", isOpen(after), isOpen(other))
	}
}

// A proxy takes everybody's token, and may take nobody's certificate.
func TestOnlyTokensTakeTheRoad(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  *rest.Config
		road bool
	}{
		"token":                 {&rest.Config{BearerToken: "t"}, true},
		"token-file":            {&rest.Config{BearerTokenFile: "f"}, true},
		"nothing":               {&rest.Config{}, false},
		"certificate":           {&rest.Config{TLSClientConfig: rest.TLSClientConfig{CertData: []byte("c")}}, false},
		"certificate-and-token": {&rest.Config{BearerToken: "t", TLSClientConfig: rest.TLSClientConfig{CertFile: "c"}}, false},
	} {
		if got := newRoad(0).config(c.cfg); (got.Dial != nil) != c.road || c.cfg.Dial != nil {
			t.Errorf("%s: takes the road: %t, want %t", name, got.Dial != nil, c.road)
		}
	}
}

package upstream

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

func newTestDialer(t *testing.T, addresses ...string) (*dialer, *time.Time) {
	t.Helper()
	d := newDialer(&url.URL{Scheme: "https", Host: "api.example.org:6443"}, Options{Addresses: addresses, Log: logr.Discard()})
	now := time.Unix(0, 0)
	d.now = func() time.Time { return now }
	d.addresses = addresses
	return d, &now
}

// reach returns the addresses tried until one that is up.
func reach(d *dialer, up ...string) []string {
	var tried []string
	_, _ = d.first(func(addr string) (net.Conn, error) {
		tried = append(tried, addr)
		if slices.Contains(up, addr) {
			return nil, nil
		}
		return nil, errors.New("down")
	})
	return tried
}

func TestDialerStaysWithTheAddressThatAnswers(t *testing.T) {
	d, now := newTestDialer(t, "a", "b", "c")
	steps := []struct {
		up, tried []string
		wait      time.Duration
	}{
		{up: []string{"a", "b", "c"}, tried: []string{"a"}},
		{up: []string{"b", "c"}, tried: []string{"a", "b"}},
		{up: []string{"a", "b", "c"}, tried: []string{"b"}},
		{up: []string{"a", "c"}, tried: []string{"b", "c"}}, // a and b failed lately
		{up: []string{"b"}, tried: []string{"c", "a", "b"}, wait: retryAddress},
		{up: nil, tried: []string{"b", "a", "c"}, wait: retryAddress},
		{up: []string{"c"}, tried: []string{"b", "a", "c"}},
	}
	for i, s := range steps {
		*now = now.Add(s.wait)
		if diff := cmp.Diff(s.tried, reach(d, s.up...)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

func TestDialerNamesEveryFailure(t *testing.T) {
	d, _ := newTestDialer(t, "127.0.0.1:1", "127.0.0.1:2")
	_, err := d.dialTLS(t.Context(), "tcp", func(string) (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS13}, nil })
	if err == nil {
		t.Fatal("connected to nobody")
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestDialerGoesToAProxyAsItIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, _ := newTestDialer(t, "127.0.0.1:1")
	conn, err := d.dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

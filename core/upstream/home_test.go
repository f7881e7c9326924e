package upstream

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestProxiesSpreadOverAddresses has a thousand of them share a list, and then lose
// one entry of it.
func TestProxiesSpreadOverAddresses(t *testing.T) {
	addresses := []string{"10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443", "10.0.0.4:6443"}
	const proxies = 1000
	first, second := map[string]int{}, map[string]int{}
	for i := range proxies {
		name := fmt.Sprintf("node-%d", i)
		got := ranked(name, addresses)
		if again := ranked(name, []string{addresses[3], addresses[1], addresses[0], addresses[2]}); !slices.Equal(got, again) {
			t.Fatalf("%s prefers %v, and of the same in another order %v", name, got, again)
		}
		if first[got[0]]++; got[0] == addresses[0] {
			second[got[1]]++
		}
	}
	for _, a := range addresses {
		if n := first[a]; n < proxies/5 || n > proxies/3 {
			t.Errorf("%d of %d prefer %s", n, proxies, a)
		}
	}
	for _, a := range addresses[1:] {
		if n, of := second[a], first[addresses[0]]; n < of/5 || n > of/2 {
			t.Errorf("%d of %d go to %s when the first is gone", n, of, a)
		}
	}
}

// TestProxyGoesBackToThePreferredAddress has it go away and come back, first as one
// that has yet to begin.
func TestProxyGoesBackToThePreferredAddress(t *testing.T) {
	var starting atomic.Bool
	serve := func(listener net.Listener, name string) *httptest.Server {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if starting.Load() && r.URL.Path == "/livez" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, name)
		}))
		_ = srv.Listener.Close()
		srv.Listener, srv.EnableHTTP2 = listener, true
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv
	}
	one, other := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	addresses := ranked("node", []string{one.Addr().String(), other.Addr().String()})
	if addresses[0] != one.Addr().String() {
		one, other = other, one
	}
	home := serve(one, "home")
	cfg := configOf(serve(other, "other"))
	u, proxy := before(t, cfg, addresses...)
	u.dialer.addresses, u.dialer.away = addresses, 10*time.Millisecond

	const path = "/api/v1/namespaces/default/pods"
	from := func(want string) func() bool {
		return func() bool {
			_, body := get(t, proxy.URL+path)
			return body == want
		}
	}
	until(t, from("home"))
	starting.Store(true)
	home.CloseClientConnections()
	home.Close()
	until(t, from("other"))
	serve(listen(t, addresses[0]), "home")
	for range 20 {
		if _, body := get(t, proxy.URL+path); body != "other" {
			t.Errorf("answered by %q, which starts", body)
		}
	}
	starting.Store(false)
	until(t, from("home"))
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(5*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

package upstream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadsTravelOnConnectionsOfTheirOwn(t *testing.T) {
	protocol := make(chan int, 1)
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) { protocol <- r.ProtoMajor })
	_, proxy := before(t, configOf(srv))
	for _, tt := range []struct {
		method, target string
		protocol       int
	}{
		{"GET", "/api/v1/namespaces/a/pods", 1},
		{"GET", "/apis/apps/v1/namespaces/a/deployments/b?pretty=true", 1},
		{"HEAD", "/api/v1/namespaces/a/pods", 2},
		{"GET", "/api/v1/namespaces/a/pods?watch=true", 2},
		{"GET", "/api/v1/namespaces/a/pods/b/log?follow=true", 2},
		{"GET", "/api/v1/namespaces/a/services/b/proxy/c", 2},
		{"GET", "/openapi/v3", 2},
		{"GET", "/api/v1/namespaces/a/pods?labelSelector=\u00e4", 2},
		{"DELETE", "/api/v1/namespaces/a/pods/b", 2},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, proxy.URL+tt.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := <-protocol; got != tt.protocol {
			t.Errorf("%s %s arrived over HTTP/%d, want HTTP/%d", tt.method, tt.target, got, tt.protocol)
		}
	}
}

func TestManyReadsShareAConnection(t *testing.T) {
	arrived, end := make(chan int), make(chan struct{})
	srv := origin(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- r.ProtoMajor
		<-end
	})
	_, proxy := before(t, configOf(srv))
	answered := make(chan struct{})
	ask := func() {
		go func() {
			if res, err := http.Get(proxy.URL + "/api/v1/pods"); err != nil {
				t.Error(err)
			} else {
				res.Body.Close()
			}
			answered <- struct{}{}
		}()
	}
	protocols := map[int]int{}
	for range readConnections + 5 {
		ask()
		protocols[<-arrived]++
	}
	if diff := cmp.Diff(map[int]int{1: readConnections, 2: 5}, protocols); diff != "" {
		t.Error(diff)
	}
	close(end)
	for range readConnections + 5 {
		<-answered
	}
	ask()
	if got := <-arrived; got != 1 {
		t.Errorf("no connection was given back: HTTP/%d", got)
	}
	<-answered
}

func TestObjectsAreNotFlushedInParts(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json": true, "application/json;as=Table;v=v1;g=meta.k8s.io": true, "application/vnd.kubernetes.protobuf": true,
		"application/json;stream=watch": false, "text/plain": false, "text/event-stream": false, "": false,
	} {
		if got := isObject(http.Header{"Content-Type": {contentType}}); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
	if isObject(http.Header{"Content-Type": {"application/json"}, "Trailer": {"Sum"}}) {
		t.Error("trailers need a flush")
	}
}

func TestGatheredIsWholeAndKeepsTheError(t *testing.T) {
	broken := errors.New("reset")
	body := io.MultiReader(strings.NewReader("0123456789"), iotest.ErrReader(broken))
	g := &gathered{ReadCloser: io.NopCloser(iotest.OneByteReader(body))}
	var got []string
	p := make([]byte, 4)
	for {
		n, err := g.Read(p)
		if err != nil {
			if n != 0 || !errors.Is(err, broken) {
				t.Errorf("got %d bytes and %v", n, err)
			}
			break
		}
		got = append(got, string(p[:n]))
	}
	if diff := cmp.Diff([]string{"0123", "4567", "89"}, got); diff != "" {
		t.Error(diff)
	}
}

// quiet is a connection whose other end says nothing, and that is not patient.
func quiet(t *testing.T, ask func(far net.Conn) error) *attentive {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	c := newAttentive(near, func() error { return ask(far) })
	c.patience = time.Millisecond
	return c
}

func TestSilentServerThatIsThereIsWaitedFor(t *testing.T) {
	asked := 0
	c := quiet(t, func(far net.Conn) error {
		if asked++; asked == 3 {
			go far.Write([]byte("at last")) //nolint:errcheck // read below
		}
		return nil
	})
	p := make([]byte, 16)
	if n, err := c.Read(p); string(p[:n]) != "at last" || err != nil {
		t.Errorf("got %q, %v", p[:n], err)
	}
}

func TestSilentServerThatIsGoneIsGivenUp(t *testing.T) {
	gone := errors.New("no handshake")
	c := quiet(t, func(net.Conn) error { return gone })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestAddressThatDoesNotAnswerIsTriedLast(t *testing.T) {
	srv := origin(t, nil)
	addr := srv.Listener.Addr().String()
	d, _ := newTestDialer(t, addr, "other")
	secure := func(string) (*tls.Config, error) { return &tls.Config{InsecureSkipVerify: true}, nil }
	if err := d.ask("tcp", addr, secure); err != nil {
		t.Error(err)
	}
	srv.Close()
	if err := d.ask("tcp", addr, secure); err == nil {
		t.Error("a server that is gone answers")
	}
	if diff := cmp.Diff([]int{1, 0}, d.order()); diff != "" {
		t.Error(diff)
	}
}

package wire_test

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/e2e/wire"
)

// protocols are both ways to speak to a server.
var protocols = []struct {
	name string
	do   protocol
}{{"HTTP1", wire.Server.HTTP1}, {"HTTP2", wire.Server.HTTP2}}

// eachWay runs a case over both protocols.
func eachWay(t *testing.T, run func(t *testing.T, do protocol)) {
	t.Helper()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) { run(t, p.do) })
	}
}

// must is what s answers.
func must(t *testing.T, do protocol, s wire.Server, r wire.Request) wire.Response {
	t.Helper()
	res, err := do(s, t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// both compares r to the last byte and returns the proxy's answer.
func both(t *testing.T, do protocol, proxied wire.Server, r wire.Request) wire.Response {
	t.Helper()
	want := must(t, do, direct(), r)
	got := must(t, do, proxied, r)
	if d := wire.Diff(r, want, got); d != "" {
		t.Errorf("%s\n%s", r, d)
	}
	return got
}

func TestAnswersThatMatter(t *testing.T) {
	s := proxied(newProxy(t))
	for _, c := range []struct {
		name  string
		r     wire.Request
		code  int
		shows func(wire.Response) bool
	}{
		{"gzip", admin(wire.Request{Target: configMaps}).With("Accept-Encoding", "gzip"), 200, has("Content-Encoding", "gzip")},
		{"gzip-of-protobuf", admin(wire.Request{Target: configMaps}).With("Accept-Encoding", "gzip").With("Accept", "application/vnd.kubernetes.protobuf"), 200, has("Content-Type", "application/vnd.kubernetes.protobuf")},
		{"no-gzip", admin(wire.Request{Target: configMaps}), 200, has("Content-Encoding", "")},
		{"warning", admin(wire.Request{Target: "/apis/wire.example.com/v1beta1/gadgets"}), 200, holds("Warning", `299 - "wire.example.com/v1beta1 Gadget is deprecated`)},
		{"priority-and-fairness", admin(wire.Request{Target: namespace}), 200, named36("X-Kubernetes-Pf-Flowschema-Uid")},
		{"forbidden", wire.Request{Target: namespace + "/secrets"}.Bearer(cp.Token(reader).Token), 403, says(`cannot list resource`)},
		{"unauthorized", wire.Request{Target: namespace}.Bearer("wrong"), 401, says("Unauthorized")},
		{"anonymous", wire.Request{Target: namespace}, 403, says("system:anonymous")},
		{"table", admin(wire.Request{Target: gadgetsAt}).With("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1"), 200, says(`"columnDefinitions"`)},
		{"cbor", admin(wire.Request{Target: configMaps + "/cm-01"}).With("Accept", "application/vnd.kubernetes.protobuf"), 200, says("k8s\x00")},
		{"not-acceptable", admin(wire.Request{Target: namespace}).With("Accept", "image/png"), 406, says("Not Acceptable")},
		{"head", admin(wire.Request{Method: http.MethodHead, Target: "/version"}), 405, func(r wire.Response) bool { return len(r.Body) == 0 }},
		{"range", admin(wire.Request{Target: namespace}).With("Range", "bytes=0-3"), 200, says(`"kind":"Namespace"`)},
		{"audit-id", admin(wire.Request{Target: namespace}).With("Audit-ID", "mine"), 200, has("Audit-Id", "mine")},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, do protocol) {
				got := both(t, do, s, c.r)
				if got.Code != c.code || !c.shows(got) {
					t.Errorf("%s\n%s", c.r, got)
				}
			})
		})
	}
}

func has(name, value string) func(wire.Response) bool {
	return func(r wire.Response) bool { return r.Header.Get(name) == value }
}

func holds(name, text string) func(wire.Response) bool {
	return func(r wire.Response) bool { return strings.Contains(r.Header.Get(name), text) }
}

func named36(name string) func(wire.Response) bool {
	return func(r wire.Response) bool { return len(r.Header.Get(name)) == 36 }
}

func says(text string) func(wire.Response) bool {
	return func(r wire.Response) bool { return strings.Contains(string(r.Body), text) }
}

// TestTooManyRequestsAreToldWhenToComeBack keeps the only seat of a user taken
// by requests that wait for a resourceVersion that does not come.
func TestTooManyRequestsAreToldWhenToComeBack(t *testing.T) {
	s := proxied(newProxy(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	token := cp.Token(poor).Token
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = direct().HTTP2(ctx, wire.Request{Target: configMaps + "?resourceVersion=99999999"}.Bearer(token))
		}
	})
	r := wire.Request{Target: configMaps + "/cm-01"}.Bearer(token)
	for ctx.Err() == nil {
		want, got := must(t, wire.Server.HTTP1, direct(), r), must(t, wire.Server.HTTP1, s, r)
		if want.Code != http.StatusTooManyRequests || got.Code != http.StatusTooManyRequests {
			continue // the seat was free for a moment
		}
		// The API server tells a longer wait to whoever asks while many are refused,
		// which may begin between the two.
		if seconds, err := strconv.Atoi(got.Header.Get("Retry-After")); err != nil || seconds < 1 {
			t.Errorf("Retry-After is %q", got.Header.Get("Retry-After"))
		}
		want.Header.Set("Retry-After", got.Header.Get("Retry-After"))
		if d := wire.Diff(r, want, got); d != "" {
			t.Errorf("%s\n%s", d, got)
		}
		return
	}
	t.Error("nobody was ever refused")
}

func TestUnchangedIs304(t *testing.T) {
	s := proxied(newProxy(t))
	eachWay(t, func(t *testing.T, do protocol) {
		for _, target := range []string{"/openapi/v3/apis/batch/v1", "/apis"} {
			r := admin(wire.Request{Target: target}).With("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
			tag := both(t, do, s, r).Header.Get("Etag")
			if tag == "" {
				t.Fatalf("%s has no ETag", target)
			}
			if got := both(t, do, s, r.With("If-None-Match", tag)); got.Code != http.StatusNotModified || len(got.Body) > 0 {
				t.Errorf("%s: %v", target, got)
			}
		}
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	s := proxied(newProxy(t))
	eachWay(t, func(t *testing.T, do protocol) {
		body := []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"dry"}}`)
		r := admin(wire.Request{Method: http.MethodPost, Target: configMaps + "?dryRun=All", Body: body}).With("Content-Type", "application/json")
		if got := must(t, do, s, r); got.Code != http.StatusCreated {
			t.Errorf("%v", got)
		}
		if got := both(t, do, s, admin(wire.Request{Target: configMaps + "/dry"})); got.Code != http.StatusNotFound {
			t.Errorf("%v", got)
		}
	})
}

// The API server takes bodies of three mebibytes (k8s.io/apiserver/pkg/server,
// Config.MaxRequestBodyBytes).
func TestBodyLimitIsTheAPIServers(t *testing.T) {
	const limit = 3 << 20
	s := proxied(newProxy(t))
	eachWay(t, func(t *testing.T, do protocol) {
		for size, want := range map[int]int{limit: http.StatusUnprocessableEntity, limit + 1: http.StatusRequestEntityTooLarge, 500 << 10: http.StatusCreated} {
			const head, tail = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"big"},"data":{"x":"`, `"}}`
			body := head + strings.Repeat("x", size-len(head)-len(tail)) + tail
			for _, chunked := range []bool{false, true} {
				r := admin(wire.Request{Method: http.MethodPost, Target: configMaps + "?dryRun=All", Body: []byte(body), Chunked: chunked}).With("Content-Type", "application/json")
				d, p := must(t, do, direct(), r), must(t, do, s, r)
				if d.Code != want || !equal(r, d, p) {
					t.Errorf("%d bytes, chunked %t: want %d\n%s", size, chunked, want, wire.Diff(r, stable(d), stable(p)))
				}
			}
		}
	})
}

func TestHeaderLimitIsTheAPIServers(t *testing.T) {
	s := proxied(newProxy(t))
	eachWay(t, func(t *testing.T, do protocol) {
		for _, size := range []int{1000 << 10, 1200 << 10} {
			both(t, do, s, admin(wire.Request{Target: namespace}).With("X-Big", strings.Repeat("x", size)))
		}
	})
	// What just fits into HTTP/1.1 does not fit into HTTP/2, by which all but reads
	// go on. The limit is known once there is a connection.
	must(t, wire.Server.HTTP1, s, admin(wire.Request{Target: "/version"}))
	got := must(t, wire.Server.HTTP1, s, admin(wire.Request{Target: "/version"}).With("X-Big", strings.Repeat("x", 1<<20+1000)))
	if got.Code != http.StatusRequestHeaderFieldsTooLarge || got.Header.Get("Retry-After") != "" {
		t.Errorf("%v", got)
	}
}

func TestTargetThatIsNoPathIsRefused(t *testing.T) {
	s := proxied(newProxy(t))
	for _, c := range []struct {
		do     protocol
		target string
	}{{wire.Server.HTTP1, "mailto:x"}, {wire.Server.HTTP1, "http:api/v1"}, {wire.Server.HTTP2, "http://elsewhere.example/api/v1"}} {
		got := must(t, c.do, s, admin(wire.Request{Target: c.target}))
		if got.Code != http.StatusBadRequest || !says("must be a path")(got) {
			t.Errorf("%s: %v", c.target, got)
		}
	}
}

func TestHostsThatAreNoneAreNoObstacle(t *testing.T) {
	s := proxied(newProxy(t))
	for _, host := range []string{"sp ace", "a/b", "ü\x00", "-", strings.Repeat("x", 300)} {
		both(t, wire.Server.HTTP2, s, admin(wire.Request{Target: namespace, Host: host}))
	}
}

func TestConnectKeepsItsPath(t *testing.T) {
	s := proxied(newProxy(t))
	for _, target := range []string{namespace, "elsewhere.example:443"} {
		eachWay(t, func(t *testing.T, do protocol) {
			both(t, do, s, admin(wire.Request{Method: http.MethodConnect, Target: target}))
		})
	}
}

// TestPipelinedRequestsAreAnsweredInTurn sends several requests at once.
func TestPipelinedRequestsAreAnsweredInTurn(t *testing.T) {
	s := proxied(newProxy(t))
	var text strings.Builder
	for _, line := range []string{"GET " + namespace, "PUT /nope", "HEAD /version", "GET /version"} {
		text.WriteString(line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + cp.Token("admin").Token + "\r\n")
		if strings.HasPrefix(line, "PUT") {
			text.WriteString("Content-Length: 5\r\n\r\nhello")
			continue
		}
		text.WriteString("\r\n")
	}
	whole := strings.Replace(text.String(), "HEAD /version", "GET /version", 1) + "GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if d, p := statuses(t, direct(), whole), statuses(t, s, whole); !slices.Equal(d, p) || len(d) != 5 {
		t.Errorf("direct %v, proxied %v", d, p)
	}
}

func statuses(t *testing.T, s wire.Server, text string) (all []string) {
	t.Helper()
	responses, err := s.Raw(context.WithoutCancel(t.Context()), text)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range responses {
		all = append(all, strconv.Itoa(r.Code)+" "+r.End)
	}
	return all
}

package wire_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portico-proxy/portico/test/e2e/wire"
	"github.com/portico-proxy/portico/test/proxy"
)

// keepAll lets into memory what is not kept unless a policy names it.
const keepAll = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: all}
spec: {resources: [{resource: configmaps}, {resource: secrets}]}
`

// remembering is a proxy that has every collection in memory, in both formats.
func remembering(tb testing.TB, flags ...string) *proxy.Proxy {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(keepAll), 0o600); err != nil {
		tb.Fatal(err)
	}
	p := newProxy(tb, append(flags, "--watch-cache", "--policy-dir="+dir)...)
	for _, path := range collections {
		for _, format := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
			warm(tb, proxied(p), admin(wire.Request{Target: path + "?resourceVersion=0"}).With("Accept", format))
		}
	}
	return p
}

// warm asks until memory answers, unless it never will.
func warm(tb testing.TB, s wire.Server, r wire.Request) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		res, err := s.HTTP2(tb.Context(), r)
		switch {
		case err != nil:
			tb.Fatal(err)
		case res.Code != http.StatusOK, strings.Contains(r.Target, "/watch/"), res.FromMemory():
			return // custom resources have no protobuf
		case time.Now().After(deadline):
			tb.Fatalf("%s is not answered from memory", r)
		}
	}
}

// answers are those that came from memory.
func answers(p *proxy.Proxy) float64 { return p.Gauge("portico_watch_cache_answers_total") }

// takesAnyState reports a read that a state of memory's own choice answers: one
// that is not older than what was asked for.
func takesAnyState(r wire.Request) bool {
	return strings.Contains(r.Target, "resourceVersion=") && !strings.Contains(r.Target, "Exact")
}

// states are what a list's own metadata says of its state, resourceVersion and
// continue: in JSON, of built-in and of custom resources, and in protobuf; and
// what bookmarks say.
var states = []*regexp.Regexp{
	regexp.MustCompile(`^(\{"kind":"\w+","apiVersion":"[^"]*","metadata":\{"resourceVersion":")\d+("(?:,"continue":")?)[\w-]*`),
	regexp.MustCompile(`(?s)^(\{"apiVersion":.*"metadata":\{"continue":")[\w-]*("(?:,"remainingItemCount":\d+)?,"resourceVersion":")\d+`),
	regexp.MustCompile(`(?s)^(k8s\x00.{0,100}?\n\x00\x12.)\d+(\x1a.)[\w-]*`),
	regexp.MustCompile(`("type":"BOOKMARK",.*?"resourceVersion":")\d+()`),
	regexp.MustCompile(`(?s)(BOOKMARK.{0,200}?2[\x01-\x09])\d+()`),
}

func withoutState(r wire.Response) wire.Response {
	r = stable(r)
	for _, state := range states {
		r.Body = state.ReplaceAll(r.Body, []byte("$1$2"))
	}
	return r
}

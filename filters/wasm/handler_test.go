package wasm

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/semaphore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const handlerInC = "../../plugins/tck/guests/handler/guest.c"

func handlerSpec(code []byte) Spec {
	s := spec(code)
	s.ABI = v1alpha1.WasmHTTPWasmV1
	return s
}

// hostileHandler builds a guest of http_handler whose functions are what source
// says.
func hostileHandler(t *testing.T, source string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest.c")
	text := `#define EXPORT(name) __attribute__((export_name(#name)))
#define HOST(name) __attribute__((import_module("http_handler"), import_name(#name)))
typedef unsigned long long u64;
HOST(enable_features) int enable_features(int);
HOST(set_header_value) void set_header(int, const char*, int, const char*, int);
HOST(remove_header) void remove_header(int, const char*, int);
HOST(get_header_values) u64 get_header(int, const char*, int, void*, unsigned);
HOST(read_body) u64 read_body(int, void*, unsigned);
HOST(write_body) void write_body(int, const void*, unsigned);
HOST(set_method) void set_method(const char*, int);
HOST(set_uri) void set_uri(const char*, int);
HOST(get_uri) int get_uri(void*, unsigned);
HOST(set_status_code) void set_status(int);
#define SET(name, value) set_header(0, name, sizeof(name) - 1, value, sizeof(value) - 1)
` + source
	if !strings.Contains(source, "handle_request") {
		text += "\nEXPORT(handle_request) u64 request(void) { return 1; }"
	}
	if !strings.Contains(source, "handle_response") {
		text += "\nEXPORT(handle_response) void response(int c, int e) {}"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return fromC(t, path)
}

// An exchanged is what upstream got and what the caller got.
type exchanged struct {
	Code         int
	Body         string
	Header       http.Header
	Status       *metav1.Status
	Upstream     http.Header // nil if it got nothing
	UpstreamBody string
}

// asks describes a request of jane's.
type asks struct {
	method, verb, subresource, body string
	headers                         []string
	upstream                        pipeline.HandlerFunc // nil answers what painted does
}

func painted(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Length", "5")
	w.Header().Set("X-Upstream", "yes")
	_, err := io.WriteString(w, "red !")
	return err
}

func (a asks) of(t *testing.T, f *Filter) exchanged {
	t.Helper()
	of := facts(append([]string{"Authorization", "Bearer secret"}, a.headers...)...)
	r := httptest.NewRequest(a.method, "/api/v1/namespaces/shop/pods?x=y%20z", strings.NewReader(a.body))
	r.Header = of.Request.Header
	of.Info.Verb, of.Info.Subresource = a.verb, a.subresource
	ctx := request.WithUser(request.WithRequestInfo(r.Context(), of.Info), of.User)
	w, got := httptest.NewRecorder(), exchanged{}
	err := f.ServeHTTP(w, r.WithContext(ctx), pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		b, err := io.ReadAll(r.Body)
		if int64(len(b)) != r.ContentLength {
			t.Errorf("%d bytes are announced as %d", len(b), r.ContentLength)
		}
		if got.Upstream, got.UpstreamBody = r.Header.Clone(), string(b); err != nil {
			return err
		}
		if a.upstream == nil {
			return painted(w, r)
		}
		return a.upstream(w, r)
	}))
	got.Code, got.Body, got.Header = w.Code, w.Body.String(), w.Header()
	if err != nil {
		got.Status = pipeline.StatusOf(err)
		got.Code = int(got.Status.Code)
	}
	return got
}

func TestHandlerChangesTheHeaderThatUpstreamGets(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), nil)
	got := asks{method: "POST", verb: "create", body: "{}", headers: []string{"X-Case", "stamp", "X-Gone", "x", "X-Kept", "k"}}.of(t, f)
	if diff := cmp.Diff([]string{"one", "two"}, got.Upstream["X-Stamp"]); diff != "" {
		t.Error(diff)
	}
	if got.Upstream["X-Gone"] != nil || got.Upstream.Get("X-Kept") != "k" || got.Upstream.Get("Authorization") != "Bearer secret" {
		t.Errorf("upstream got %v", got.Upstream)
	}
	if got.Header.Get("X-Early") != "yes" || got.UpstreamBody != "{}" {
		t.Errorf("got %+v", got)
	}
}

func TestHandlerChangesTheBodyThatUpstreamGets(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), nil)
	sent := `{"color":"red","other":"` + strings.Repeat("x", 1000) + `red"}`
	got := asks{method: "POST", verb: "create", body: sent, headers: []string{"X-Case", "dye"}}.of(t, f)
	if want := strings.ReplaceAll(sent, "red", "blue"); got.UpstreamBody != want || got.Code != 200 {
		t.Errorf("%d, %s", got.Code, got.UpstreamBody)
	}
	if left := free(t, f.rooms.Known, allRoom); left != allRoom {
		t.Errorf("%d of the room are left", left)
	}
}

func TestHandlerSeesTheRequestWithoutItsCredentials(t *testing.T) {
	s := handlerSpec(fromC(t, handlerInC))
	s.Config = []byte(`{"a":1}`)
	got := asks{method: "GET", verb: "list", headers: []string{"X-Case", "look", "Cookie", "c", "X-Remote-User", "r", "X-Many", "many"}}.of(t, bound(t, load(t, s), nil))
	want := map[string]string{
		"X-Names": "x-case x-many ", "X-Many": "many ", "X-Token": "", "X-Trailers": "", "X-Method": "GET", "X-Config": `{"a":1}`,
		"X-Uri": "/api/v1/namespaces/shop/pods?x=y%20z", "X-Protocol": "HTTP/1.1", "X-Source": "192.0.2.1:1234",
	}
	for name, value := range want {
		if got.Upstream.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.Upstream.Get(name), value)
		}
	}
	if got.Upstream.Get("Cookie") != "c" || got.Upstream.Get("Authorization") != "Bearer secret" {
		t.Errorf("upstream got %v", got.Upstream)
	}
}

func TestHandlerSeesOnePathForAllThatMeanIt(t *testing.T) {
	of := facts()
	of.Request = httptest.NewRequest("GET", "/api/v1/namespaces/shop/pods/%6beep%2Dme?a=%62", nil)
	if got := newRoundTrip(&of).uri; got != "/api/v1/namespaces/shop/pods/keep-me?a=%62" {
		t.Errorf("got %s", got)
	}
}

func TestHandlerRefusesWithAStatus(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), nil)
	for name, tt := range map[string]struct {
		code            int
		reason          metav1.StatusReason
		message         string
		retry           int32
		reachesUpstream bool
	}{
		"refuse": {429, metav1.StatusReasonTooManyRequests, "not here (filter test)", 7, false},
		"status": {404, metav1.StatusReasonNotFound, "no such thing (filter test)", 0, false},
		"answer": {500, metav1.StatusReasonInternalError, "filter test: " + errForged.Error(), 0, false},
		"both":   {500, metav1.StatusReasonInternalError, "filter test: " + errHandled.Error(), 0, false},
		"hide":   {404, metav1.StatusReasonNotFound, "nothing to see (filter test)", 0, true},
		"forge":  {500, metav1.StatusReasonInternalError, "filter test: " + errForged.Error(), 0, true},
	} {
		got := asks{method: "GET", verb: "get", headers: []string{"X-Case", name}}.of(t, f)
		if s := got.Status; s == nil || int(s.Code) != tt.code || s.Reason != tt.reason || s.Message != tt.message || got.Body != "" {
			t.Errorf("%s: %+v, %q", name, s, got.Body)
			continue
		}
		if retry := got.Status.Details; retry != nil && retry.RetryAfterSeconds != tt.retry || retry == nil && tt.retry > 0 {
			t.Errorf("%s: %+v", name, retry)
		}
		if (got.Upstream != nil) != tt.reachesUpstream || got.Header.Get("X-Upstream") != "" {
			t.Errorf("%s: upstream got %v, the caller %v", name, got.Upstream, got.Header)
		}
	}
}

func TestHandlerRewritesAnAnswer(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), nil)
	got := asks{method: "GET", verb: "get", headers: []string{"X-Case", "paint", "Accept-Encoding", "gzip"}}.of(t, f)
	if got.Code != 200 || got.Body != "blue !" || got.Header.Get("Content-Length") != "6" || got.Header.Get("X-Painted") != "yes" {
		t.Errorf("got %+v", got)
	}
	if got.Header.Get("X-Upstream") != "" || got.Upstream.Get("Accept-Encoding") != "" {
		t.Errorf("got %v, upstream %v", got.Header, got.Upstream)
	}
	if got := (asks{method: "GET", verb: "get"}).of(t, f); got.Body != "red !" || got.Header.Get("X-Upstream") != "yes" {
		t.Errorf("what the guest leaves alone: %+v", got)
	}
	if left := free(t, f.rooms.Known, allRoom); left != allRoom {
		t.Errorf("%d of the room are left", left)
	}
}

func TestAnswerOfTheLastHandlerIsSeenByTheFirst(t *testing.T) {
	m := load(t, handlerSpec(fromC(t, handlerInC)))
	f := bound(t, m, nil)
	m.hold() // the filter lets go of it once for each binding
	f.bindings = append(f.bindings, &binding{name: "again", spec: &v1alpha1.FilterBindingSpec{}, module: m})
	got := asks{method: "GET", verb: "get", headers: []string{"X-Case", "paint"}}.of(t, f)
	if got.Code != 200 || got.Body != "blue !" || got.Header.Get("Content-Length") != "6" {
		t.Errorf("got %+v", got)
	}
}

func TestStreamsAreLeftAlone(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), nil)
	for name, a := range map[string]asks{
		"watch":   {method: "GET", verb: "watch", headers: []string{"X-Case", "paint"}},
		"log":     {method: "GET", verb: "get", subresource: "log", headers: []string{"X-Case", "paint"}},
		"exec":    {method: "POST", verb: "create", subresource: "exec", body: "red", headers: []string{"X-Case", "paint"}},
		"upgrade": {method: "GET", verb: "get", headers: []string{"X-Case", "paint", "Connection", "Upgrade", "Upgrade", "websocket"}},
	} {
		a.upstream = func(w http.ResponseWriter, r *http.Request) error {
			if _, is := w.(*httptest.ResponseRecorder); !is {
				t.Errorf("%s: the answer is written to a %T", name, w)
			}
			return painted(w, r)
		}
		if got := a.of(t, f); got.Body != "red !" || got.UpstreamBody != a.body {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := (asks{method: "GET", verb: "watch", headers: []string{"X-Case", "refuse"}}).of(t, f); got.Code != 429 {
		t.Errorf("a watch can be refused: %d", got.Code)
	}
	if got := (asks{method: "POST", verb: "create", subresource: "exec", body: "red", headers: []string{"X-Case", "dye"}}).of(t, f); got.Code != 500 {
		t.Errorf("the body of a stream cannot be changed: %d", got.Code)
	}
}

func TestHandlerThatIsAuditedChangesNothing(t *testing.T) {
	f := bound(t, load(t, handlerSpec(fromC(t, handlerInC))), func(s *v1alpha1.FilterBindingSpec) { s.Mode = v1alpha1.ModeAudit })
	for _, c := range []string{"stamp", "dye", "refuse", "answer", "both", "paint", "hide", "forge"} {
		got := asks{method: "POST", verb: "create", body: "red", headers: []string{"X-Case", c, "Accept-Encoding", "gzip"}}.of(t, f)
		if got.Code != 200 || got.Body != "red !" || got.UpstreamBody != "red" || got.Upstream.Get("Accept-Encoding") != "gzip" {
			t.Errorf("%s: %+v", c, got)
		}
		if got.Upstream.Get("X-Stamp") != "" || got.Header.Get("X-Painted") != "" || got.Header.Get("X-Early") != "" {
			t.Errorf("%s: %+v", c, got)
		}
	}
}

func TestAnswersThatCannotBeHeld(t *testing.T) {
	m := load(t, handlerSpec(fromC(t, handlerInC)))
	large := strings.Repeat("red ", body.Max/4+1)
	a := asks{method: "GET", verb: "list", headers: []string{"X-Case", "paint"}, upstream: func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-Upstream", "yes")
		_, err := io.Copy(w, strings.NewReader(large))
		return err
	}}
	if got := a.of(t, bound(t, m, nil)); got.Code != 500 || got.Body != "" || !strings.Contains(got.Status.Message, "larger than 3 MiB") {
		t.Errorf("%d, %d bytes", got.Code, len(got.Body))
	}
	ignored := bound(t, m, func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })
	if got := a.of(t, ignored); got.Code != 200 || got.Body != large || got.Header.Get("X-Upstream") != "yes" {
		t.Errorf("ignored: %d, %d bytes", got.Code, len(got.Body))
	}
	a.upstream = nil
	full := bound(t, m, nil)
	full.rooms = &body.Rooms{Known: semaphore.NewWeighted(1), Anonymous: semaphore.NewWeighted(1), Wait: time.Millisecond, Reading: time.Minute}
	if got := a.of(t, full); got.Code != http.StatusServiceUnavailable || got.Body != "" {
		t.Errorf("without room: %d, %q", got.Code, got.Body)
	}
}

func TestHandlerCannotForgiveAnError(t *testing.T) {
	m := load(t, handlerSpec(hostileHandler(t, `EXPORT(_initialize) void i(void) { enable_features(2); }
EXPORT(handle_response) void f(int c, int e) { set_status(200); write_body(1, "all is well", 11); }`)))
	f := bound(t, m, nil)
	forbids := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(403); return nil }
	if got := (asks{method: "GET", verb: "get", upstream: forbids}).of(t, f); got.Code != 500 || got.Body != "" {
		t.Errorf("got %+v", got)
	}
}

func TestBodyThatIsTooLargeForAHandler(t *testing.T) {
	m := load(t, handlerSpec(fromC(t, handlerInC)))
	a := asks{method: "POST", verb: "create", body: strings.Repeat("x", body.Max+1), headers: []string{"X-Case", "dye"}}
	if got := a.of(t, bound(t, m, nil)); got.Code != http.StatusRequestEntityTooLarge || got.Upstream != nil {
		t.Errorf("got %d", got.Code)
	}
	ignored := bound(t, m, func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })
	if got := a.of(t, ignored); got.Code != 200 || got.UpstreamBody != a.body {
		t.Errorf("ignored: %d", got.Code)
	}
}

func TestHandlerIsToldThatThereIsNoAnswer(t *testing.T) {
	m := load(t, handlerSpec(hostileHandler(t, `
static int told;
EXPORT(handle_request) u64 f(void) { if (told) { set_status(400 + told); return 0; } return 9ULL << 32 | 1; }
EXPORT(handle_response) void g(int context, int is_error) { if (context == 9 && is_error) told = 1; }`)))
	m.spec.Instances = 1
	<-m.idle // one is left, which remembers
	f := bound(t, m, nil)
	fails := func(http.ResponseWriter, *http.Request) error { return context.DeadlineExceeded }
	if got := (asks{method: "GET", verb: "get", upstream: fails}).of(t, f); got.Code != 500 {
		t.Errorf("got %d", got.Code)
	}
	if got := (asks{method: "GET", verb: "get"}).of(t, f); got.Code != 401 {
		t.Errorf("it was not told: %d", got.Code)
	}
}

func TestHostileHandlersFailAlone(t *testing.T) {
	tests := map[string]string{
		"loops":            `EXPORT(handle_request) u64 f(void) { volatile int x = 0; for (;;) x++; }`,
		"loops-late":       `EXPORT(handle_response) void f(int c, int e) { volatile int x = 0; if (!e) for (;;) x++; } EXPORT(_initialize) void i(void) { enable_features(2); }`,
		"traps":            `EXPORT(handle_request) u64 f(void) { __builtin_trap(); }`,
		"nonsense":         `EXPORT(handle_request) u64 f(void) { return 77; }`,
		"name-out":         `EXPORT(handle_request) u64 f(void) { set_header(0, (void*)0x7fffffff, 9, "x", 1); return 1; }`,
		"value-out":        `EXPORT(handle_request) u64 f(void) { set_header(0, "X-A", 3, (void*)0x7fffffff, 9); return 1; }`,
		"buffer-out":       `EXPORT(handle_request) u64 f(void) { get_uri((void*)0xfffffff0, 0xffffffff); return 1; }`,
		"values-out":       `EXPORT(handle_request) u64 f(void) { get_header(0, "X-Here", 6, (void*)0xfffffff0, 0xffffffff); return 1; }`,
		"body-out":         `EXPORT(handle_request) u64 f(void) { read_body(0, (void*)0xfffffff0, 0xffffffff); return 1; }`,
		"body-nowhere":     `EXPORT(handle_request) u64 f(void) { read_body(0, 0, 0); return 1; }`,
		"no-such-body":     `EXPORT(handle_request) u64 f(void) { write_body(9, "x", 1); return 1; }`,
		"huge-body":        `static char b[1 << 20]; EXPORT(handle_request) u64 f(void) { for (int i = 0; i < 9; i++) write_body(0, b, sizeof b); return 1; }`,
		"huge-header":      `static char b[1 << 20]; EXPORT(handle_request) u64 f(void) { for (volatile int i = 0; i < sizeof b; i++) b[i] = 'a'; set_header(0, "X-A", 3, b, sizeof b); return 1; }`,
		"many-headers":     `EXPORT(handle_request) u64 f(void) { for (int i = 0; i < 99999; i++) SET("X-A", "abc"); return 1; }`,
		"bad-name":         `EXPORT(handle_request) u64 f(void) { SET("X A", "x"); return 1; }`,
		"splits":           `EXPORT(handle_request) u64 f(void) { SET("X-A", "x\r\nX-Remote-User: root"); return 1; }`,
		"another-method":   `EXPORT(handle_request) u64 f(void) { set_method("DELETE", 6); return 1; }`,
		"another-uri":      `EXPORT(handle_request) u64 f(void) { set_uri("/api/v1/secrets", 15); return 1; }`,
		"authorization":    `EXPORT(handle_request) u64 f(void) { SET("authorization", "Bearer mine"); return 1; }`,
		"no-authorization": `EXPORT(handle_request) u64 f(void) { remove_header(0, "Authorization", 13); return 1; }`,
		"cookie":           `EXPORT(handle_request) u64 f(void) { SET("Cookie", "x"); return 1; }`,
		"impersonates":     `EXPORT(handle_request) u64 f(void) { SET("IMPERSONATE-user", "root"); return 1; }`,
		"no-impersonation": `EXPORT(handle_request) u64 f(void) { remove_header(0, "Impersonate-User", 16); return 1; }`,
		"extra":            `EXPORT(handle_request) u64 f(void) { SET("Impersonate-Extra-Scopes", "x"); return 1; }`,
		"front-proxy":      `EXPORT(handle_request) u64 f(void) { SET("x-remote-group", "system:masters"); return 1; }`,
		"another-agent":    `EXPORT(handle_request) u64 f(void) { SET("User-Agent", "x"); return 1; }`,
		"another-length":   `EXPORT(handle_request) u64 f(void) { SET("Content-Length", "0"); return 1; }`,
		"strips":           `EXPORT(handle_request) u64 f(void) { SET("Connection", "Authorization"); return 1; }`,
		"sets-a-trailer":   `EXPORT(handle_request) u64 f(void) { set_header(2, "X-A", 3, "x", 1); return 1; }`,
		"bad-code":         `EXPORT(handle_request) u64 f(void) { set_status(-4); return 0; }`,
		"changes-the-past": `EXPORT(handle_response) void f(int c, int e) { if (!e) SET("X-A", "x"); } EXPORT(_initialize) void i(void) { enable_features(2); }`,
		"sets-a-cookie":    `EXPORT(handle_response) void f(int c, int e) { if (!e) set_header(1, "Set-Cookie", 10, "x", 1); } EXPORT(_initialize) void i(void) { enable_features(2); }`,
		"huge-answer":      `static char b[1 << 20]; EXPORT(handle_response) void f(int c, int e) { if (!e) for (int i = 0; i < 9; i++) write_body(1, b, sizeof b); } EXPORT(_initialize) void i(void) { enable_features(2); }`,
		"redirects":        `EXPORT(handle_response) void f(int c, int e) { if (!e) set_status(302); } EXPORT(_initialize) void i(void) { enable_features(2); }`,
	}
	for name, source := range tests {
		t.Run(name, func(t *testing.T) {
			s := handlerSpec(hostileHandler(t, source))
			if strings.HasPrefix(name, "loops") {
				s.WallClock = 50 * time.Millisecond
			}
			m := load(t, s)
			a := asks{method: "POST", verb: "create", body: "{}", headers: []string{"X-Here", "x", "Impersonate-User", "joe"}}
			f := bound(t, m, nil)
			for range 3 { // more often than there are instances
				if got := a.of(t, f); got.Code != 500 || got.Body != "" || !strings.HasPrefix(got.Status.Message, "filter test: ") {
					t.Fatalf("got %+v", got)
				}
			}
			ignored := bound(t, m, func(s *v1alpha1.FilterBindingSpec) { s.FailurePolicy = v1alpha1.FailurePolicyIgnore })
			if got := a.of(t, ignored); got.Code != 200 || got.Body != "red !" || got.UpstreamBody != "{}" || got.Upstream.Get("Impersonate-User") != "joe" {
				t.Errorf("ignored: %+v", got)
			}
			if left := free(t, f.rooms.Known, allRoom); left != allRoom {
				t.Errorf("%d of the room are left", left)
			}
		})
	}
}

func TestHandlersThatAreNoneAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		code []byte
		want string
	}{
		"portico":   {fromC(t, guestInC), "there is nothing but http_handler"},
		"unknown":   {hostileHandler(t, `HOST(open) int o(void); EXPORT(handle_request) u64 f(void) { return o(); }`), "open"},
		"signature": {hostileHandler(t, `EXPORT(handle_response) int f(void) { return 0; }`), "export handle_response is a function () -> (i32), and http_handler calls it as (i32, i32) -> ()"},
		"too-early": {hostileHandler(t, `EXPORT(_start) void f(void) { SET("X-A", "x"); }`), "closed"},
		"exits": {hostileHandler(t, `__attribute__((import_module("wasi_snapshot_preview1"), import_name("proc_exit"))) void leave(int);
EXPORT(_start) void f(void) { leave(0); }`), "build it as a library"},
		"half": {hostile(t, `EXPORT(handle_request) long long f(void) { return 1; }`), "no http_handler guest"},
	} {
		m, err := engine(t).Load(t.Context(), handlerSpec(tt.code))
		if err == nil {
			m.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error about %q", name, err, tt.want)
		}
	}
	if m, err := engine(t).Load(t.Context(), spec(fromC(t, handlerInC))); err == nil {
		m.Close(t.Context())
		t.Error("a guest of http_handler is one of portico.v1")
	}
}

func TestModuleStaysOpenUntilItHasSeenTheAnswer(t *testing.T) {
	e := engine(t)
	m, err := e.Load(t.Context(), handlerSpec(fromC(t, handlerInC)))
	if err != nil {
		t.Fatal(err)
	}
	f := newFilter([]*binding{{name: "test", spec: &v1alpha1.FilterBindingSpec{}, module: m}}, nil, body.NewRooms(), unobserved, logr.Discard())
	got := asks{method: "GET", verb: "get", headers: []string{"X-Case", "paint"}, upstream: func(w http.ResponseWriter, r *http.Request) error {
		f.retire(context.WithoutCancel(t.Context()), nil)
		if e.open.Load() != 1 {
			t.Error("it was closed before")
		}
		return painted(w, r)
	}}.of(t, f)
	if got.Code != 200 || got.Body != "blue !" {
		t.Errorf("got %+v", got)
	}
	if e.open.Load() != 0 {
		t.Error("it is still open")
	}
}

func TestHandlerCannotSayWhatIsSeen(t *testing.T) {
	m := load(t, handlerSpec(fromC(t, handlerInC)))
	view := &binding{name: "test", spec: &v1alpha1.FilterBindingSpec{}, module: m}
	view.becomeView()
	f := newFilter(nil, []*binding{view}, body.NewRooms(), unobserved, logr.Discard())
	t.Cleanup(func() { f.retire(context.WithoutCancel(t.Context()), nil) })
	if got := (asks{method: "GET", verb: "list"}).of(t, f); got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Status.Message, errNoObjects.Error()) {
		t.Errorf("got %+v", got)
	}
}

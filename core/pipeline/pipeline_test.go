package pipeline

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/klog/v2"
)

// step is a filter that says when it was met and then does what do says.
type step struct {
	name string
	seen *[]string
	do   func(http.ResponseWriter, *http.Request, Handler) error
}

func (s step) Name() string { return s.name }

func (s step) ServeHTTP(w http.ResponseWriter, r *http.Request, next Handler) error {
	*s.seen = append(*s.seen, s.name)
	if s.do == nil {
		return next.ServeHTTP(w, r)
	}
	return s.do(w, r, next)
}

func ok(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "ok")
	return err
}

func TestFiltersRunInTheOrderOfTheList(t *testing.T) {
	var seen []string
	h := Chain(noop.Tracer{}, HandlerFunc(ok), step{name: "a", seen: &seen}, step{name: "b", seen: &seen})
	if err := h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestSpansOfFiltersLieBesideEachOther(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	var seen []string
	refuse := func(http.ResponseWriter, *http.Request, Handler) error { return apierrors.NewBadRequest("secret") }
	h := Chain(tracer, HandlerFunc(ok), step{name: "a", seen: &seen}, step{name: "b", seen: &seen, do: refuse})

	r := httptest.NewRequest("GET", "/", nil)
	ctx, root := tracer.Start(r.Context(), "root")
	if err := h.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx)); err == nil {
		t.Fatal("the refusal was lost")
	}
	var got []string
	for _, s := range recorder.Ended() {
		if s.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("span %q is not a child of the request's", s.Name())
		}
		got = append(got, s.Name()+" "+s.Status().Description)
	}
	if diff := cmp.Diff([]string{"filter a ", "filter b BadRequest"}, got); diff != "" {
		t.Error(diff)
	}
}

// serve answers one request over real HTTP, as Serve must cut real connections.
func serve(t *testing.T, log logr.Logger, h Handler) (*http.Response, []byte, error) {
	t.Helper()
	srv := httptest.NewServer(&Server{Handler: h, Log: log})
	t.Cleanup(srv.Close)
	res, err := srv.Client().Get(srv.URL + "/api/v1/namespaces/shop/pods/web?watch=0")
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

func TestErrorsBecomeStatus(t *testing.T) {
	tests := map[string]struct {
		err    error
		code   int
		reason metav1.StatusReason
		retry  string
		logged int
	}{
		"status":           {apierrors.NewBadRequest("no"), 400, metav1.StatusReasonBadRequest, "", 0},
		"wrapped-status":   {errors.Join(apierrors.NewUnauthorized("no")), 401, metav1.StatusReasonUnauthorized, "", 0},
		"status-and-retry": {apierrors.NewTooManyRequests("slow down", 7), 429, metav1.StatusReasonTooManyRequests, "7", 0},
		"anything-else":    {errors.New("password is 1234"), 500, metav1.StatusReasonInternalError, "", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			logged := 0
			log := funcr.New(func(string, string) { logged++ }, funcr.Options{})
			res, body, err := serve(t, log, HandlerFunc(func(http.ResponseWriter, *http.Request) error { return tt.err }))
			if err != nil {
				t.Fatal(err)
			}
			var status metav1.Status
			if err := json.Unmarshal(body, &status); err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			if res.StatusCode != tt.code || status.Reason != tt.reason || status.Kind != "Status" {
				t.Errorf("got %d %+v", res.StatusCode, status)
			}
			if got := res.Header.Get("Retry-After"); got != tt.retry {
				t.Errorf("Retry-After is %q, want %q", got, tt.retry)
			}
			if logged != tt.logged {
				t.Errorf("logged %d times, want %d", logged, tt.logged)
			}
			if tt.code == 500 && (status.Message == "" || bytes.Contains(body, []byte("1234"))) {
				t.Errorf("inner error shown to the client: %s", body)
			}
		})
	}
}

func TestErrorsAreNegotiated(t *testing.T) {
	s := &Server{Handler: HandlerFunc(func(http.ResponseWriter, *http.Request) error { return apierrors.NewBadRequest("no") }), Log: logr.Discard()}
	r := httptest.NewRequest("GET", "/api/v1/pods", nil)
	r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "application/vnd.kubernetes.protobuf" {
		t.Errorf("Content-Type is %q", got)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	logged := 0
	log := funcr.New(func(string, string) { logged++ }, funcr.Options{})
	res, _, err := serve(t, log, HandlerFunc(func(http.ResponseWriter, *http.Request) error { panic("boom") }))
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusInternalServerError || logged != 1 {
		t.Errorf("status %d, logged %d times", res.StatusCode, logged)
	}
}

func TestErrorAfterTheFirstByteCutsTheConnection(t *testing.T) {
	half := HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "half")
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		return apierrors.NewBadRequest("no")
	})
	if _, body, err := serve(t, logr.Discard(), half); err == nil {
		t.Errorf("half an answer looks whole: %q", body)
	}
}

func TestHijackedConnectionsAreLeftAlone(t *testing.T) {
	upgrade := HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := (&http.Response{StatusCode: 299, ProtoMajor: 1, ProtoMinor: 1}).Write(rw); err != nil {
			return err
		}
		return errors.Join(rw.Flush(), apierrors.NewBadRequest("too late"))
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }() // the abort, which http.Server would log
		(&Server{Handler: upgrade, Log: logr.Discard()}).ServeHTTP(w, r)
	}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	rest, _ := io.ReadAll(bufio.NewReader(res.Body))
	if res.StatusCode != 299 || len(rest) != 0 {
		t.Errorf("got %d and %q", res.StatusCode, rest)
	}
}

func TestRequestInfoIsInTheContext(t *testing.T) {
	var got *request.RequestInfo
	_, _, err := serve(t, logr.Discard(), HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		got, _ = request.RequestInfoFrom(r.Context())
		return ok(w, r)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got == nil || got.Verb != "get" || got.Resource != "pods" || got.Namespace != "shop" || got.Name != "web" {
		t.Errorf("got %+v", got)
	}
}

func TestSwitchKeepsTheChainARequestBeganWith(t *testing.T) {
	s := &Switch{}
	if err := s.Ready(nil); err == nil {
		t.Error("ready without a chain")
	}
	if err := s.ServeHTTP(nil, nil); StatusOf(err).Code != http.StatusServiceUnavailable {
		t.Errorf("an empty switch says %v", err)
	}
	s.Store(HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		s.Store(HandlerFunc(func(http.ResponseWriter, *http.Request) error { return errors.New("new") }))
		return ok(w, r)
	}))
	w := httptest.NewRecorder()
	if err := s.ServeHTTP(w, httptest.NewRequest("GET", "/", nil)); err != nil || w.Body.String() != "ok" {
		t.Errorf("the first request got %q, %v", w.Body, err)
	}
	if err := s.ServeHTTP(w, nil); err == nil || err.Error() != "new" {
		t.Errorf("the second request got %v", err)
	}
}

func TestGrantIsOffUnlessGiven(t *testing.T) {
	if Granted(t.Context()) {
		t.Error("granted without asking")
	}
	if !Granted(WithGrant(t.Context())) {
		t.Error("a grant was lost")
	}
}

func BenchmarkChainWithoutTracing(b *testing.B) {
	var seen []string
	pass := func(w http.ResponseWriter, r *http.Request, next Handler) error { return next.ServeHTTP(w, r) }
	f := step{name: "a", seen: &seen, do: pass}
	h := Chain(noop.Tracer{}, HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }), f, f, f)
	r := httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		seen = seen[:0]
		_ = h.ServeHTTP(nil, r)
	}
}

func TestUnreadableQueriesStayOutOfTheLog(t *testing.T) {
	tests := map[string]request.RequestInfo{
		"/api/v1/pods?limit=secret":                                 {Verb: "list"},
		"/api/v1/pods?limit=secret&watch=1&labelSelector=a%3Db":     {Verb: "watch", LabelSelector: "a=b"},
		"/api/v1/pods?watch=false&fieldSelector=%3D%3Dsecret":       {Verb: "list", FieldSelector: "==secret"},
		"/api/v1/pods?fieldSelector=metadata.name%3Dweb&watch=true": {Verb: "watch", Name: "web", FieldSelector: "metadata.name=web"},
	}
	for target, want := range tests {
		var logged bytes.Buffer
		klog.LogToStderr(false)
		klog.SetOutput(&logged)
		info, err := resolve(httptest.NewRequest("GET", target, nil))
		klog.Flush()
		klog.LogToStderr(true)
		if err != nil || info.Verb != want.Verb || info.Name != want.Name || info.FieldSelector != want.FieldSelector || info.LabelSelector != want.LabelSelector {
			t.Errorf("%s: got %+v, %v", target, info, err)
		}
		if logged.Len() > 0 {
			t.Errorf("%s: logged %q", target, logged.String())
		}
	}
}

func TestLongSelectorsAreNotReadAndChangeNothing(t *testing.T) {
	long := "x in (" + strings.Repeat("n,", longSelector) + "n)"
	for _, target := range []string{
		"/api/v1/pods?watch=true&", "/api/v1/pods?watch=false&", "/api/v1/pods?watch&", "/api/v1/watch/pods?", "/api/v1/pods/web?", "/version?",
		"/api/v1/pods?limit=1&", "/api/v1/pods?fieldSelector=&", "/api/v1/pods?fieldSelector=metadata.name%3Dweb&", "/api/v1/watch/namespaces/shop/pods/web?",
	} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			r := httptest.NewRequest(method, target+url.Values{"labelSelector": {long}}.Encode(), nil)
			got, err := resolve(r)
			if err != nil {
				t.Fatal(err)
			}
			want, err := requestInfo.NewRequestInfo(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: %s", method, target, diff)
			}
		}
	}
}

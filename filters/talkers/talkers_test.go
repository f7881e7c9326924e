package talkers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/talkers"
)

var infos = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// send has next answer a request of a caller; nil is one whom nobody had to know.
func send(t testing.TB, a *talkers.Account, method, path string, caller user.Info, next pipeline.HandlerFunc) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header.Set("User-Agent", "looper/v1")
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		t.Fatal(err)
	}
	ctx := request.WithRequestInfo(r.Context(), info)
	if caller != nil {
		ctx = request.WithUser(ctx, caller)
	}
	_ = (&Filter{Account: a}).ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx), next)
}

// answer is what next answers with.
func answer(code int, body string) pipeline.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, err := w.Write([]byte(body))
		return err
	}
}

func refusal(err error) pipeline.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) error { return err }
}

var jane = &user.DefaultInfo{Name: "jane"}

func TestRequestsAreCountedForWhatTheyAre(t *testing.T) {
	const list, pod = `{"items":[{},{}]}`, `{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"7"}}`
	tooMany := refusal(apierrors.NewTooManyRequests("no", 1))
	for name, tt := range map[string]struct {
		method, path string
		next         pipeline.HandlerFunc
		want         talkers.Counts
	}{
		"quorum-list":    {"GET", "/api/v1/pods", answer(200, list), talkers.Counts{Lists: 1, QuorumLists: 1, InitialReads: 1, ListBytes: 17}},
		"any-list":       {"GET", "/api/v1/pods?resourceVersion=0", answer(200, list), talkers.Counts{Lists: 1, InitialReads: 1, ListBytes: 17}},
		"list-of-one":    {"GET", "/api/v1/namespaces/shop/pods", answer(200, list), talkers.Counts{Lists: 1, InitialReads: 1, ListBytes: 17}},
		"next-page":      {"GET", "/api/v1/pods?continue=x", answer(200, list), talkers.Counts{Lists: 1, ListBytes: 17}},
		"get":            {"GET", "/api/v1/namespaces/shop/pods/web", answer(200, pod), talkers.Counts{}},
		"short-watch":    {"GET", "/api/v1/pods?watch=1", answer(200, ""), talkers.Counts{WatchStarts: 1, ShortWatches: 1}},
		"watch-list":     {"GET", "/api/v1/pods?watch=1&sendInitialEvents=true", answer(200, ""), talkers.Counts{WatchStarts: 1, ShortWatches: 1, InitialReads: 1}},
		"expired":        {"GET", "/api/v1/pods?watch=1&resourceVersion=1", answer(410, ""), talkers.Counts{WatchStarts: 1, Expired: 1}},
		"too-new":        {"GET", "/api/v1/pods?resourceVersion=999", answer(504, ""), talkers.Counts{Lists: 1, Expired: 1}},
		"create":         {"POST", "/api/v1/namespaces/shop/pods", answer(201, pod), talkers.Counts{Writes: 1}},
		"conflict":       {"PUT", "/api/v1/namespaces/shop/pods/web", answer(409, ""), talkers.Counts{Writes: 1, Conflicts: 1}},
		"throttled":      {"PUT", "/api/v1/namespaces/shop/pods/web", tooMany, talkers.Counts{Writes: 1, Throttled: 1}},
		"error":          {"DELETE", "/api/v1/namespaces/shop/pods/web", answer(404, ""), talkers.Counts{Writes: 1, Errors: 1}},
		"inner-error":    {"DELETE", "/api/v1/namespaces/shop/pods/web", refusal(fmt.Errorf("boom")), talkers.Counts{Writes: 1, Errors: 1}},
		"nothing-at-all": {"PATCH", "/api/v1/namespaces/shop/pods/web", func(http.ResponseWriter, *http.Request) error { return nil }, talkers.Counts{Writes: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			a := talkers.New()
			send(t, a, tt.method, tt.path, jane, tt.next)
			tt.want.Requests = 1
			if diff := cmp.Diff(tt.want, a.Talkers()[0].Total); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWritesThatChangeNothingAreNoticed(t *testing.T) {
	a := talkers.New()
	for _, version := range []int{7, 7, 7, 8, 8} {
		body := fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%d"}}`, version)
		send(t, a, "PUT", "/api/v1/namespaces/shop/pods/web", jane, answer(200, body))
	}
	send(t, a, "PATCH", "/api/v1/namespaces/shop/pods/web?dryRun=All", jane, answer(200, `{"metadata":{"resourceVersion":"8"}}`))
	send(t, a, "PUT", "/api/v1/namespaces/shop/pods/web", jane, refusal(apierrors.NewTooManyRequests("no", 1)))
	send(t, a, "PUT", "/api/v1/namespaces/shop/pods/web", jane, answer(200, `{"metadata":{"resourceVersion":"8"}}`))
	long := `{"metadata":{"resourceVersion":"8"},"data":"` + strings.Repeat("x", maxObject) + `"}`
	send(t, a, "PUT", "/api/v1/namespaces/shop/pods/web", jane, answer(200, long))
	if got := a.Talkers()[0].Total.NoopWrites; got != 4 {
		t.Errorf("%d writes changed nothing, want 4", got)
	}
}

// TestLongListsAreMeasuredByTheirBeginning lists more than is looked at.
func TestLongListsAreMeasuredByTheirBeginning(t *testing.T) {
	const objects = 10000
	item := `{"data":"` + strings.Repeat("x", 1<<10) + `"},`
	a := talkers.New()
	send(t, a, "GET", "/api/v1/pods", jane, answer(200, `{"items":[`+strings.Repeat(item, objects-1)+item[:len(item)-1]+`]}`))
	if size, _ := a.Size("", "pods", ""); size.Objects < objects*99/100 || size.Objects > objects*101/100 {
		t.Errorf("%d objects were found, there are %d", size.Objects, objects)
	}
}

func TestWholeListsAreMeasured(t *testing.T) {
	const list = `{"items":[{},{},{}]}`
	for path, want := range map[string]bool{
		"/api/v1/pods": true, "/api/v1/pods?limit=500": false, "/api/v1/pods?labelSelector=a": false, "/api/v1/pods?continue=x": false,
	} {
		a := talkers.New()
		send(t, a, "GET", path, jane, answer(200, list))
		if size, ok := a.Size("", "pods", ""); ok != want || ok && (size.Objects != 3 || size.Bytes != int64(len(list))) {
			t.Errorf("%s: got %+v, %t", path, size, ok)
		}
	}
	a := talkers.New()
	func() {
		defer func() { _ = recover() }()
		send(t, a, "GET", "/api/v1/pods", jane, func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = w.Write([]byte(`{"items":[{},`))
			panic(http.ErrAbortHandler)
		})
	}()
	if _, ok := a.Size("", "pods", ""); ok || a.Talkers()[0].Total.Lists != 1 {
		t.Error("half a list was taken for a whole one, or was not counted")
	}
}

func TestUnknownCallersAreToldApartByTheirAgents(t *testing.T) {
	a := talkers.New()
	send(t, a, "GET", "/api/v1/pods", nil, answer(200, ""))
	send(t, a, "GET", "/api/v1/pods", jane, answer(200, ""))
	send(t, a, "GET", "/healthz", jane, answer(200, ""))
	var got []string
	for _, talker := range a.Talkers() {
		got = append(got, talker.User+" "+talker.Agent)
	}
	if diff := cmp.Diff([]string{" looper/v1", "jane looper/v1"}, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkFilter is what every request pays.
func BenchmarkFilter(b *testing.B) {
	f := &Filter{Account: talkers.New()}
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/namespaces/shop/pods/web", nil)
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		b.Fatal(err)
	}
	r = r.WithContext(request.WithUser(request.WithRequestInfo(r.Context(), info), jane))
	w := httptest.NewRecorder()
	next := pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusOK); return nil })
	b.ReportAllocs()
	for b.Loop() {
		_ = f.ServeHTTP(w, r, next)
	}
}

package lens

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/sync/semaphore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/view"
)

func TestWhatWatchesHaveShownIsBounded(t *testing.T) {
	one := func(key string, n int) shown { return shown{key: key, seen: make([]byte, n-len(key)-shownOverhead)} }
	room := semaphore.NewWeighted(3 << 10)
	m, other := newMemory(room), newMemory(room)
	m.most = 2 << 10
	keeps := func(m *memory, s shown, want bool) {
		t.Helper()
		if err := m.keep(s); (err == nil) != want || err != nil && !apierrors.IsTooManyRequests(err) {
			t.Errorf("%s: %v", s.key, err)
		}
	}
	keeps(m, one("a", 1<<10), true)
	keeps(m, one("b", 1<<10), true)
	keeps(m, one("c", 300), false) // more than one may keep
	keeps(m, one("b", 512), true)
	keeps(m, one("c", 512), true)
	keeps(other, one("a", 2<<10), false) // more than all may keep
	keeps(other, one("a", 1<<10), true)
	m.drop("a")
	m.drop("a")
	keeps(other, one("b", 1<<10), true)
	if s, was := m.of("b"); !was || s.size() != 512 {
		t.Errorf("kept %d, %v", s.size(), was)
	}
	m.giveUp()
	m.giveUp()
	keeps(m, one("a", 300), false)
	other.giveUp()
	if !room.TryAcquire(3 << 10) {
		t.Error("not all was given back")
	}
}

// all is a view of everything.
type all struct{}

func (all) See(_ context.Context, o view.Object) ([]byte, error) { return o.JSON, nil }
func (all) Key() string                                          { return "all" }
func (all) Changed() <-chan struct{}                             { return nil }

func TestWatchesEndWhereThereIsNoRoomForThem(t *testing.T) {
	const (
		object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"7"},"data":{"k":"0123456789"}}`
		list   = `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[` + object + `]}`
		events = `{"type":"ADDED","object":` + object + "}\n"
	)
	for query, want := range map[string]string{"?watch=1&resourceVersion=7": "", "?watch=1": `"code":429`} {
		info := &request.RequestInfo{IsResourceRequest: true, Verb: "watch", APIVersion: "v1", Resource: "configmaps"}
		ctx := view.With(request.WithRequestInfo(t.Context(), info), all{})
		r, err := On(httptest.NewRequest(http.MethodGet, "/api/v1/configmaps"+query, http.NoBody).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		l := From(r.Context())
		l.shown.most = shownOverhead
		res, err := l.RoundTrip(r, func(r *http.Request) (*http.Response, error) {
			answer := events
			if !r.URL.Query().Has("watch") {
				answer = list
			}
			header := http.Header{"Content-Type": {"application/json"}}
			return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
		})
		if want == "" {
			if full, ok := errors.AsType[*apierrors.StatusError](err); !ok || !apierrors.IsTooManyRequests(full) {
				t.Errorf("%s: got %v", query, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Apply(res); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(got), want) || strings.Contains(string(got), "ADDED") {
			t.Errorf("%s: got %s, %v", query, got, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

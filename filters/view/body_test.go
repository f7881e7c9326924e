package view

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/semaphore"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// looking serves a filter, as jane, that looks at the pods that are written in
// rooms.
func looking(t *testing.T, rooms *body.Rooms, next pipeline.HandlerFunc) *httptest.Server {
	t.Helper()
	spec := v1alpha1.VirtualViewSpec{Subjects: jane, Objects: []v1alpha1.ViewRule{{Resources: pods, Names: []string{"web"}}}}
	f, _ := NewLibrary(Options{Log: logr.Discard(), Rooms: rooms}).Compile(snapshot(spec, spec))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, err := resources.NewRequestInfo(r)
		if err == nil {
			ctx := request.WithUser(request.WithRequestInfo(r.Context(), info), &user.DefaultInfo{Name: "jane"})
			err = f.ServeHTTP(w, r.WithContext(ctx), next)
		}
		if err != nil {
			w.WriteHeader(int(pipeline.StatusOf(err).Code))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, s *httptest.Server, path string, content io.Reader) int {
	t.Helper()
	res, err := s.Client().Post(s.URL+path, mediaJSON, content)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

const (
	podsPath    = "/api/v1/namespaces/hers/pods"
	reviewsPath = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	plainPod    = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"}}`
)

func TestRoomForWhatIsWrittenIsBounded(t *testing.T) {
	rooms := &body.Rooms{Known: semaphore.NewWeighted(1 << 10), Anonymous: semaphore.NewWeighted(1 << 10), Wait: time.Millisecond, Reading: time.Minute}
	taken := false
	s := looking(t, rooms, func(http.ResponseWriter, *http.Request) error {
		taken = !rooms.Known.TryAcquire(1 << 10)
		return nil
	})
	if code := post(t, s, podsPath, strings.NewReader(plainPod)); code != http.StatusOK || !taken {
		t.Errorf("where there is room: %d, taken: %v", code, taken)
	}
	if code := post(t, s, podsPath, strings.NewReader(plainPod+strings.Repeat(" ", 1<<10))); code != http.StatusServiceUnavailable {
		t.Errorf("larger than all room: %d", code)
	}
	if !rooms.Known.TryAcquire(1 << 10) {
		t.Fatal("not all room was given back")
	}
	if code := post(t, s, podsPath, strings.NewReader(plainPod)); code != http.StatusServiceUnavailable {
		t.Errorf("where others have it all: %d", code)
	}
	if code := post(t, s, reviewsPath, strings.NewReader(`{"spec":{}}`)); code != http.StatusOK {
		t.Errorf("a review: %d", code)
	}
	if code := post(t, s, reviewsPath, strings.NewReader(`{"spec":{}}`+strings.Repeat(" ", maxReview))); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a long review: %d", code)
	}
}

func TestWhatNeverComesIsNotWaitedFor(t *testing.T) {
	rooms := body.NewRooms()
	rooms.Reading = 10 * time.Millisecond
	s := looking(t, rooms, unreached(t))
	for _, path := range []string{podsPath, reviewsPath} {
		never, stalls := io.Pipe()
		defer stalls.Close()
		if code := post(t, s, path, never); code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, code)
		}
	}
}

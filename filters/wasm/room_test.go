package wasm

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

// allRoom is what all objects together may take.
const allRoom = 64 << 20

// free is how much room is left of all that there is.
func free(t *testing.T, in *semaphore.Weighted, all int64) int64 {
	t.Helper()
	for n := all; n > 0; n-- {
		if in.TryAcquire(n) {
			in.Release(n)
			return n
		}
	}
	return 0
}

func TestRoomForObjectsIsBounded(t *testing.T) {
	m := load(t, spec(fromC(t, guestInC)))
	anonymous := &user.DefaultInfo{Name: user.Anonymous}
	f := bound(t, m, nil)
	f.rooms = &body.Rooms{Known: semaphore.NewWeighted(1 << 10), Anonymous: semaphore.NewWeighted(1 << 10), Wait: time.Millisecond, Reading: time.Minute}
	asks := func(who user.Info, object string) int32 {
		of := facts("X-Case", "none")
		of.User = who
		return outcomeOf(t, f, of, strings.NewReader(object)).Code
	}
	jane := facts().User
	if got := asks(jane, plainPod); got != 0 {
		t.Errorf("where there is room: %d", got)
	}
	if got := asks(jane, plainPod+strings.Repeat(" ", 1<<10)); got != http.StatusServiceUnavailable {
		t.Errorf("larger than all room: %d", got)
	}
	if !f.rooms.Known.TryAcquire(1 << 10) {
		t.Fatal("not all room was given back")
	}
	if got := asks(jane, plainPod); got != http.StatusServiceUnavailable {
		t.Errorf("where others have it all: %d", got)
	}
	if got := asks(anonymous, plainPod); got != 0 {
		t.Errorf("of the anonymous: %d", got)
	}
	f.bindings[0].spec.Mode = v1alpha1.ModeAudit
	if got := asks(jane, plainPod); got != 0 {
		t.Errorf("audited, where others have it all: %d", got)
	}
	f.rooms.Known.Release(1 << 10)
	if got := free(t, f.rooms.Anonymous, 1<<10); got != 1<<10 {
		t.Errorf("only %d were given back by the anonymous", got)
	}
}

// judging serves a filter, as jane.
func judging(t *testing.T, f *Filter, next pipeline.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		of := facts()
		ctx := request.WithUser(request.WithRequestInfo(r.Context(), of.Info), of.User)
		if err := f.ServeHTTP(w, r.WithContext(ctx), next); err != nil {
			w.WriteHeader(int(pipeline.StatusOf(err).Code))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestObjectOnItsWayTakesItsSize(t *testing.T) {
	f := bound(t, load(t, spec(fromC(t, guestInC))), nil)
	left := int64(0)
	s := judging(t, f, pipeline.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		left = free(t, f.rooms.Known, allRoom)
		left += r.ContentLength
		_, err := io.Copy(io.Discard, r.Body)
		return err
	}))
	res, err := s.Client().Post(s.URL, "application/json", strings.NewReader(plainPod))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || left != allRoom {
		t.Errorf("%s; %d of %d", res.Status, left, allRoom)
	}
}

func TestBodyThatNeverComesGivesItsRoomBack(t *testing.T) {
	f := bound(t, load(t, spec(fromC(t, guestInC))), nil)
	f.rooms.Reading = 10 * time.Millisecond
	s := judging(t, f, pipeline.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		t.Error("it went on")
		return nil
	}))
	never, stalls := io.Pipe()
	defer stalls.Close()
	res, err := s.Client().Post(s.URL, "application/json", never)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := free(t, f.rooms.Known, allRoom); res.StatusCode != http.StatusBadRequest || got != allRoom {
		t.Errorf("%s; %d are left", res.Status, got)
	}
}

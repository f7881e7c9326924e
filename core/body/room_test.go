package body

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/apiserver/pkg/authentication/user"
)

func sized(t *testing.T, n int) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(strings.Repeat("x", n)))
}

func TestOneCallerDoesNotTakeAllRoom(t *testing.T) {
	s := NewRooms()
	s.Wait = time.Millisecond
	jane, joe := &user.DefaultInfo{Name: "jane"}, &user.DefaultInfo{Name: "joe"}
	var first, second, other, small Room
	if err := s.Enter(&first, sized(t, Max), jane); err != nil {
		t.Fatal(err)
	}
	if err := s.Enter(&second, sized(t, Max), jane); err == nil {
		t.Error("one caller has two of the largest objects judged at a time")
	}
	if err := s.Enter(&other, sized(t, Max), joe); err != nil {
		t.Errorf("another caller: %v", err)
	}
	first.Keep(1)
	if err := s.Enter(&second, sized(t, 1000), jane); err != nil {
		t.Errorf("when room was given back: %v", err)
	}
	if err := s.Enter(&small, sized(t, 0), joe); err == nil {
		t.Error("a corner has more room than there is")
	}
	for _, r := range []*Room{&first, &second, &other, &small} {
		r.Keep(0)
		r.Keep(0)
	}
	if len(s.each) != 0 || !s.Known.TryAcquire(maxRoom) {
		t.Errorf("not all was given back: %d callers are known", len(s.each))
	}
}

func TestRoomThatIsRefusedIsNotTaken(t *testing.T) {
	s := &Rooms{Known: semaphore.NewWeighted(1), Wait: time.Millisecond}
	var r Room
	if err := s.Enter(&r, sized(t, 100), &user.DefaultInfo{Name: "jane"}); err == nil || len(s.each) != 0 {
		t.Errorf("got %v, %d callers are known", err, len(s.each))
	}
}

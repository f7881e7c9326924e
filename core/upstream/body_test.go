package upstream

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func requestWith(body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	makeReplayable(r)
	return r
}

func TestShortBodyIsSentAgainFromItsBeginning(t *testing.T) {
	r := requestWith(strings.NewReader("lease"))
	first := make([]byte, 2)
	if _, err := io.ReadFull(r.Body, first); err != nil {
		t.Fatal(err)
	}
	again, err := r.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(iotest.OneByteReader(again))
	if err != nil || string(got) != "lease" {
		t.Errorf("second attempt read %q, %v", got, err)
	}
	if _, err := r.Body.Read(first); !errors.Is(err, errOtherAttempt) {
		t.Errorf("first attempt still reads: %v", err)
	}
}

func TestErrorOfTheBodyIsSeenByEveryAttempt(t *testing.T) {
	broken := errors.New("client went away")
	r := requestWith(io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(broken)))
	if _, err := io.ReadAll(r.Body); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	again, err := r.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(again); string(got) != "ab" || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLongBodyIsSentOnceAndNotKept(t *testing.T) {
	long := strings.Repeat("x", replayLimit+1)
	r := requestWith(strings.NewReader(long))
	got, err := io.ReadAll(r.Body)
	if err != nil || len(got) != len(long) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if _, err := r.GetBody(); !errors.Is(err, errBodyTooLong) {
		t.Errorf("got %v", err)
	}
	if kept := r.Body.(*replayView).body.kept; kept != nil {
		t.Errorf("%d bytes kept", len(kept))
	}
}

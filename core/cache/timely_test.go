package cache

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// reader is a client that takes its time over every part.
type reader struct {
	http.ResponseWriter
	takes    time.Duration
	deadline time.Time
	late     bool
	taken    int
}

func (r *reader) Write(p []byte) (int, error) {
	<-time.After(r.takes)
	if !r.deadline.IsZero() && time.Now().After(r.deadline) {
		r.late = true
		return 0, http.ErrHandlerTimeout
	}
	r.taken += len(p)
	return len(p), nil
}

func (r *reader) SetWriteDeadline(t time.Time) error {
	r.deadline = t
	return nil
}

// TestReadersThatTakeNothingAreCutOff has clients take a large answer in parts, and a
// small one, which has no time.
func TestReadersThatTakeNothingAreCutOff(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		size  int
		cut   bool
	}{
		"quick":   {time.Millisecond, 10 * writePart, false},
		"slow":    {writePatience - 2*writeRenewal, 10 * writePart, false},
		"stalled": {2 * writePatience, 10 * writePart, true},
		"small":   {2 * writePatience, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &reader{ResponseWriter: httptest.NewRecorder(), takes: tt.takes}
				a := &answer{w: w, r: httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)}
				defer func() {
					if cut := recover() != nil; cut != tt.cut || w.late != tt.cut || !cut && (w.taken != tt.size || !w.deadline.IsZero()) {
						t.Errorf("cut off: %t, after %d bytes; until %v", cut, w.taken, w.deadline)
					}
				}()
				_ = a.write(tt.size, func(w io.Writer) error { _, err := w.Write(make([]byte, tt.size)); return err })
			})
		})
	}
}

package cache

import (
	"io"
	"net/http"
	"time"
)

const (
	// timelyThreshold is from how many bytes on an answer has a time: what is shorter
	// waits in buffers, and keeps nothing.
	timelyThreshold = 64 << 10
	// writePatience is for how long a client may take nothing of an answer that keeps
	// memory, and writePart of how many bytes it has to take more in that time.
	writePatience = time.Minute
	writePart     = 64 << 10
	// writeRenewal is how often that begins anew at most.
	writeRenewal = time.Second
)

// timely is an answer to a client that goes on reading. One that does not would keep
// what it is sent in memory for as long as its line stands.
type timely struct {
	w       io.Writer
	rc      *http.ResponseController
	renewal time.Time // the next one
	over    bool      // whatever still comes has all the time there is
}

func newTimely(w http.ResponseWriter) *timely {
	return &timely{w: w, rc: http.NewResponseController(w)}
}

// Write fails where the client takes nothing for long.
func (t *timely) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		t.renew()
		var more int
		more, err = t.w.Write(p[n:min(n+writePart, len(p))])
		n += more
	}
	return n, err
}

func (t *timely) renew() {
	if now := time.Now(); !t.over && !now.Before(t.renewal) {
		t.renewal = now.Add(writeRenewal)
		_ = t.rc.SetWriteDeadline(now.Add(writePatience))
	}
}

// end has what still comes take until a time.
func (t *timely) end(until time.Time) {
	t.over = true
	if !t.renewal.IsZero() {
		_ = t.rc.SetWriteDeadline(until)
	}
}

// done gives the connection back as it was.
func (t *timely) done() {
	if t != nil {
		_ = t.rc.SetWriteDeadline(time.Time{})
	}
}

package throttle

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portico-proxy/portico/core/pipeline"
)

// switched is a connection that may be taken over, and notes when it is cut.
type switched struct {
	stuck
	conn net.Conn
}

func (s switched) Hijack() (net.Conn, *bufio.ReadWriter, error) { return s.conn, nil, nil }

const console = "/apis/subresources.kubevirt.io/v1/namespaces/shop/virtualmachineinstances/web/console"

// TestUpgradesAreCutOnlyIfRefused has a request for another protocol, by a subresource
// that only an aggregated API server knows.
func TestUpgradesAreCutOnlyIfRefused(t *testing.T) {
	for name, of := range map[string]struct {
		switches bool
		cut      bool
	}{"switched": {true, false}, "unanswered": {false, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := share(Shares{})
				w, r := from(t, "10.0.0.9", "", console)
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
				if got := kindOf(r); got != streams {
					t.Errorf("counts as %s", got)
				}
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				c := switched{stuck{ResponseWriter: w, read: make(chan time.Time, 1), wrote: make(chan time.Time, 1)}, near}
				err := f.ServeHTTP(c, r, pipeline.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					if of.switches {
						if conn, _, err := http.NewResponseController(w).Hijack(); err != nil || conn != near {
							t.Errorf("got %v, %v", conn, err)
						}
					}
					<-time.After(2 * answerTime)
					return nil
				}))
				if got := len(c.read)+len(c.wrote) > 0; err != nil || got != of.cut {
					t.Errorf("cut: %v, want %v (%v)", got, of.cut, err)
				}
			})
		})
	}
}

// TestUpgradesCountAsStreamsWhereTheyAreMeant has callers add headers that the API
// server overlooks.
func TestUpgradesCountAsStreamsWhereTheyAreMeant(t *testing.T) {
	for path, want := range map[string]kind{
		"/api/v1/pods":                       lists,
		"/api/v1/namespaces/shop/pods/web":   ordinary,
		"/api/v1/pods?watch=true":            streams,
		"/api/v1/namespaces/shop/pods/a/log": streams,
		console:                              streams,
	} {
		_, r := from(t, "10.0.0.9", "", path)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		if got := kindOf(r); got != want {
			t.Errorf("%s counts as %s, want %s", path, got, want)
		}
	}
}

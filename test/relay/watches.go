package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"
)

// Watches is a line to an API server that knows what passes: it ends TLS, and keeps
// back what watches tell of progress. All else goes on as it is, but for certificates of
// clients, which end here.
type Watches struct {
	Address string

	mu        sync.Mutex    // guards following
	starved   chan struct{} // closed once bookmarks may go on; nil while they may
	bookmarks time.Duration // by which they are late
	events    time.Duration // by which all else in watches is
}

// NewWatches relays to target (host:port), for which roots vouch, until the test ends.
// It shows its own clients pair.
func NewWatches(tb testing.TB, target string, pair tls.Certificate, roots *x509.CertPool) *Watches {
	tb.Helper()
	w := &Watches{}
	onward := &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	proxy := &httputil.ReverseProxy{
		Transport: onward, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0), ModifyResponse: w.received,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", target, r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, _ error) {
			_ = r.Context().Value(connKey{}).(net.Conn).Close()
			panic(http.ErrAbortHandler)
		},
	}
	server := httptest.NewUnstartedServer(proxy)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, reachable(hello.Context(), target)
	}}
	server.StartTLS()
	w.Address = server.Listener.Addr().String()
	tb.Cleanup(func() {
		w.Feed()
		server.CloseClientConnections()
		server.Close()
		onward.CloseIdleConnections()
	})
	return w
}

type connKey struct{}

// reachable has nobody find an open door in front of an API server that is gone.
func reachable(ctx context.Context, target string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	return c.Close()
}

// Starve loses bookmarks, until Feed. Those that end initial events wait for that, and
// what comes behind them.
func (w *Watches) Starve() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starved == nil {
		w.starved = make(chan struct{})
	}
}

// Feed lets bookmarks go on.
func (w *Watches) Feed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starved != nil {
		close(w.starved)
		w.starved = nil
	}
}

// Delay has bookmarks and other events of watches take longer from now on. A bookmark
// that events overtake is lost. Events that bookmarks overtake are what no API server
// does: then progress is told that is none.
func (w *Watches) Delay(bookmarks, events time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bookmarks, w.events = bookmarks, events
}

// received has answers to watches go through w.
func (w *Watches) received(res *http.Response) error {
	next := framesOf(res)
	if next == nil {
		return nil
	}
	r, to := io.Pipe()
	from := res.Body
	ctx, cancel := context.WithCancel(res.Request.Context())
	var running sync.WaitGroup
	running.Go(func() { w.pass(ctx, next, to) })
	res.Body = &watchBody{PipeReader: r, close: func() {
		cancel()
		_ = r.Close()
		_ = from.Close()
		running.Wait()
	}}
	return nil
}

type watchBody struct {
	*io.PipeReader
	close func()
}

func (b *watchBody) Close() error {
	b.close()
	return nil
}

// framesOf returns what reads one event after another, nil if there are none.
func framesOf(res *http.Response) func() ([]byte, error) {
	q := res.Request.URL.Query()
	if res.StatusCode != http.StatusOK || q.Get("watch") == "" || q.Get("watch") == "false" || q.Get("watch") == "0" {
		return nil
	}
	body := bufio.NewReaderSize(res.Body, 64<<10)
	switch kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind {
	case "application/json":
		return func() ([]byte, error) { return body.ReadBytes('\n') }
	case "application/vnd.kubernetes.protobuf":
		return func() ([]byte, error) {
			head := make([]byte, 4)
			if _, err := io.ReadFull(body, head); err != nil {
				return nil, err
			}
			frame := append(head, make([]byte, binary.BigEndian.Uint32(head))...)
			_, err := io.ReadFull(body, frame[4:])
			return frame, err
		}
	}
	return nil
}

// event is one of a watch.
type event struct {
	bytes  []byte
	mark   bool // a bookmark
	due    time.Time
	behind int // how many other events came before
}

func isBookmark(frame []byte) (mark, ends bool) {
	mark = bytes.HasPrefix(frame, []byte(`{"type":"BOOKMARK"`)) || len(frame) > 4 && strings.HasPrefix(string(frame[4:]), "\n\x08BOOKMARK")
	return mark, mark && bytes.Contains(frame, []byte("k8s.io/initial-events-end"))
}

// read sends events to into, and returns why there are no more.
func (w *Watches) read(ctx context.Context, next func() ([]byte, error), into chan<- event) error {
	behind := 0
	for {
		frame, err := next()
		if err != nil {
			return err
		}
		mark, ends := isBookmark(frame)
		w.mu.Lock()
		starved, late, eventsLate := w.starved, w.bookmarks, w.events
		w.mu.Unlock()
		e := event{bytes: frame, mark: mark && !ends, behind: behind, due: time.Now().Add(eventsLate)}
		switch {
		case ends:
			e.due = time.Now().Add(late)
			if starved != nil {
				select {
				case <-starved:
				case <-ctx.Done():
				}
			}
		case mark && starved != nil:
			continue
		case mark:
			e.due = time.Now().Add(late)
		}
		if !e.mark {
			behind++
		}
		select {
		case into <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pass writes what comes when it is due.
func (w *Watches) pass(ctx context.Context, next func() ([]byte, error), to *io.PipeWriter) {
	read, ended := make(chan event), make(chan error, 1)
	go func() {
		ended <- w.read(ctx, next, read)
		close(read)
	}()
	q := queue{to: to}
	for open := true; open || q.waits(); {
		select {
		case e, ok := <-read:
			if open = ok; ok {
				q.add(e)
			} else {
				read = nil
			}
		case <-q.due():
			q.write()
		case <-ctx.Done():
			_ = to.CloseWithError(ctx.Err())
			return
		}
	}
	_ = to.CloseWithError(<-ended)
}

// queue is what is not due yet: bookmarks may be due before what they came behind, and
// after what came behind them.
type queue struct {
	to            *io.PipeWriter
	events, marks []event
	sent          int // of events
}

func (q *queue) add(e event) {
	if e.mark {
		q.marks = append(q.marks, e)
		return
	}
	q.events = append(q.events, e)
}

func (q *queue) waits() bool { return len(q.events)+len(q.marks) > 0 }

// first is the list with what is due next, nil if nothing is.
func (q *queue) first() *[]event {
	switch {
	case !q.waits():
		return nil
	case len(q.events) == 0, len(q.marks) > 0 && q.marks[0].due.Before(q.events[0].due):
		return &q.marks
	}
	return &q.events
}

func (q *queue) due() <-chan time.Time {
	if f := q.first(); f != nil {
		return time.After(time.Until((*f)[0].due))
	}
	return nil
}

func (q *queue) write() {
	f := q.first()
	e := (*f)[0]
	*f = (*f)[1:]
	if !e.mark {
		q.sent++
	}
	for len(q.marks) > 0 && q.marks[0].behind < q.sent { // what they say has been said
		q.marks = q.marks[1:]
	}
	_, _ = q.to.Write(e.bytes) // whoever closes it ends the context
}

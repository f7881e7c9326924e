package storage

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	kwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/client-go/rest"

	"github.com/portico-proxy/portico/core/cache"
)

// What the proxy says of how it made an answer. Upstream's own say nothing.
const (
	fromMemory   = "cache"
	fromFlight   = "coalesced"
	fromUpstream = ""
)

// store is what the suite tests: writes go to etcd, reads over HTTP.
type store struct {
	storage.Interface // writes

	api *apiServer
	// proxies stand in front of it, the nearest to it first. There may be none.
	proxies []*proxy
	rest    *rest.RESTClient
	// cold says that the proxies get no time to read everything into memory,
	// coldWrites that they get it after so many writes.
	cold       bool
	coldWrites int

	// hasty says that events must be there as soon as a write is over.
	hasty bool

	mu       sync.Mutex // guards following
	served   map[string]int
	beyond   []string // keys that were read and have no URL
	watchers []*watcher
}

// dial makes s read from server, in the format of mediaType.
func (s *store) dial(t *testing.T, server *httptest.Server, mediaType string) {
	t.Helper()
	cfg := &rest.Config{
		Host: server.URL, APIPath: "/api", QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
		ContentConfig: rest.ContentConfig{
			AcceptContentTypes: mediaType, ContentType: mediaType, GroupVersion: &groupVersion, NegotiatedSerializer: codecs.WithoutConversion(),
		},
		WrapTransport: func(next http.RoundTripper) http.RoundTripper { return counter{next, s} },
	}
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Client.CloseIdleConnections)
	s.rest = client
}

// warm waits until the proxies have everything in memory, in s's format.
func (s *store) warm(t *testing.T) {
	t.Helper()
	if s.cold || len(s.proxies) == 0 {
		return
	}
	until(t, func() error {
		before := s.from(fromMemory)
		if err := s.list(t.Context(), place{}, map[string]string{"resourceVersion": "0"}, newPodList()); err != nil {
			return err
		}
		if s.from(fromMemory) == before {
			return errors.New("the list did not come from memory")
		}
		return nil
	})
}

// counter counts answers by where they came from.
type counter struct {
	http.RoundTripper
	store *store
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		c.store.mu.Lock()
		c.store.served[res.Header.Get(cache.ServedBy)]++
		c.store.mu.Unlock()
	}
	return res, err
}

// from is how many answers came from there.
func (s *store) from(where string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[where]
}

// place is where a key's object or collection is found over HTTP.
type place struct{ namespace, name string }

// find returns the place of a key. Not every key has one: over HTTP nobody can
// ask for one object by the name of a directory, nor for a directory by the
// name of an object.
func (s *store) find(key string, one bool) (place, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	steps := strings.FieldsFunc(rest, func(c rune) bool { return c == '/' })
	if ok = ok && (rest == "" || rest[0] == '/'); !ok {
		return place{}, false
	}
	depth := len(steps)
	switch {
	case s.api.namespaced && one && depth == 2:
		return place{steps[0], steps[1]}, true
	case s.api.namespaced && !one && depth == 1:
		return place{namespace: steps[0]}, true
	case !s.api.namespaced && one && depth == 1:
		return place{name: steps[0]}, true
	}
	return place{}, !one && depth == 0
}

func (s *store) noURL(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beyond = append(s.beyond, key)
}

// Create writes, even if the time of a watch that shares the context is up, and
// then does what the case wants done after a write.
func (s *store) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	err := s.Interface.Create(context.WithoutCancel(ctx), key, obj, out, ttl)
	if s.coldWrites > 0 {
		if s.coldWrites--; s.coldWrites == 0 {
			s.warm(s.api.t)
		}
	}
	if s.hasty && err == nil {
		s.awaitEvents(out.(*example.Pod))
	}
	return err
}

// awaitEvents waits until all who watch pod's namespace have received it, so
// that the suite need not.
func (s *store) awaitEvents(pod *example.Pod) {
	s.mu.Lock()
	watchers := slices.Clone(s.watchers)
	s.mu.Unlock()
	for _, w := range watchers {
		if w.at.namespace != pod.Namespace {
			continue
		}
		until(s.api.t, func() error {
			if w.has(pod.ResourceVersion) {
				return nil
			}
			return errors.New("a watch has not had an event yet")
		})
	}
}

func (s *store) request(at place, params map[string]string) *rest.Request {
	r := s.rest.Get().NamespaceIfScoped(at.namespace, at.namespace != "").Resource("pods").MaxRetries(0)
	for name, value := range params {
		r.Param(name, value)
	}
	return r
}

// Get reads one object.
func (s *store) Get(ctx context.Context, key string, o storage.GetOptions, out runtime.Object) error {
	at, ok := s.find(key, true)
	if !ok {
		s.noURL(key)
		return s.api.life.Load().cached.Get(ctx, key, o, out)
	}
	params := map[string]string{}
	if o.ResourceVersion != "" {
		params["resourceVersion"] = o.ResourceVersion
	}
	var got examplev1.Pod
	err := s.request(at, params).Name(at.name).Do(ctx).Into(&got)
	switch {
	case apierrors.IsNotFound(err) && !o.IgnoreNotFound:
		return storage.NewKeyNotFoundError(key, 0)
	case err != nil && !apierrors.IsNotFound(err):
		return err
	}
	return scheme.Convert(&got, out, nil)
}

// GetList reads a collection, or one object as a collection.
func (s *store) GetList(ctx context.Context, key string, o storage.ListOptions, out runtime.Object) error {
	at, ok := s.find(key, !o.Recursive)
	if !ok {
		s.noURL(key)
		return s.api.life.Load().cached.GetList(ctx, key, o, out)
	}
	params := query(at, o)
	if o.Predicate.Limit > 0 {
		params["limit"] = strconv.FormatInt(o.Predicate.Limit, 10)
	}
	if o.Predicate.Continue != "" {
		params["continue"] = o.Predicate.Continue
	}
	if o.ResourceVersionMatch != "" {
		params["resourceVersionMatch"] = string(o.ResourceVersionMatch)
	}
	return s.list(ctx, at, params, out)
}

func (s *store) list(ctx context.Context, at place, params map[string]string, out runtime.Object) error {
	var got examplev1.PodList
	if err := s.request(at, params).Do(ctx).Into(&got); err != nil {
		return err
	}
	if got.Items == nil { // protobuf does not tell an empty list from none
		got.Items = []examplev1.Pod{}
	}
	got.Continue = withoutSlash(got.Continue)
	return scheme.Convert(&got, out, nil)
}

// query writes what lists and watches have in common.
func query(at place, o storage.ListOptions) map[string]string {
	params := map[string]string{}
	selector := o.Predicate.Field
	if selector == nil {
		selector = fields.Everything()
	}
	if at.name != "" {
		selector = fields.AndSelectors(selector, fields.OneTermEqualSelector("metadata.name", at.name))
	}
	if !selector.Empty() {
		params["fieldSelector"] = selector.String()
	}
	if l := o.Predicate.Label; l != nil && !l.Empty() {
		params["labelSelector"] = l.String()
	}
	if o.ResourceVersion != "" {
		params["resourceVersion"] = o.ResourceVersion
	}
	return params
}

// withoutSlash spells a continue token as the suite does. A registry's
// collections have no slash at their end and so its tokens have one at the
// front, but both say the same (k8s.io/apiserver/pkg/storage/continue.go).
func withoutSlash(token string) string {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	var said struct {
		Version string `json:"v"`
		RV      int64  `json:"rv"`
		Start   string `json:"start"`
	}
	if err != nil || json.Unmarshal(raw, &said) != nil {
		return token
	}
	said.Start = strings.TrimPrefix(said.Start, "/")
	raw, err = json.Marshal(said)
	if err != nil {
		return token
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Watch follows a collection, or one object.
func (s *store) Watch(ctx context.Context, key string, o storage.ListOptions) (kwatch.Interface, error) {
	at, ok := s.find(key, !o.Recursive && !strings.HasSuffix(key, "/"))
	if !ok {
		s.noURL(key)
		return s.api.life.Load().cached.Watch(ctx, key, o)
	}
	params := query(at, o)
	params["watch"] = "true"
	if o.Predicate.AllowWatchBookmarks {
		params["allowWatchBookmarks"] = "true"
	}
	if o.SendInitialEvents != nil {
		params["sendInitialEvents"] = strconv.FormatBool(*o.SendInitialEvents)
		params["resourceVersionMatch"] = string(metav1.ResourceVersionMatchNotOlderThan)
	}
	if deadline, ok := ctx.Deadline(); ok {
		params["timeoutSeconds"] = strconv.Itoa(int(math.Ceil(time.Until(deadline).Seconds())))
	}
	ctx, cancel := context.WithCancel(ctx)
	events, err := s.request(at, params).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	flowcontrol.WatchInitialized(ctx) // for the suite: headers are here
	w := &watcher{at: at, events: events, cancel: cancel, result: make(chan kwatch.Event, resultBuffer), received: map[string]bool{}}
	s.mu.Lock()
	s.watchers = append(s.watchers, w)
	s.mu.Unlock()
	go w.run(ctx)
	return w, nil
}

// resultBuffer is how many events a watcher has received and not yet given
// away: as many as the suite expects of a watch cache's own.
const resultBuffer = 10

// watcher gives events as the suite wants them.
type watcher struct {
	at     place
	events kwatch.Interface
	cancel func()
	result chan kwatch.Event

	mu       sync.Mutex      // guards following
	received map[string]bool // resourceVersions of events that wait to be taken
	over     bool
}

// has reports whether an event of rv is there, or none will come any more.
func (w *watcher) has(rv string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.received[rv] || w.over
}

func (w *watcher) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.cancel()
	w.events.Stop()
	close(w.result)
}

func (w *watcher) ResultChan() <-chan kwatch.Event { return w.result }

func (w *watcher) Stop() { w.cancel() }

func (w *watcher) run(ctx context.Context) {
	defer w.end()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.events.ResultChan():
			if !ok || (e.Type == kwatch.Error && ctx.Err() != nil) {
				return // the connection's end is no event of the server's
			}
			if !w.give(ctx, e) {
				return
			}
		}
	}
}

func (w *watcher) give(ctx context.Context, e kwatch.Event) bool {
	rv := ""
	if pod, ok := e.Object.(*examplev1.Pod); ok {
		rv = pod.ResourceVersion
		var out example.Pod
		if err := scheme.Convert(pod, &out, nil); err != nil {
			e.Type, e.Object = kwatch.Error, statusOf(err)
		} else {
			e.Object = &out
		}
	}
	select {
	case w.result <- e:
		w.mu.Lock()
		w.received[rv] = true
		w.mu.Unlock()
		return true
	case <-ctx.Done():
		return false
	}
}

func statusOf(err error) *metav1.Status {
	status := apierrors.NewInternalError(err).Status()
	return &status
}

var (
	_ storage.Interface = (*store)(nil)
)

package cache

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// verb is what a request wants to read.
type verb uint8

const (
	get verb = iota + 1
	list
	watch
)

// A question is a read request that may be answerable from memory. Whatever is
// invalid, unknown or rare is none: upstream answers it, and so gives its own
// error in its own words.
type question struct {
	verb      verb
	gvr       schema.GroupVersionResource
	namespace string
	name      string // of a get

	resourceVersion string
	rv              uint64 // resourceVersion as a number
	match           metav1.ResourceVersionMatch
	limit           int64
	token           string // continue
	labels          labels.Selector
	fields          fields.Selector

	timeout   time.Duration
	bookmarks bool
	initial   bool // a watch begins with the state
	newest    bool // the state must be the newest there is
	session   bool // or as new as what went through here
	inParts   bool // collections are not kept whole
	// stale is how old the answer may be while upstream is gone; 0 is not at all.
	stale time.Duration
}

// maxQuery is the longest query that is read, in bytes. To read a selector of a
// thousand values, and to ask the API server who may use it, costs more than to
// pass it on, where its sender waits for its own turn.
const maxQuery = 8 << 10

// parse reads r. It reports false if the cache has nothing to do with it.
func parse(r *http.Request) (*question, bool) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest || info.Subresource != "" || r.Method != http.MethodGet || len(r.URL.RawQuery) > maxQuery || isSpecial(r.Header) {
		return nil, false
	}
	q := &question{
		gvr:       schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource},
		namespace: info.Namespace, labels: labels.Everything(), fields: fields.Everything(),
	}
	if info.Resource == "namespaces" && info.APIGroup == "" {
		q.namespace = "" // where RequestInfo repeats the name
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, false
	}
	path := stream.CollectionPath(q.gvr, q.namespace)
	switch {
	case info.Verb == "get" && r.URL.Path == path+"/"+info.Name:
		q.verb, q.name = get, info.Name
		return q, q.readGet(values)
	case info.Verb == "list" && r.URL.Path == path:
		q.verb = list
		return q, q.readOptions(values) && q.isValidList()
	case info.Verb == "watch" && r.URL.Path == path:
		q.verb = watch
		return q, q.readOptions(values) && q.isValidWatch(values)
	}
	return nil, false
}

// isSpecial reports requests that are somebody else's, or another protocol's, or
// that name headers for us to strip, which may be refused on the way upstream.
func isSpecial(h http.Header) bool {
	if len(h["Upgrade"]) > 0 {
		return true
	}
	for _, value := range h["Connection"] {
		if !strings.EqualFold(value, "keep-alive") && !strings.EqualFold(value, "close") {
			return true
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

// readGet knows GetOptions.
func (q *question) readGet(values url.Values) bool {
	for name, v := range values {
		if name != "resourceVersion" || len(v) != 1 {
			return false
		}
	}
	return q.readResourceVersion(values.Get("resourceVersion"))
}

// readOptions knows ListOptions (k8s.io/apimachinery/pkg/apis/meta/v1).
func (q *question) readOptions(values url.Values) bool {
	for name, v := range values {
		if len(v) != 1 || !q.readOption(name, v[0]) {
			return false
		}
	}
	return true
}

func (q *question) readOption(name, v string) (ok bool) {
	var err error
	switch name {
	case "resourceVersion":
		return q.readResourceVersion(v)
	case "resourceVersionMatch":
		q.match = metav1.ResourceVersionMatch(v)
	case "limit":
		q.limit, err = strconv.ParseInt(v, 10, 64)
		return err == nil && q.limit >= 0
	case "continue":
		q.token = v
	case "labelSelector":
		q.labels, err = labels.Parse(v)
	case "fieldSelector":
		q.fields, err = fields.ParseSelector(v)
	case "timeoutSeconds":
		seconds, err := strconv.ParseInt(v, 10, 32)
		q.timeout = time.Duration(seconds) * time.Second
		return err == nil && seconds >= 0
	case "allowWatchBookmarks":
		q.bookmarks, ok = readBool(v)
		return ok
	case "sendInitialEvents":
		_, ok = readBool(v)
		return ok && q.verb == watch
	case "watch":
		_, ok = readBool(v)
		return ok
	case "timeout":
		return q.verb == watch // the API server ignores it there
	default:
		return false
	}
	return err == nil
}

// readBool is stricter than the API server, which takes everything else for true.
func readBool(v string) (value, ok bool) {
	switch v {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

func (q *question) readResourceVersion(v string) bool {
	q.resourceVersion = v
	if v == "" {
		return true
	}
	rv, err := wire.ParseResourceVersion(v)
	q.rv = rv
	return err == nil && strconv.FormatUint(rv, 10) == v
}

// isValidList follows apimachinery's ValidateListOptions and apiserver's
// storage.ValidateListOptions.
func (q *question) isValidList() bool {
	switch {
	case q.token != "" && (q.match != "" || q.rv != 0):
		return false
	case q.match == "":
		return true
	case q.resourceVersion == "":
		return false
	case q.match == metav1.ResourceVersionMatchExact:
		return q.rv != 0
	}
	return q.match == metav1.ResourceVersionMatchNotOlderThan
}

// minWatchTimeout is kube-apiserver's default --min-request-timeout.
const minWatchTimeout = 1800 * time.Second

// isValidWatch follows apimachinery's validateWatchOptions and
// SetListOptionsDefaults: a watch that says nothing begins with the state, if
// its resourceVersion is "" or "0".
func (q *question) isValidWatch(values url.Values) bool {
	sent, ok := values["sendInitialEvents"]
	switch {
	case q.token != "" || q.limit != 0:
		return false
	case ok && q.match != metav1.ResourceVersionMatchNotOlderThan, !ok && q.match != "":
		return false
	case ok:
		q.initial, _ = readBool(sent[0])
	default:
		q.initial = q.rv == 0
	}
	q.newest = q.resourceVersion == ""
	if q.timeout == 0 {
		q.timeout = time.Duration(float64(minWatchTimeout) * (1 + rand.Float64()))
	}
	return true
}

// resolve translates the field selector into the resource's own words. It
// reports false if objects cannot be selected by it here.
func (q *question) resolve(s *wire.Schema) bool {
	if s.Namespaced != (q.namespace != "") && (q.namespace != "" || q.verb == get) {
		return false
	}
	if q.fields.Empty() {
		return true
	}
	ok := true
	selector, err := q.fields.Transform(func(field, value string) (string, string, error) {
		name, known := s.Canonical(field)
		ok = ok && known
		return name, value, nil
	})
	q.fields = selector
	return ok && err == nil
}

// selects reports whether o is one that q asks for.
func (q *question) selects(o *wire.Object) bool {
	if o == nil || (q.namespace != "" && o.Namespace() != q.namespace) {
		return false
	}
	return (q.fields.Empty() || q.fields.Matches(o.Fields())) && (q.labels.Empty() || q.labels.Matches(o.Labels()))
}

// selectsAll reports whether q names no condition but the namespace.
func (q *question) selectsAll() bool { return q.fields.Empty() && q.labels.Empty() }

// isLegacyExact reports whether a list asks for exactly its resourceVersion in
// the way that is older than resourceVersionMatch.
func (q *question) isLegacyExact() bool { return q.match == "" && q.limit > 0 && q.rv > 0 }

// within returns the namespace of all that q can select, if that is one, as
// apiserver's SelectionPredicate.MatchesSingleNamespace has it.
func (q *question) within(s *wire.Schema) string {
	if q.namespace != "" || q.token != "" || !s.Namespaced {
		return q.namespace
	}
	namespace, _ := q.fields.RequiresExactMatch("metadata.namespace")
	return namespace
}

// single returns the key of the only object that q can select, as
// apiserver's SelectionPredicate.MatchesSingle has it.
func (q *question) single(s *wire.Schema) (string, bool) {
	name, ok := q.fields.RequiresExactMatch("metadata.name")
	namespace := q.within(s)
	if !ok || q.token != "" || (s.Namespaced && namespace == "") {
		return "", false
	}
	return wire.Key(namespace, name), true
}

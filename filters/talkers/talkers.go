// Package talkers watches who asks for what, and keeps account of it.
package talkers

import (
	"bytes"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/talkers"
)

const (
	// slow is how long a read takes that is.
	slow = 10 * time.Second
	// short is how long a watch lasts at most that is.
	short = 5 * time.Second
	// maxObject is how much of a write's answer is kept to read its version.
	maxObject = 256 << 10
	// sampled is how much of a list is looked at to know how many objects it
	// has: the rest will be like it.
	sampled = 4 << 20
)

// Filter counts what callers do.
type Filter struct{ Account *talkers.Account }

// Name is "talkers".
func (f *Filter) Name() string { return "talkers" }

// ServeHTTP passes every request on, and counts it when it has been answered.
func (f *Filter) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest {
		return next.ServeHTTP(w, r)
	}
	x := &exchange{ResponseWriter: w, r: r, info: info, account: f.Account, start: time.Now()}
	x.asked()
	defer x.end()
	x.err = next.ServeHTTP(x, r)
	x.returned = true
	return x.err
}

// exchange is a request and what becomes of it.
type exchange struct {
	http.ResponseWriter
	r       *http.Request
	info    *request.RequestInfo
	account *talkers.Account
	start   time.Time
	counts  talkers.Counts

	code     int
	bytes    int64
	whole    bool             // it lists a whole collection
	objects  *talkers.Objects // set if the collection is to be measured
	written  bool             // it changes one object
	body     bytes.Buffer     // of an answer that is an object as written
	err      error
	returned bool // false while next runs, and if the answer broke off
}

// asked counts what r asks for.
func (x *exchange) asked() {
	x.counts.Requests = 1
	switch x.info.Verb {
	case "list":
		query := x.r.URL.Query()
		version, fromStart := query.Get("resourceVersion"), query.Get("continue") == ""
		x.counts.Lists = 1
		x.counts.QuorumLists = one(fromStart && version == "" && x.info.Namespace == "" && x.info.Name == "")
		x.counts.InitialReads = one(fromStart && (version == "" || version == "0"))
		x.whole = fromStart && query.Get("limit") == "" && x.info.FieldSelector == "" && x.info.LabelSelector == "" && x.info.Subresource == ""
	case "watch":
		initial := x.r.URL.Query().Get("sendInitialEvents")
		x.counts.WatchStarts = 1
		x.counts.InitialReads = one(initial == "true" || initial == "1")
	case "create", "update", "patch", "delete", "deletecollection":
		x.counts.Writes = 1
		x.written = (x.info.Verb == "update" || x.info.Verb == "patch") && !x.r.URL.Query().Has("dryRun")
	}
}

func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// Unwrap lets http.ResponseController reach what is not watched.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(code int) {
	if x.code == 0 && code >= http.StatusOK {
		x.begin(code)
	}
	x.ResponseWriter.WriteHeader(code)
}

func (x *exchange) begin(code int) {
	x.code = code
	plain := code == http.StatusOK && x.Header().Get("Content-Encoding") == ""
	x.written = x.written && plain
	x.whole = x.whole && plain && x.isList()
	if x.whole && x.account.Measures(x.info.APIGroup, x.info.Resource, x.info.Namespace) {
		x.objects = &talkers.Objects{Verb: "list"}
	}
}

// isList reports whether the answer is a list of whole objects: tables and metadata
// are no measure.
func (x *exchange) isList() bool {
	t := x.Header().Get("Content-Type")
	return t == "application/json" || t == "application/vnd.kubernetes.protobuf"
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.code == 0 {
		x.begin(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(p)
	if x.objects != nil && x.bytes < sampled {
		x.sample(p[:n])
	}
	x.bytes += int64(n)
	if x.written && x.body.Len()+n <= maxObject {
		x.body.Write(p[:n])
	}
	return n, err
}

// sample counts the objects that begin in what follows the bytes so far.
func (x *exchange) sample(p []byte) {
	p = p[:min(int64(len(p)), sampled-x.bytes)]
	x.objects.Read(x.Header().Get("Content-Type"), p)
}

// listed is how many objects the answer has, as far as the sample tells.
func (x *exchange) listed() int64 {
	if x.bytes <= sampled {
		return x.objects.N
	}
	return int64(float64(x.objects.N) * float64(x.bytes) / sampled)
}

// end counts what became of r.
func (x *exchange) end() {
	if x.err != nil && x.code == 0 {
		x.code = int(pipeline.StatusOf(x.err).Code)
	}
	took := time.Since(x.start)
	c := &x.counts
	switch x.info.Verb {
	case "list":
		c.ListBytes = x.bytes
		c.SlowReads = one(took > slow)
	case "get":
		c.SlowReads = one(took > slow && x.info.Subresource == "")
	case "watch":
		c.ShortWatches = one(took < short && x.code == http.StatusOK)
	}
	x.judge()
	x.measure()
	if x.written && x.code == http.StatusOK && int64(x.body.Len()) == x.bytes {
		i := x.info
		c.NoopWrites = one(x.account.Wrote(i.APIGroup, i.Resource, i.Namespace, i.Name, wire.ResponseVersion(x.body.Bytes())))
	}
	x.account.Add(x.who(), x.r.UserAgent(), *c)
}

// judge counts how r was answered.
func (x *exchange) judge() {
	switch c := &x.counts; {
	case x.code == http.StatusTooManyRequests:
		c.Throttled = 1
	case x.code == http.StatusConflict:
		c.Conflicts = 1
	case x.code == http.StatusGone, x.code == http.StatusGatewayTimeout:
		c.Expired = 1
	case x.code >= http.StatusBadRequest:
		c.Errors = 1
	}
}

// measure notes how large the collection is that has been listed, all of it.
func (x *exchange) measure() {
	if x.objects != nil && x.whole && x.returned && x.err == nil && x.r.Context().Err() == nil {
		i := x.info
		x.account.Measured(i.APIGroup, i.Resource, i.Namespace, talkers.Size{Objects: x.listed(), Bytes: x.bytes})
	}
}

func (x *exchange) who() talkers.Who {
	who := talkers.Who{Group: x.info.APIGroup, Resource: x.info.Resource}
	if caller, ok := request.UserFrom(x.r.Context()); ok {
		who.User = caller.GetName()
	} else {
		who.Agent = x.r.UserAgent()
	}
	return who
}

var _ pipeline.Filter = (*Filter)(nil)

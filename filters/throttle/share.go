package throttle

import (
	"bufio"
	"cmp"
	"hash/maphash"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	apifilters "k8s.io/apiserver/pkg/server/filters"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/limit"
	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/upstream"
)

// Shares are how many requests the proxy answers at a time, by what they cost
// it. What is 0 has its default.
type Shares struct {
	// Requests are those that no other field counts; 1000 by default.
	Requests int
	// Lists are requests for collections; 256 by default.
	Lists int
	// Vital requests are those that a cluster needs to live: leases, heartbeats,
	// reviews and tokens of others. They never wait for what anybody may send; 500
	// by default.
	Vital int
	// Discovery is health, discovery, and what callers ask about themselves, which
	// waits for no other requests either; 500 by default.
	Discovery int
	// Streams are watches and what else goes on for long, upgrades among them;
	// 20000 by default.
	Streams int
}

// bulkyShare is how many requests with large heads are answered at a time.
const bulkyShare = 8

const (
	// shareDelay is how long a request waits for its turn.
	shareDelay = 10 * time.Second
	// answerTime is how long a request may take that is no stream: twice what the
	// API server gives it. vitalTime is that of vital ones, which are small.
	answerTime = 2 * time.Minute
	vitalTime  = time.Minute
	// shareOf is what one caller may have of anything, in eighths, and vitalOf what
	// it may have of what all of a cluster lives on, or must be able to ask.
	shareOf = 6
	vitalOf = 1
	// bulkyOf is what it may have of requests with large headers that are over soon: one
	// at a time.
	bulkyOf = 1
)

// Share is the filter that shares the proxy out among its callers, whatever
// policies say, so that none of them has all of it. It stands first: it knows
// callers by where they come from and what they show, which nobody has verified.
type Share struct {
	limiter  *Limiter
	pressure *Pressure
	seed     maphash.Seed
	kinds    map[kind]bounds
}

// bounds are what all callers together may have, and each of them.
type bounds struct{ all, one limit.Limit }

func (b bounds) append(to []limit.Limit, flow string) []limit.Limit {
	b.one.Key = []string{flow}
	return append(to, b.all, b.one)
}

// kind is what a request is counted as.
type kind string

const (
	ordinary kind = "requests"
	lists    kind = "lists"
	vital    kind = "vital"
	discover kind = "discovery"
	streams  kind = "streams"
	bulky    kind = "bulky"
	// bulkyStreams keep their headers for long.
	bulkyStreams kind = "bulky-streams"
)

// sharing names the limits of Share among those of policies. No policy has a
// colon in its name.
const sharing = "proxy:share"

// NewShare returns a filter that gives away s by l. A nil pressure is none.
func NewShare(l *Limiter, s Shares, p *Pressure) *Share {
	f := &Share{limiter: l, pressure: p, seed: maphash.MakeSeed(), kinds: map[kind]bounds{}}
	for k, most := range map[kind]int{
		ordinary: cmp.Or(s.Requests, 1000), lists: cmp.Or(s.Lists, 256), vital: cmp.Or(s.Vital, 500),
		discover: cmp.Or(s.Discovery, 500), streams: cmp.Or(s.Streams, 20000), bulky: bulkyShare, bulkyStreams: bulkyShare,
	} {
		l := limit.Limit{
			Policy: sharing, ID: string(k), InFlight: &limit.InFlight{Max: most}, OnExceed: limit.Delay, MaxDelay: shareDelay,
			Applies: limit.Client, Message: "the proxy is busy: it has as many " + string(k) + " as it takes at a time",
		}
		if k == streams || k == bulky || k == bulkyStreams {
			l.OnExceed = limit.Reject // who waits keeps what it sent in memory
		}
		one := l
		one.ID, one.InFlight = string(k)+"-of-one", &limit.InFlight{Max: max(1, most*eighths(k)/8)}
		one.Message = "this client has as many " + string(k) + " as the proxy gives to one at a time"
		f.kinds[k] = bounds{all: l, one: one}
	}
	return f
}

// eighths are what one caller may have of a kind.
func eighths(k kind) int {
	switch k {
	case vital, discover:
		return vitalOf
	case bulky:
		return bulkyOf
	}
	return shareOf
}

// Name is "throttle".
func (f *Share) Name() string { return "throttle" }

// ServeHTTP lets r in when it is its caller's turn.
func (f *Share) ServeHTTP(w http.ResponseWriter, r *http.Request, next pipeline.Handler) error {
	k := kindOf(r)
	if !isSmall(k) && f.pressure.IsHigh() {
		f.limiter.options.Count(sharing, "memory", rejected)
		return apierrors.NewTooManyRequests("the proxy is short of memory", 1+f.limiter.jitter(4))
	}
	flow := f.flowOf(r)
	p, err := f.limiter.enter(r.Context(), f.limits(k, flow, limit.HeadSize(r) > limit.LargeHead), flow)
	if err != nil {
		return err
	}
	defer p.leave(usage{})
	switch {
	case k != streams:
		defer cutAfter(w, f.patience(k))()
	case isUpgrade(r):
		over := cutAfter(w, answerTime)
		defer over()
		w = switching{w, over}
	}
	return next.ServeHTTP(w, r)
}

// isUpgrade reports requests to go on in another protocol, as some aggregated API
// servers let them. If that is refused, they are as short as others.
func isUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade")
}

// mayUpgrade reports whether an upgrade can be meant. Of collections and objects the
// API server overlooks it, and answers.
func mayUpgrade(info *request.RequestInfo) bool {
	return !info.IsResourceRequest || info.Subresource != "" || info.Verb == "watch" || info.Verb == "proxy"
}

// switching is the answer to one of these. What goes on may take as long as it likes.
type switching struct {
	http.ResponseWriter
	over func()
}

// Unwrap lets http.ResponseController reach what is not changed.
func (s switching) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Hijack takes the connection out of what is cut.
func (s switching) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	s.over()
	return http.NewResponseController(s.ResponseWriter).Hijack()
}

// patience is how long a client may take to send a request and to read the answer.
func (f *Share) patience(k kind) time.Duration {
	if isSmall(k) {
		return vitalTime
	}
	return answerTime
}

func isSmall(k kind) bool { return k == vital || k == discover }

// cutAfter ends a request that takes too long, until what it returns is called: who
// neither sends nor reads would keep its place for ever.
func cutAfter(w http.ResponseWriter, d time.Duration) (over func()) {
	var mu sync.Mutex
	ended := false
	t := time.AfterFunc(d, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return // w is another request's now
		}
		rc := http.NewResponseController(w)
		_, _ = rc.SetReadDeadline(time.Now()), rc.SetWriteDeadline(time.Now())
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		t.Stop()
		ended = true
	}
}

// limits are those of all callers and those of one.
func (f *Share) limits(k kind, flow string, bulk bool) []limit.Limit {
	of := f.kinds[k].append(make([]limit.Limit, 0, 4), flow)
	switch {
	case bulk && k == streams:
		return f.kinds[bulkyStreams].append(of, flow)
	case bulk:
		return f.kinds[bulky].append(of, flow)
	}
	return of
}

// isLong reports requests that go on, as the API server has it.
var isLong = apifilters.BasicLongRunningRequestCheck(
	sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))

func kindOf(r *http.Request) kind {
	info, ok := request.RequestInfoFrom(r.Context())
	switch {
	case !ok:
		return ordinary
	case isUpgrade(r) && mayUpgrade(info):
		return streams
	case info.IsResourceRequest && info.Resource == "nodes" && info.Subresource == "status" && r.Method != http.MethodGet:
		return vital
	case limit.Exempt(info, nil):
		if isOfAnybody(info) {
			return discover
		}
		return vital
	case isLong(r, info):
		return streams
	case info.Verb == "list", info.Verb == "deletecollection":
		return lists
	}
	return ordinary
}

// isOfAnybody reports what every caller is allowed of what is exempt: to look at what
// there is, and to ask who he is and what he may.
func isOfAnybody(info *request.RequestInfo) bool {
	return !info.IsResourceRequest || strings.HasPrefix(info.Resource, "selfsubject")
}

// flowOf is whose turn it is: an address (of IPv6, its network), or, on this machine,
// where many share one, an address and a credential. It is not verified. Whoever shows a thousand
// credentials from elsewhere is one caller all the same.
func (f *Share) flowOf(r *http.Request) string {
	host := limit.AddressOf(r.RemoteAddr)
	if cache.IsRemote(r) {
		return host
	}
	// The token, and not what else is in its header, which the API server overlooks.
	shown := maphash.String(f.seed, upstream.TokenOf(r))
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		shown = maphash.Bytes(f.seed, r.TLS.PeerCertificates[0].Raw)
	}
	return host + " " + strconv.FormatUint(shown, 36)
}

var _ pipeline.Filter = (*Share)(nil)

package cache

import (
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"

	"github.com/portico-proxy/portico/core/cache/wire"
	"github.com/portico-proxy/portico/core/view"
)

// What the API server offers, in its order.
var offered = []runtime.SerializerInfo{mediaType("application", "json"), mediaType("application", "yaml"), mediaType("application", "vnd.kubernetes.protobuf")}

func mediaType(kind, sub string) runtime.SerializerInfo {
	info := runtime.SerializerInfo{MediaType: kind + "/" + sub, MediaTypeType: kind, MediaTypeSubType: sub}
	if sub != "yaml" {
		info.StreamSerializer = &runtime.StreamSerializerInfo{}
	}
	return info
}

// endpoint allows what the API server does, so that the clause it would choose is
// the one that is chosen here. Custom resources have no protobuf, though their
// metadata alone has.
type endpoint struct {
	view.Endpoint
	custom bool
}

func (e endpoint) AllowsMediaTypeTransform(kind, sub string, to *schema.GroupVersionKind) bool {
	return e.Endpoint.AllowsMediaTypeTransform(kind, sub, to) && (to != nil || !e.custom || sub != "vnd.kubernetes.protobuf")
}

// form is how an answer is written.
type form struct {
	wire.Format
	// partial objects are their metadata alone.
	partial bool
}

// forms are what was agreed upon before: there are few wordings among clients, and to
// read one takes longer than to find an object. The zero value is ready.
type forms struct {
	mu    sync.RWMutex // guards following
	known map[wording]form
}

// wording is what a form is agreed upon by.
type wording struct {
	accept        string
	verb          verb
	custom, human bool
}

const (
	// maxForms bounds how many are remembered, and maxAccept how long an Accept of
	// theirs is, in bytes.
	maxForms  = 256
	maxAccept = 512
)

// negotiate returns the form in which the API server would answer r. It reports
// false for everything that is not plain JSON or protobuf, or metadata alone.
func (s *forms) negotiate(r *http.Request, v verb, custom bool) (form, bool) {
	w := wording{r.Header.Get("Accept"), v, custom, isHuman(r.UserAgent())}
	s.mu.RLock()
	f, known := s.known[w]
	full := len(s.known) >= maxForms
	s.mu.RUnlock()
	if known {
		return f, true
	}
	f, ok := w.negotiate()
	if ok && !full && len(w.accept) <= maxAccept {
		s.remember(w, f)
	}
	return f, ok
}

func (s *forms) remember(w wording, f form) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[wording]form{}
	}
	s.known[w] = f
}

func (w wording) negotiate() (form, bool) {
	chosen, ok := negotiation.NegotiateMediaTypeOptions(w.accept, offered, endpoint{custom: w.custom})
	if !ok || !isProduced(w.accept, w.custom) || chosen.Pretty || chosen.Export || chosen.UseServerVersion != "" {
		return form{}, false
	}
	f := form{partial: chosen.Convert != nil}
	if f.partial && *chosen.Convert != partialKind(w.verb) {
		return form{}, false
	}
	switch chosen.Accepted.MediaTypeSubType {
	case "vnd.kubernetes.protobuf":
		f.Format = wire.Protobuf
		return f, true
	case "json":
		return f, !w.human
	}
	return form{}, false
}

// isProduced reports whether accept names, word by word, something that the API
// server offers here and not CBOR, which only some do. Built-in resources are
// routed by go-restful first, to which application/* is not acceptable.
func isProduced(accept string, custom bool) bool {
	if strings.Contains(strings.ToLower(accept), "cbor") {
		return false
	}
	if accept == "" || custom {
		return true
	}
	for clause := range strings.SplitSeq(accept, ",") {
		mediaType, _, _ := strings.Cut(clause, ";")
		mediaType = strings.TrimSpace(mediaType)
		if mediaType == "*/*" || slices.ContainsFunc(offered, func(i runtime.SerializerInfo) bool { return i.MediaType == mediaType }) {
			return true
		}
	}
	return false
}

// partialKind is what metadata alone must be asked for as.
func partialKind(v verb) schema.GroupVersionKind {
	if v == list {
		return metav1.SchemeGroupVersion.WithKind(wire.PartialKind + "List")
	}
	return metav1.SchemeGroupVersion.WithKind(wire.PartialKind)
}

// kept is the format of the bytes that an answer in this form is made of.
func (f form) kept(s *wire.Schema) wire.Format {
	if s.Custom {
		return wire.JSON
	}
	return f.Format
}

// accept asks upstream for this form of a list.
func (f form) accept() string {
	if f.partial {
		return f.MediaType() + ";as=" + wire.PartialKind + "List;g=" + metav1.SchemeGroupVersion.Group + ";v=" + metav1.SchemeGroupVersion.Version
	}
	return f.MediaType()
}

// isHuman reports those for whom the API server indents JSON.
func isHuman(userAgent string) bool {
	return strings.HasPrefix(userAgent, "curl") || strings.HasPrefix(userAgent, "Wget") || strings.HasPrefix(userAgent, "Mozilla/5.0")
}

// gzipThreshold is the size from which the API server compresses, in bytes.
const gzipThreshold = 128 << 10

// acceptsGzip reports whether r's sender takes gzip.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		if strings.TrimSpace(part) == "gzip" {
			return true
		}
	}
	return false
}

// IsRemote reports whether r came from another machine, as far as addresses
// tell. Compressing for this one would only spend its CPU twice.
func IsRemote(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsLoopback() {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || !local.IP.Equal(ip)
}

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// compressed calls write with a writer that compresses into w.
func compressed(w io.Writer, write func(io.Writer) error) error {
	z := gzipWriters.Get().(*gzip.Writer)
	z.Reset(w)
	defer func() { z.Reset(nil); gzipWriters.Put(z) }()
	if err := write(z); err != nil {
		return err
	}
	return z.Close()
}

package stream

import (
	"context"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/portico-proxy/portico/core/cache/wire"
)

// A Source asks the API server under the proxy's own identity.
type Source struct {
	Transport http.RoundTripper
	// Base is the API server's address, with any path prefix.
	Base *url.URL
}

// maxError bounds what is read of an error's body.
const maxError = 64 << 10

// Get sends a GET and returns the answer if it is a 200, or the Status that the
// API server answers instead as an error. The caller closes the body.
func (s *Source) Get(ctx context.Context, path string, query url.Values, accept string) (*http.Response, error) {
	return s.send(ctx, path, query, http.Header{"Accept": {accept}})
}

// send does what Get does with further headers, which it takes.
func (s *Source) send(ctx context.Context, path string, query url.Values, header http.Header) (*http.Response, error) {
	u := *s.Base
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	r.Header = header
	// Both ends would only spend CPU: the stream is sent once.
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "portico")
	res, err := s.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxError))
	return nil, statusError(res, body)
}

// statusError is the Status that an answer holds, or one made of its code.
func statusError(res *http.Response, body []byte) error {
	seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
	if status := decodeStatus(body); status != nil {
		if status.Details == nil {
			status.Details = &metav1.StatusDetails{}
		}
		status.Details.RetryAfterSeconds = max(status.Details.RetryAfterSeconds, int32(min(seconds, math.MaxInt32)))
		return &apierrors.StatusError{ErrStatus: *status}
	}
	return apierrors.NewGenericServerResponse(res.StatusCode, http.MethodGet, schema.GroupResource{}, "", "", seconds, true)
}

func decodeStatus(b []byte) *metav1.Status {
	o, _, err := statusDecoder.Decode(b, nil, nil)
	if err != nil {
		return nil
	}
	status, _ := o.(*metav1.Status)
	return status
}

var statusDecoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(scheme).UniversalDeserializer()
}()

// CollectionPath is where a resource's objects are listed.
func CollectionPath(gvr schema.GroupVersionResource, namespace string) string {
	root := "/apis/" + gvr.Group + "/" + gvr.Version
	if gvr.Group == "" {
		root = "/api/" + gvr.Version
	}
	if namespace != "" {
		root += "/namespaces/" + namespace
	}
	return root + "/" + gvr.Resource
}

// query writes the options that streams use.
func query(o metav1.ListOptions) url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("resourceVersion", o.ResourceVersion)
	set("resourceVersionMatch", string(o.ResourceVersionMatch))
	set("continue", o.Continue)
	if o.Limit > 0 {
		set("limit", strconv.FormatInt(o.Limit, 10))
	}
	if o.TimeoutSeconds != nil {
		set("timeoutSeconds", strconv.FormatInt(*o.TimeoutSeconds, 10))
	}
	if o.AllowWatchBookmarks {
		set("allowWatchBookmarks", "true")
	}
	if o.SendInitialEvents != nil {
		set("sendInitialEvents", strconv.FormatBool(*o.SendInitialEvents))
	}
	return q
}

// getPart asks for what this stream keeps.
func (s *Stream) getPart(ctx context.Context, q url.Values, header http.Header) (*http.Response, error) {
	if s.Scope.Field != "" {
		q.Set("fieldSelector", s.Scope.Selector(""))
	}
	return s.send(ctx, CollectionPath(s.Schema.Resource, s.Scope.Namespace), q, header)
}

// get asks for objects of this stream's resource and insists on its format.
func (s *Stream) get(ctx context.Context, namespace string, q url.Values) (*http.Response, error) {
	return s.send(ctx, CollectionPath(s.Schema.Resource, namespace), q, nil)
}

// send sends a GET with further headers, which it takes; nil is none.
func (s *Stream) send(ctx context.Context, path string, q url.Values, header http.Header) (*http.Response, error) {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Accept", s.Format.MediaType())
	res, err := s.source.send(ctx, path, q, header)
	if err != nil {
		return nil, s.heed(err)
	}
	got, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || got != s.Format.MediaType() || res.Header.Get("Content-Encoding") != "" {
		_ = res.Body.Close()
		return nil, fmt.Errorf("answer of type %q: %w", res.Header.Get("Content-Type"), wire.ErrMalformed)
	}
	warnings := res.Header.Values("Warning")
	s.warnings.Store(&warnings)
	return res, nil
}

// openWatch begins an upstream watch with further headers, which may be nil.
func (s *Stream) openWatch(ctx context.Context, header http.Header, o metav1.ListOptions) (*events, error) {
	q := query(o)
	q.Set("watch", "true")
	ctx, cancel := context.WithCancel(ctx)
	res, err := s.getPart(ctx, q, header) //nolint:bodyclose // events.Close does
	if err != nil {
		cancel()
		return nil, err
	}
	e := &events{stream: s, ctx: ctx, body: res.Body, cancel: cancel, frames: s.Schema.NewFrameReader(s.Format, res.Body)}
	e.onDemand = res.Header.Get(ProgressHeader) == ProgressOnDemand
	s.onDemand.Store(e.onDemand)
	if o.SendInitialEvents != nil && *o.SendInitialEvents {
		e.packer = &wire.Packer{}
	}
	return e, nil
}

// events decodes an upstream watch for the reflector.
type events struct {
	stream *Stream
	ctx    context.Context // ends with Close
	body   io.Closer
	cancel context.CancelFunc
	frames *wire.FrameReader
	packer *wire.Packer // nil once initial events have ended
	// onDemand says that whoever answers proves progress on demand.
	onDemand bool
}

func (e *events) Decode() (watch.EventType, runtime.Object, error) {
	frame, err := e.frames.Next()
	if err != nil {
		return "", nil, err
	}
	switch frame.Type {
	case watch.Error:
		status := decodeStatus(frame.Raw)
		if status == nil {
			return "", nil, fmt.Errorf("error event: %w", wire.ErrMalformed)
		}
		return frame.Type, status, nil
	case watch.Bookmark:
		e.packer = nil
		i, err := e.stream.bookmarkItem(frame.Raw)
		return frame.Type, i, err
	}
	o, err := e.stream.Schema.Parse(e.stream.Format, frame.Raw)
	if err != nil {
		return "", nil, err
	}
	e.stream.received(o)
	if e.packer != nil {
		o = e.packer.Add(o)
	}
	return frame.Type, newItem(o), nil
}

func (e *events) Close() {
	e.cancel()
	_ = e.body.Close()
}

var _ watch.Decoder = (*events)(nil)

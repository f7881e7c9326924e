package pipeline

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

var errNoChain = apierrors.NewGenericServerResponse(http.StatusServiceUnavailable, "", schema.GroupResource{}, "", "the proxy is starting", 1, true)

// A Server is the one place where HTTP meets the chain: it resolves which API
// request r is, runs Handler, recovers its panics and writes its errors.
type Server struct {
	Handler Handler
	// Log receives errors that no client is told about.
	Log logr.Logger
}

// ServeHTTP answers r by the chain.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &response{ResponseWriter: w}
	r = WithRequestInfo(r)
	defer s.recover(out, r)
	if err := s.Handler.ServeHTTP(out, r); err != nil {
		s.fail(out, r, err)
	}
}

func (s *Server) recover(out *response, r *http.Request) {
	p := recover()
	if p == http.ErrAbortHandler {
		panic(p)
	}
	if p != nil {
		s.log(r).Error(nil, "recovered from panic", "panic", p, "stack", string(debug.Stack()))
		s.write(out, r, apierrors.NewInternalError(errInternal))
	}
}

// fail answers r with err, and logs it if the client is not told what it is.
func (s *Server) fail(out *response, r *http.Request, err error) {
	if r.Context().Err() != nil {
		// Nobody is there to be told; a normal return would write a 200.
		panic(http.ErrAbortHandler)
	}
	if status := apierrors.APIStatus(nil); !errors.As(err, &status) {
		s.log(r).Error(err, "request failed")
	}
	s.write(out, r, &apierrors.StatusError{ErrStatus: *StatusOf(err)})
}

// log names the request. Its Audit-ID is there once a filter has given it one.
func (s *Server) log(r *http.Request) logr.Logger {
	return s.Log.WithValues("method", r.Method, "path", r.URL.Path, "auditID", r.Header.Get("Audit-ID"))
}

// write sends err, or cuts the connection if a response has begun: the client
// must not take half an answer for a whole one.
func (s *Server) write(out *response, r *http.Request, err error) {
	if out.begun {
		panic(http.ErrAbortHandler)
	}
	out.Header().Set("Cache-Control", "no-cache, private")
	responsewriters.ErrorNegotiated(err, statusCodecs, schema.GroupVersion{Version: "v1"}, out, r)
}

var errInternal = errors.New("internal error")

// StatusOf returns what a client is told of err: the Status it carries, or a
// bare 500 that keeps inner errors inside. err is not nil.
func StatusOf(err error) *metav1.Status {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		s := status.Status()
		return &s
	}
	return &apierrors.NewInternalError(errInternal).ErrStatus
}

// statusCodecs knows Status and nothing else.
var statusCodecs = func() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}()

// response remembers whether anything has been written. Unwrap lets
// http.ResponseController flush and hijack.
type response struct {
	http.ResponseWriter
	begun bool
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(code int) {
	// 1xx comes before the answer; 101 is one.
	w.begun = w.begun || code >= 200 || code == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(code)
}

// FlushError is what http.ResponseController calls. A flush sends the header.
func (w *response) FlushError() error {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack counts as an answer: what follows on the connection is not ours.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

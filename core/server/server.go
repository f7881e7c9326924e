// Package server is the proxy's door: listeners, TLS, readiness and draining.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/waitgroup"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/server/h2"
)

// Options says where the server listens, as whom, and how it ends.
type Options struct {
	// BindAddress and Port are where it listens, unless Listener is given. Port
	// 0 takes a free one: see [Server.Addr].
	BindAddress net.IP
	Port        int
	Listener    net.Listener
	// CertFile and KeyFile are the serving certificate and are read again when
	// they change. If both are empty, a self-signed one is made in CertDir.
	CertFile, KeyFile, CertDir string
	// ClientCA verifies client certificates. It may be nil.
	ClientCA dynamiccertificates.CAContentProvider
	// Handler answers requests.
	Handler pipeline.Handler
	// EndWatches is called when draining begins. It may be nil.
	EndWatches func()
	// DrainDelay is how long the server goes on serving after it has become
	// unready, so that whoever sends traffic to it notices.
	DrainDelay time.Duration
	// DrainTimeout bounds how long requests in flight may then take.
	DrainTimeout time.Duration
	// Quick reports whether a request will most probably be answered without
	// waiting, and returns the request to go on with. nil says so of none. Only
	// OwnHTTP2 asks.
	Quick func(*http.Request) (*http.Request, bool)
	// OwnHTTP2 has core/server/h2 serve HTTP/2, and not net/http.
	OwnHTTP2 bool
	// MaxStreams bounds concurrent requests on one HTTP/2 connection; 0 means 250.
	MaxStreams int
	// MaxConnections bounds connections. Once there are as many, addresses that
	// have most of them lose some to those that have few. 0 means half of the files
	// that the process may open, and no more than 20000.
	MaxConnections int
	// Delayed is told of connections that are read from later because they, or
	// others of their "address", have cost much for nothing. It may be nil.
	Delayed func(by string, waited time.Duration)
	Log     logr.Logger
}

// Server is a controller-runtime Runnable that serves until its context ends,
// then drains.
type Server struct {
	options  Options
	listener net.Listener
	drain    atomic.Bool // unready
	refuse   atomic.Bool // new requests
	started  atomic.Bool
	inFlight waitgroup.SafeWaitGroup
}

// New opens the listener, so that a port that is taken is known before anything
// is started, and reads the certificate.
func New(o Options) (*Server, error) {
	if err := o.ensureCertificate(); err != nil {
		return nil, err
	}
	if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
		return nil, fmt.Errorf("read the serving certificate (--tls-cert-file %s, --tls-private-key-file %s): %w", o.CertFile, o.KeyFile, err)
	}
	s := &Server{options: o, listener: o.Listener}
	if s.listener == nil {
		var err error
		address := net.JoinHostPort(o.BindAddress.String(), strconv.Itoa(o.Port))
		if s.listener, err = net.Listen("tcp", address); err != nil {
			return nil, fmt.Errorf("listen on %s (--bind-address, --secure-port): %w", address, err)
		}
	}
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// CertFile is the certificate served, for clients to trust if it is self-signed.
func (s *Server) CertFile() string { return s.options.CertFile }

// NeedLeaderElection tells controller-runtime that every replica serves.
func (s *Server) NeedLeaderElection() bool { return false }

var errNotReady = errors.New("not serving")

// Ready is a healthz.Checker: nil while new requests are welcome.
func (s *Server) Ready(*http.Request) error {
	if !s.started.Load() || s.drain.Load() {
		return errNotReady
	}
	return nil
}

// Start serves until ctx ends and then until requests in flight are done or
// DrainTimeout is over. It waits for all that it started.
func (s *Server) Start(ctx context.Context) error {
	helpers, stopHelpers := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopHelpers()
	tlsConfig, err := s.tlsConfig(helpers, &wg)
	if err != nil {
		s.listener.Close()
		return err
	}
	requests, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	srv := s.httpServer(requests, tlsConfig)
	failed := make(chan error, 1)
	wg.Go(func() {
		crowd := newCrowd(s.options.mostConnections(), s.options.Log)
		failed <- srv.ServeTLS(gathering{s.listener, crowd, newDebts(s.options.Delayed)}, "", "")
	})
	s.started.Store(true)
	s.options.Log.Info("serving", "address", s.Addr().String(), "certificate", s.options.CertFile)

	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	s.end(requests, srv, abort)
	return nil
}

// end drains. The order matters: first whoever routes to us must stop, then the
// requests that would never end, then the rest, and at last by force.
func (s *Server) end(requests context.Context, srv *http.Server, abort context.CancelFunc) {
	s.drain.Store(true)
	s.options.Log.Info("draining", "delay", s.options.DrainDelay, "timeout", s.options.DrainTimeout)
	<-time.After(s.options.DrainDelay)
	s.refuse.Store(true)
	done := make(chan struct{})
	go func() { s.inFlight.Wait(); close(done) }()
	if s.options.EndWatches != nil {
		s.options.EndWatches()
	}
	ctx, cancel := context.WithTimeout(requests, s.options.DrainTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		s.options.Log.Info("ending requests that outlast the drain timeout")
	}
	select {
	case <-done: // upgraded connections too, which http.Server does not count
	case <-ctx.Done():
	}
	abort()
	srv.Close()
	<-done
}

func (s *Server) httpServer(requests context.Context, c *tls.Config) *http.Server {
	streams := s.options.MaxStreams
	if streams == 0 {
		streams = 250
	}
	srv := &http.Server{
		Handler:   counting(&pipeline.Server{Handler: pipeline.HandlerFunc(s.admit), Log: s.options.Log}),
		TLSConfig: c,
		// The values of kube-apiserver (k8s.io/apiserver/pkg/server/secure_serving.go).
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    http.DefaultMaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: streams,
			MaxReadFrameSize:     receiveBuffer,
			// A quarter of kube-apiserver's: what is buffered here for requests that
			// wait is not its memory.
			MaxReceiveBufferPerStream:     receiveBuffer,
			MaxReceiveBufferPerConnection: receiveBuffer * streams,
		},
		BaseContext: func(net.Listener) context.Context { return requests },
		ConnContext: withDebtor,
		ErrorLog:    log.New(tlsErrors{s.options.Log}, "", 0),
	}
	if s.options.OwnHTTP2 {
		h2.Configure(srv, h2.Options{Quick: s.options.Quick})
	}
	return srv
}

// receiveBuffer is how much of a request's body may arrive before somebody reads
// it, in bytes.
const receiveBuffer = 64 << 10

// errDraining sends a client elsewhere, or here again once we are back.
var errDraining = &apierrors.StatusError{ErrStatus: metav1.Status{
	Status:  metav1.StatusFailure,
	Code:    http.StatusServiceUnavailable,
	Reason:  metav1.StatusReasonServiceUnavailable,
	Message: "the proxy is shutting down",
	Details: &metav1.StatusDetails{RetryAfterSeconds: 1},
}}

// admit counts requests in flight and refuses those that arrive on old
// connections while draining.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) error {
	if s.refuse.Load() || s.inFlight.Add(1) != nil {
		w.Header().Set("Connection", "close")
		return errDraining
	}
	defer s.inFlight.Done()
	return s.options.Handler.ServeHTTP(w, r)
}

// tlsErrors passes what http.Server says (mostly of clients that hang up during
// the handshake) to the log of those who ask for detail.
type tlsErrors struct{ log logr.Logger }

func (e tlsErrors) Write(p []byte) (int, error) {
	e.log.V(2).Info("connection error", "detail", string(p))
	return len(p), nil
}

var (
	_ manager.Runnable               = (*Server)(nil)
	_ manager.LeaderElectionRunnable = (*Server)(nil)
)

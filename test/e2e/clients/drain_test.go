package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-proxy/portico/test/proxy"
)

// protocols are what a client may offer in the TLS handshake.
var protocols = map[string][]string{"http1": {"http/1.1"}, "http2": {"h2"}}

// speaking is a client configuration for one protocol.
func speaking(config *rest.Config, offer []string) *rest.Config {
	config = rest.CopyConfig(config)
	config.NextProtos = offer
	return config
}

// TestDrainEndsWatchesBetweenFrames stops the proxy while watches are busy. To
// their clients this looks as if their time was over.
func TestDrainEndsWatchesBetweenFrames(t *testing.T) {
	ns := addNamespace(t)
	startChurn(t, clientset(t, world.Config()), ns)
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, flags...)
			if name == "memory" {
				rememberConfigMaps(t, p)
			}
			watches := map[string]*watch{}
			for protocol, offer := range protocols {
				for media, check := range map[string]func([]byte) error{
					"application/json": wholeLines, "application/vnd.kubernetes.protobuf": wholeFrames,
				} {
					watches[protocol+" "+media] = startWatch(t, speaking(through(p), offer), ns, media, check)
				}
			}
			for _, w := range watches {
				<-w.busy
			}
			expectMemory(t, p, name)
			p.Signal(syscall.SIGTERM)
			for name, w := range watches {
				if err := <-w.ended; err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			<-p.Exited()
		})
	}
}

// rememberConfigMaps asks until they are in memory, in both formats.
func rememberConfigMaps(t *testing.T, p *proxy.Proxy) {
	t.Helper()
	for _, format := range []string{"json", "protobuf"} {
		config := through(p)
		config.ContentType = "application/" + strings.Replace(format, "protobuf", "vnd.kubernetes.protobuf", 1)
		maps := clientset(t, config).CoreV1().ConfigMaps("")
		eventually(t, "ConfigMaps in memory", func(ctx context.Context) bool {
			_, err := maps.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
			return err == nil && p.Gauge(`portico_watch_cache_answers_total\{format="`+format+`",group="",resource="configmaps",served_by="cache",version="v1"\}`) > 0
		})
	}
}

// watch is a watch that is being read.
type watch struct {
	busy  chan struct{} // closed when some events have come
	ended chan error    // what is wrong with it when it is over
}

func startWatch(t *testing.T, config *rest.Config, ns, media string, check func([]byte) error) *watch {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+"/api/v1/namespaces/"+ns+"/configmaps?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", media)
	if media != "application/json" {
		r.Header.Set("Accept", media+";stream=watch")
	}
	res, err := httpClient(t, config).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{busy: make(chan struct{}), ended: make(chan error, 1)}
	go func() {
		defer res.Body.Close()
		var seen bytes.Buffer
		if _, err := io.CopyN(&seen, res.Body, 200_000); err != nil {
			w.ended <- fmt.Errorf("ended after %d bytes: %w", seen.Len(), err)
			close(w.busy)
			return
		}
		close(w.busy)
		if _, err := io.Copy(&seen, res.Body); err != nil {
			w.ended <- err
			return
		}
		w.ended <- check(seen.Bytes())
	}()
	return w
}

// wholeLines checks that a stream is of JSON events and ends with one.
func wholeLines(stream []byte) error {
	if !bytes.HasSuffix(stream, []byte("\n")) {
		return errors.New("the last line has no end")
	}
	for lines := bufio.NewReader(bytes.NewReader(stream)); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil
		}
		var event metav1.WatchEvent
		if err := json.Unmarshal(line, &event); err != nil || event.Type == "ERROR" {
			return fmt.Errorf("event %.100q: %w", line, err)
		}
	}
}

// wholeFrames checks that a stream is of events behind four bytes of length.
func wholeFrames(stream []byte) error {
	for len(stream) > 0 {
		if len(stream) < 4 {
			return fmt.Errorf("%d bytes of a length", len(stream))
		}
		size := int(binary.BigEndian.Uint32(stream))
		if stream = stream[4:]; len(stream) < size {
			return fmt.Errorf("%d bytes of a frame of %d", len(stream), size)
		}
		stream = stream[size:]
	}
	return nil
}

// TestDrainFinishesWhatIsInFlight stops the proxy while a request is being sent.
// New ones are refused; this one is answered.
func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	ns := addNamespace(t)
	for protocol, offer := range protocols {
		t.Run(protocol, func(t *testing.T) {
			p := newProxy(t)
			config := speaking(through(p), offer)
			slow := startSlow(t, p, config, ns, protocol)
			p.Signal(syscall.SIGTERM)
			for _, client := range []*rest.Config{config, speaking(through(p), nil)} {
				awaitRefusal(t, client, ns)
			}
			slow.finish()
			if answer := <-slow.answer; answer != "201 Created" {
				t.Errorf("the request in flight got %s", answer)
			}
			<-p.Exited()
		})
	}
}

// TestDrainIsBounded stops the proxy while a request is being sent that never
// will be.
func TestDrainIsBounded(t *testing.T) {
	ns := addNamespace(t)
	p := newProxy(t, "--shutdown-timeout=1s")
	slow := startSlow(t, p, through(p), ns, "never")
	p.Signal(syscall.SIGTERM)
	<-p.Exited()
	if answer := <-slow.answer; !strings.HasPrefix(answer, "error") && !strings.HasPrefix(answer, "503") {
		t.Errorf("the request in flight got %s", answer)
	}
}

// slowRequest creates a ConfigMap and takes its time.
type slowRequest struct {
	finish func()
	answer chan string // its status, or an error
}

// startSlow returns when half of the request has been sent and the proxy is
// busy with it.
func startSlow(t *testing.T, p *proxy.Proxy, config *rest.Config, ns, name string) *slowRequest {
	t.Helper()
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q}}`, name)
	body, write := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, config.Host+"/api/v1/namespaces/"+ns+"/configmaps", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	client := httpClient(t, config)
	s := &slowRequest{answer: make(chan string, 1)}
	var rest sync.Once
	s.finish = func() {
		rest.Do(func() {
			_, _ = io.WriteString(write, text[10:])
			_ = write.Close()
		})
	}
	t.Cleanup(s.finish)
	go func() {
		res, err := client.Do(r)
		if err != nil {
			s.answer <- "error " + err.Error()
			return
		}
		defer res.Body.Close()
		s.answer <- res.Status
	}()
	if _, err := io.WriteString(write, text[:10]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request to be in flight", func(context.Context) bool { return p.Gauge("portico_current_inflight_requests") == 1 })
	return s
}

// awaitRefusal asks until it is refused: with a 503 that says when to come
// back, or because nobody listens. Until then it must be served.
func awaitRefusal(t *testing.T, config *rest.Config, ns string) {
	t.Helper()
	client := httpClient(t, config)
	eventually(t, "a refusal", func(ctx context.Context) bool {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/api/v1/namespaces/"+ns, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(r)
		if err != nil {
			// A reset is the kernel's word to those who had connected when the
			// server stopped to listen; a request may cross the end of a
			// connection that was idle.
			if !isGone(err) {
				t.Errorf("refused with %v", err)
			}
			return true
		}
		defer res.Body.Close()
		refused := res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != ""
		if !refused && res.StatusCode != http.StatusOK {
			t.Errorf("got %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
		}
		return refused
	})
}

// isGone reports errors of a connection whose server ends.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// TestInformersOutliveTheProxy drains the proxy below an informer and starts it
// again. The informer sees no broken event, and in the end has everything.
func TestInformersOutliveTheProxy(t *testing.T) {
	ns := addNamespace(t)
	client := clientset(t, world.Config())
	churn := startChurn(t, client, ns)
	p := newProxy(t)
	factory := informers.NewSharedInformerFactoryWithOptions(clientset(t, through(p)), 0, informers.WithNamespace(ns))
	informer := factory.Core().V1().ConfigMaps().Informer()
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if !isGone(err) {
			t.Errorf("the informer complains: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer stop()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	churn.more(50)
	p.Stop()
	churn.more(50)
	p.Start()
	churn.end(t)
	eventually(t, "the last change", func(context.Context) bool {
		_, exists, err := informer.GetStore().GetByKey(ns + "/" + last)
		return exists && err == nil
	})
	got, err := versions(informer.GetStore().List())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(listed(t, client, ns, ""), got); diff != "" {
		t.Errorf("store differs from a list (-list +store):\n%s", diff)
	}
}

package upstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/pipeline"
	"github.com/portico-proxy/portico/core/view"
)

// piped is a watch whose events the test writes one by one.
func piped(t *testing.T, contentType string) (*watchBody, *io.PipeWriter, context.CancelFunc) {
	t.Helper()
	ctx, drain := context.WithCancel(t.Context())
	u := &Upstream{drain: ctx}
	r, w := io.Pipe()
	res := &http.Response{Header: http.Header{"Content-Type": {contentType}}, Body: r, Request: httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)}
	u.watchCleanly(res)
	return res.Body.(*watchBody), w, drain
}

func TestDrainingEndsAnIdleWatch(t *testing.T) {
	body, _, drain := piped(t, "application/json")
	done := make(chan error, 1)
	go func() { _, err := io.ReadAll(body); done <- err }()
	drain()
	if err := <-done; err != nil {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestDrainingLetsAFrameBeCompleted(t *testing.T) {
	frame := binary.BigEndian.AppendUint32(nil, 5)
	frame = append(frame, "event"...)
	tests := map[string]struct{ contentType, frame string }{
		"json":     {"application/json", `{"type":"ADDED"}` + "\n"},
		"protobuf": {"application/vnd.kubernetes.protobuf;stream=watch", string(frame)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			body, w, drain := piped(t, tt.contentType)
			var got bytes.Buffer
			done := make(chan error, 1)
			begun := make(chan struct{})
			go func() {
				first := make([]byte, 3)
				_, err := io.ReadFull(body, first)
				got.Write(first)
				close(begun)
				_, rest := got.ReadFrom(body)
				done <- errors.Join(err, rest)
			}()
			if _, err := io.WriteString(w, tt.frame[:3]); err != nil {
				t.Fatal(err)
			}
			<-begun
			drain()
			if _, err := io.WriteString(w, tt.frame[3:]); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("the watch ended with %v", err)
			}
			if got.String() != tt.frame {
				t.Errorf("the watcher got %q", got.String())
			}
		})
	}
}

func TestUpstreamsErrorIsNotTakenForTheEnd(t *testing.T) {
	body, w, _ := piped(t, "application/json")
	broken := errors.New("reset")
	go w.CloseWithError(broken)
	if _, err := io.ReadAll(body); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// FuzzFrames holds the two splitters to what they are for: whatever way a
// stream of whole frames is cut, it is complete at its end and not before.
func FuzzFrames(f *testing.F) {
	f.Add("event", uint8(1))
	f.Add("", uint8(3))
	f.Fuzz(func(t *testing.T, event string, cut uint8) {
		framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...)
		feed(t, &lengthPrefixed{}, framed, int(cut))
		line := strings.ReplaceAll(event, "\n", " ") + "\n"
		feed(t, &lines{ended: true}, []byte(line), int(cut))
	})
}

func feed(t *testing.T, f frames, stream []byte, cut int) {
	t.Helper()
	for len(stream) > 0 {
		n := min(cut+1, len(stream))
		f.observe(stream[:n])
		stream = stream[n:]
		if f.complete() != (len(stream) == 0) {
			t.Fatalf("%T: complete is %v with %d bytes to come", f, f.complete(), len(stream))
		}
	}
}

// TestWatchThatShowsTooMuchEndsWithItsReason has a watch end after the frame that it
// is in, in whatever format it is.
func TestWatchThatShowsTooMuchEndsWithItsReason(t *testing.T) {
	frame := append(binary.BigEndian.AppendUint32(nil, 5), "event"...)
	for contentType, frame := range map[string]string{
		"application/json": `{"type":"ADDED"}` + "\n", "application/vnd.kubernetes.protobuf;stream=watch": string(frame), "application/cbor-seq": "what",
	} {
		ctx, end := view.WithEnd(t.Context())
		r, w := io.Pipe()
		res := &http.Response{Header: http.Header{"Content-Type": {contentType}}, Body: r, Request: httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)}
		(&Upstream{drain: t.Context()}).watchCleanly(res)
		got := make(chan string)
		go func() {
			all, err := io.ReadAll(res.Body)
			if err != nil {
				t.Error(err)
			}
			got <- string(all)
		}()
		if _, err := io.WriteString(w, frame); err != nil {
			t.Fatal(err)
		}
		end()
		want := frame + string(lastEvent(res.Header))
		if all := <-got; all != want || strings.Contains(all, "Expired") != (contentType != "application/cbor-seq") {
			t.Errorf("%s: got %q, want %q", contentType, all, want)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// zipping is an API server that compresses a watch for whoever takes that.
func zipping(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	var packed *gzip.Writer
	out := io.Writer(w)
	if r.Header.Get("Accept-Encoding") == "gzip" {
		w.Header().Set("Content-Encoding", "gzip")
		packed = gzip.NewWriter(w)
		out = packed
	}
	_, _ = io.WriteString(out, `{"type":"ADDED"}`+"\n")
	if packed != nil {
		_ = packed.Flush()
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// TestWatchOfWhoTakesGzipEndsWithItsReason has a watch end that could have been
// compressed.
func TestWatchOfWhoTakesGzipEndsWithItsReason(t *testing.T) {
	u, _ := before(t, configOf(origin(t, zipping)))
	ends := make(chan func(), 1)
	proxy := httptest.NewServer(&pipeline.Server{Log: logr.Discard(), Handler: pipeline.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		ctx, end := view.WithEnd(r.Context())
		ends <- end
		return u.ServeHTTP(w, r.WithContext(ctx))
	})})
	defer proxy.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL+"/api/v1/pods?watch=1&sendInitialEvents=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	(<-ends)()
	rest, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"ADDED"}` + "\n" + string(lastEvent(res.Header))
	if got := string(first) + string(rest); got != want || !strings.Contains(got, "Expired") {
		t.Errorf("got %q, want %q", got, want)
	}
}

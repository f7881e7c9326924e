package tiers

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// sent is the annotation that says when a change was sent off, in Unix nanoseconds.
const sent = "example.org/sent"

// reader does what an informer of Services does, at a tenth of what client-go's takes:
// hundreds of those would be all that the machine does.
type reader struct {
	client *http.Client
	url    string

	mu       sync.Mutex // guards following
	have     map[string]string
	rv       string // where to go on; empty to begin anew
	synced   bool
	begun    int // how often it began anew
	since    time.Time
	delivery []time.Duration // of what was sent since
}

// read starts a reader until the function that is returned is called.
func read(t *testing.T, cfg *rest.Config) (r *reader, stop func()) {
	t.Helper()
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r = &reader{client: c, url: cfg.Host + "/api/v1/services", have: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			r.follow(ctx)
			pause(ctx)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended; c.CloseIdleConnections() })
	t.Cleanup(stop)
	return r, stop
}

// pause is what a client takes whose watch has ended.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

// change is a watch event.
type change struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			Namespace       string            `json:"namespace"`
			Name            string            `json:"name"`
			ResourceVersion string            `json:"resourceVersion"`
			Annotations     map[string]string `json:"annotations"`
		} `json:"metadata"`
		Code int `json:"code"` // of a Status
	} `json:"object"`
}

// follow reads one watch to its end.
func (r *reader) follow(ctx context.Context) {
	body, err := r.open(ctx)
	if err != nil {
		return
	}
	defer func() { _ = body.Close() }()
	for in := json.NewDecoder(body); ; {
		var e change
		if err := in.Decode(&e); err != nil {
			return
		}
		r.take(&e, time.Now())
	}
}

func (r *reader) open(ctx context.Context) (io.ReadCloser, error) {
	r.mu.Lock()
	query := "?watch=true&allowWatchBookmarks=true&resourceVersion=" + r.rv
	if r.rv == "" {
		query += "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
		r.have, r.synced = map[string]string{}, false
		r.begun++
	}
	r.mu.Unlock()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+query, nil)
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", "application/json")
	res, err := r.client.Do(q)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		r.forget(res.StatusCode)
		return nil, http.ErrNotSupported
	}
	return res.Body, nil
}

// forget begins anew where the server no longer knows what was.
func (r *reader) forget(code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if code == http.StatusGone || code == http.StatusGatewayTimeout || !r.synced {
		r.rv = ""
	}
}

func (r *reader) take(e *change, now time.Time) {
	if e.Type == "ERROR" {
		r.forget(e.Object.Code)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &e.Object.Metadata
	key := m.Namespace + "/" + m.Name
	switch e.Type {
	case "ADDED", "MODIFIED":
		r.have[key] = m.ResourceVersion
	case "DELETED":
		delete(r.have, key)
	case "BOOKMARK":
		r.synced = r.synced || m.Annotations["k8s.io/initial-events-end"] == "true"
	}
	if !r.synced {
		return
	}
	r.rv = m.ResourceVersion
	if nanos, err := strconv.ParseInt(m.Annotations[sent], 10, 64); err == nil && !r.since.IsZero() && nanos >= r.since.UnixNano() {
		r.delivery = append(r.delivery, now.Sub(time.Unix(0, nanos)))
	}
}

// has reports whether r has everything that all is.
func (r *reader) has(all map[string]string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.synced && maps.Equal(r.have, all)
}

// measure forgets what was measured and measures what is sent from now on.
func (r *reader) measure() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.delivery = time.Now(), nil
}

// measured are all deliveries to readers since they were told to measure, in order.
func measured(all []*reader) (d []time.Duration) {
	for _, r := range all {
		r.mu.Lock()
		d = append(d, r.delivery...)
		r.mu.Unlock()
	}
	slices.Sort(d)
	return d
}

// part is what the given part of durations in order does not exceed.
func part(d []time.Duration, of float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(of*float64(len(d))), len(d)-1)].Round(10 * time.Microsecond)
}

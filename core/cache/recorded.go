package cache

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
)

const (
	// maxRecorded bounds a coalesced answer, in bytes; a collection may have grown
	// since it was found to be small.
	maxRecorded = 16 * smallCollection
	// maxRecordings bounds all of them together, in bytes, for as long as anybody is
	// being sent one. They are not taken out of the memory budget: who asks for many
	// different lists, and reads slowly, would have collections go.
	maxRecordings = 8 * maxRecorded
)

// recorded is an answer of upstream's that several callers get.
type recorded struct {
	header http.Header
	body   []byte
	taken  int64 // of what all may take, in bytes

	once sync.Once // guards what is read of body
	list *listing
	err  error
}

// recording writes an answer down while there is room.
type recording struct {
	*recorded
	room *stream.Budget
}

// Write takes as much room as append does.
func (r *recording) Write(p []byte) (int, error) {
	need := int64(len(r.body) + len(p))
	if need > maxRecorded {
		return 0, stream.ErrOverBudget
	}
	if more := max(need, 2*r.taken) - r.taken; need > r.taken {
		r.taken += more
		if !r.room.Add(more) {
			return 0, stream.ErrOverBudget
		}
	}
	r.body = append(r.body, p...)
	return len(p), nil
}

// shared fetches an answer. Only equal requests share a flight. The caller calls done
// when it has done with what it got.
func (e *entry) shared(ctx context.Context, path string, query url.Values, accept string) (got *recorded, done func(), err error) {
	key := accept + " " + path + "?" + query.Encode()
	shared, ok := e.flights.Load(key)
	if !ok {
		flights := &stream.Flights[*recorded]{Free: func(r *recorded) { e.recordings.Add(-r.taken) }}
		flights.Idle = func() { e.flights.CompareAndDelete(key, flights) }
		shared, _ = e.flights.LoadOrStore(key, flights)
	}
	return shared.(*stream.Flights[*recorded]).Hold(ctx, func() (*recorded, error) {
		res, err := e.Fetch(path, query, accept)
		if err != nil {
			return nil, err
		}
		defer func() { _ = res.Body.Close() }()
		r := &recorded{header: res.Header}
		if _, err := io.Copy(&recording{r, e.recordings}, res.Body); err != nil {
			e.recordings.Add(-r.taken)
			return nil, err
		}
		return r, nil
	})
}

// land waits for what is on its way.
func (e *entry) land() {
	e.flights.Range(func(_, f any) bool {
		f.(*stream.Flights[*recorded]).End()
		return true
	})
}

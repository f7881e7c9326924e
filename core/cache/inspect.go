package cache

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A StreamInfo says how a collection in memory is doing.
type StreamInfo struct {
	Resource schema.GroupVersionResource `json:"resource"`
	Format   string                      `json:"format"`
	// Scope is the part of the collection that is kept, as a field selector;
	// nothing is the whole.
	Scope string `json:"scope,omitempty"`
	// Loaded says that there is something to answer from; without it the
	// numbers below are 0.
	Loaded          bool   `json:"loaded"`
	ResourceVersion uint64 `json:"resourceVersion"`
	Oldest          uint64 `json:"oldest"` // that can still be listed at and watched from
	Objects         int    `json:"objects"`
	Bytes           int64  `json:"bytes"`
	Events          int    `json:"events"` // in the history
	EventBytes      int64  `json:"eventBytes"`
	// Readers are requests under way.
	Readers int `json:"readers"`
	// Watchers are the watches among them.
	Watchers int `json:"watchers"`
	// Saved is how many requests the API server would have had more without
	// this collection, since the proxy began.
	Saved int64 `json:"saved"`
	// Asking are requests that wait to learn what the newest state is.
	Asking int `json:"asking"`
	// Age is how long ago upstream last proved the collection current.
	Age time.Duration `json:"age"`
}

// Streams describes the collections in memory, in the order of their names.
func (c *Cache) Streams() []StreamInfo {
	c.streams.mu.Lock()
	defer c.streams.mu.Unlock()
	infos := make([]StreamInfo, 0, len(c.streams.open))
	for k, e := range c.streams.open {
		infos = append(infos, describe(k, e))
	}
	slices.SortFunc(infos, func(a, b StreamInfo) int {
		return cmp.Or(cmp.Compare(a.Resource.String(), b.Resource.String()), cmp.Compare(a.Format, b.Format), cmp.Compare(a.Scope, b.Scope))
	})
	return infos
}

func describe(k streamKey, e *entry) StreamInfo {
	info := StreamInfo{Resource: k.gvr, Format: k.format.String(), Scope: k.scope.String(), Readers: int(e.users.Load()), Asking: e.Asking()}
	info.Watchers, info.Saved = int(e.watchers.Load()), e.counts.saved()
	st := e.State()
	if st == nil {
		return info
	}
	info.Loaded, info.Age = true, e.Age()
	info.ResourceVersion, info.Oldest, info.Objects, info.Events = st.Applied, st.Oldest, st.Len(), st.Events()
	info.Bytes, info.EventBytes = st.Bytes()
	return info
}

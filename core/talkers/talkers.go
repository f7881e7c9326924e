// Package talkers keeps account of who asks for what, and what that costs.
package talkers

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// slot is how long requests are counted together: what is observed changes
	// no more often.
	slot = 10 * time.Second
	// slots are counted apart, so that there is always a whole minute besides the
	// one that goes on.
	slots = 7
	// maxRows bounds the callers and resources that are told apart; who has asked
	// for nothing for the longest time is forgotten.
	maxRows = 5000
	// maxAgent is how much of a user agent is kept, maxName of the name of a group,
	// a resource, a namespace or an object, and maxUser of a user's, in bytes. Those
	// that there are are hardly longer; anybody may ask for others.
	maxAgent = 128
	maxName  = 253
	maxUser  = 512
)

// Counts are what a caller has done to a resource.
type Counts struct {
	Requests int64 `json:"requests"`
	// Lists are all, QuorumLists those of a whole resource at its newest version,
	// InitialReads those that begin anew, be it by list or by watch.
	Lists        int64 `json:"lists"`
	QuorumLists  int64 `json:"quorumLists"`
	InitialReads int64 `json:"initialReads"`
	ListBytes    int64 `json:"listBytes"`
	// SlowReads are gets and lists that took longer than ten seconds.
	SlowReads int64 `json:"slowReads"`
	// ShortWatches are those that lasted less than five seconds.
	WatchStarts  int64 `json:"watchStarts"`
	ShortWatches int64 `json:"shortWatches"`
	Writes       int64 `json:"writes"`
	// NoopWrites changed nothing, Conflicts lost to another write.
	NoopWrites int64 `json:"noopWrites"`
	Conflicts  int64 `json:"conflicts"`
	// Expired are reads of what is too old or too new, Throttled those that were
	// answered 429, and Errors all other answers of 400 and more.
	Expired   int64 `json:"expired"`
	Throttled int64 `json:"throttled"`
	Errors    int64 `json:"errors"`
}

func (c *Counts) add(o *Counts) {
	c.Requests += o.Requests
	c.Lists += o.Lists
	c.QuorumLists += o.QuorumLists
	c.InitialReads += o.InitialReads
	c.ListBytes += o.ListBytes
	c.SlowReads += o.SlowReads
	c.WatchStarts += o.WatchStarts
	c.ShortWatches += o.ShortWatches
	c.Writes += o.Writes
	c.NoopWrites += o.NoopWrites
	c.Conflicts += o.Conflicts
	c.Expired += o.Expired
	c.Throttled += o.Throttled
	c.Errors += o.Errors
}

// Who tells rows of the account apart.
type Who struct {
	// User is empty where nobody had to know who is calling.
	User            string
	Group, Resource string
	// Agent stands in for a user who is not known, and is empty otherwise.
	Agent string
}

// cut is as much of w as is kept.
func (w Who) cut() Who {
	return Who{User: cut(w.User, maxUser), Group: cut(w.Group, maxName), Resource: cut(w.Resource, maxName), Agent: cut(w.Agent, maxAgent)}
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

// row is what one caller has done to one resource.
type row struct {
	who    Who
	place  *list.Element
	agent  string // the last
	total  Counts
	recent [slots]Counts
	number [slots]int64 // of the slot that recent counts
}

// An Account counts what callers do.
type Account struct {
	start time.Time

	mu    sync.Mutex // guards following, and rows
	rows  map[Who]*row
	order *list.List // of rows; the last used first

	sizes    recently[collection, Size]
	versions recently[object, uint64]
}

// New returns an account of nothing.
func New() *Account {
	return &Account{start: time.Now(), rows: map[Who]*row{}, order: list.New()}
}

func (a *Account) slot() int64 { return int64(time.Since(a.start) / slot) }

// Add counts what a caller has done, who calls itself agent.
func (a *Account) Add(who Who, agent string, c Counts) {
	who = who.cut()
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.row(who)
	if agent != r.agent {
		r.agent = strings.Clone(cut(agent, maxAgent))
	}
	now := a.slot()
	if i := now % slots; r.number[i] != now {
		r.number[i], r.recent[i] = now, c
	} else {
		r.recent[i].add(&c)
	}
	r.total.add(&c)
}

func (a *Account) row(who Who) *row {
	if r, ok := a.rows[who]; ok {
		a.order.MoveToFront(r.place)
		return r
	}
	if len(a.rows) >= maxRows {
		last := a.order.Remove(a.order.Back()).(*row)
		delete(a.rows, last.who)
	}
	// They are parts of a request, which they would keep alive.
	who = Who{strings.Clone(who.User), strings.Clone(who.Group), strings.Clone(who.Resource), strings.Clone(who.Agent)}
	r := &row{who: who}
	for i := range r.number {
		r.number[i] = -1
	}
	r.place = a.order.PushFront(r)
	a.rows[who] = r
	return r
}

// Observed is what a caller did to a resource in the last minute, as far as that
// has been counted up: it changes every ten seconds at most.
func (a *Account) Observed(user, group, resource string) Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.rows[Who{User: user, Group: group, Resource: resource}.cut()]
	if !ok {
		return Counts{}
	}
	now := a.slot()
	return r.sum(now-slots+1, now-1)
}

// sum adds up the slots from one to another, both included.
func (r *row) sum(from, to int64) (sum Counts) {
	for i, number := range r.number {
		if number >= max(from, 0) && number <= to {
			sum.add(&r.recent[i])
		}
	}
	return sum
}

// A Talker is one row of the account, as it is shown.
type Talker struct {
	User     string `json:"user"`
	Agent    string `json:"agent"`
	Group    string `json:"group"`
	Resource string `json:"resource"`
	// Minute is the last one, Total all since the proxy began.
	Minute Counts `json:"minute"`
	Total  Counts `json:"total"`
}

// Talkers are all rows, those first that cost most in the last minute, and of
// equals those that have cost most at all.
func (a *Account) Talkers() []Talker {
	a.mu.Lock()
	all := make([]Talker, 0, len(a.rows))
	now := a.slot()
	for who, r := range a.rows {
		all = append(all, Talker{User: who.User, Agent: r.agent, Group: who.Group, Resource: who.Resource, Minute: r.sum(now-slots+1, now), Total: r.total})
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y Talker) int {
		return cmp.Or(
			cmp.Compare(y.Minute.cost(), x.Minute.cost()), cmp.Compare(y.Total.cost(), x.Total.cost()),
			cmp.Compare(x.User, y.User), cmp.Compare(x.Agent, y.Agent), cmp.Compare(x.Group, y.Group), cmp.Compare(x.Resource, y.Resource),
		)
	})
	return all
}

// cost weighs requests and bytes as API Priority and Fairness does: a request is
// a seat, and so are 100000 bytes of a list.
func (c *Counts) cost() int64 { return c.Requests + c.ListBytes/BytesPerSeat }

// BytesPerSeat is how much of a list one seat stands for in kube-apiserver
// (k8s.io/apiserver/pkg/util/flowcontrol/request).
const BytesPerSeat = 100_000

package noderestriction

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/core/body"
	"github.com/portico-proxy/portico/core/config"
	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
)

const (
	// maxNodes bounds how many nodes are followed, and idleNode is how long one is
	// that nobody asks about.
	maxNodes = 5000
	idleNode = 10 * time.Minute
)

// An Observer is told what a policy decided, and how long that took.
type Observer func(policy string, mode v1alpha1.FilterMode, decision string, took time.Duration)

// Options says what policies are kept with.
type Options struct {
	// Client reads nodes and their pods under the proxy's own identity.
	Client kubernetes.Interface
	// Node is the one that the proxy runs on; empty if it stands before many.
	Node    string
	Observe Observer
	// Rooms is where objects are judged. Nil makes some.
	Rooms *body.Rooms
	Log   logr.Logger
}

// Library knows nodes and their pods. It outlives every configuration.
type Library struct {
	options Options

	mu      sync.Mutex // guards following
	ctx     context.Context
	running sync.WaitGroup
	rules   []*rule
	nodes   map[string]*node
	watches map[*openWatch]bool
}

// NewLibrary returns a library that knows no node.
func NewLibrary(o Options) *Library {
	if o.Observe == nil {
		o.Observe = func(string, v1alpha1.FilterMode, string, time.Duration) {}
	}
	if o.Rooms == nil {
		o.Rooms = body.NewRooms()
	}
	return &Library{options: o, nodes: map[string]*node{}, watches: map[*openWatch]bool{}}
}

// Start follows nodes that are asked about until ctx ends.
func (l *Library) Start(ctx context.Context) error {
	l.mu.Lock()
	l.ctx = ctx
	l.mu.Unlock()
	tick := time.NewTicker(idleNode / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.forgetIdle()
		case <-ctx.Done():
			l.mu.Lock() // whoever had it before has begun what he would
			l.mu.Unlock()
			l.running.Wait()
			return nil
		}
	}
}

// NeedLeaderElection tells controller-runtime that every replica follows.
func (l *Library) NeedLeaderElection() bool { return false }

// Compile returns the filter that does what a snapshot asks for, and what is to be
// said of its policies. Watches whose callers may see otherwise from now on end.
func (l *Library) Compile(s *config.Snapshot) (*Filter, config.Findings) {
	found := config.Findings{}
	if l == nil {
		return &Filter{rules: rulesOf(s, nil, found)}, found
	}
	l.mu.Lock()
	rules := rulesOf(s, l.rules, found)
	l.rules = rules
	l.mu.Unlock()
	l.judgeWatches(nil)
	return &Filter{library: l, rules: rules}, found
}

var (
	errTooMany = errors.New("too many nodes are followed")
	errStopped = errors.New("the proxy is shutting down")
)

// node returns what is known of a node, and begins to follow it.
func (l *Library) node(name string) (*node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[name]
	switch {
	case n != nil:
	case l.ctx == nil || l.ctx.Err() != nil:
		return nil, errStopped
	case len(l.nodes) >= maxNodes:
		return nil, errTooMany
	default:
		n = newNode(name, l.options.Client, func() { l.judgeWatches(l.known(name)) })
		var ctx context.Context
		ctx, n.end = context.WithCancel(l.ctx)
		n.run = func(follow func(context.Context)) { l.running.Go(func() { follow(ctx) }) }
		n.run(n.followSelf)
		l.nodes[name] = n
	}
	n.used.Store(time.Now().UnixNano())
	return n, nil
}

// known returns a node if it is followed.
func (l *Library) known(name string) *node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[name]
}

// load follows the pods of a node as well.
func (l *Library) load(n *node) {
	n.onceFollowed.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ctx.Err() == nil {
			n.run(n.followPods)
		}
	})
}

// forgetIdle ends following nodes that nobody asks about.
func (l *Library) forgetIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range l.nodes {
		watched := false
		for w := range l.watches {
			watched = watched || w.node == n
		}
		if !watched && time.Since(time.Unix(0, n.used.Load())) > idleNode {
			n.end()
			delete(l.nodes, name)
		}
	}
}

// An openWatch is a watch of a node's caller. It ends, or its view is another, when
// what its caller may see changes.
type openWatch struct {
	question
	key   string // of what it was let pass with
	views []chan struct{}
	end   func() // if there are no views
}

// enter takes note of a watch. The caller calls leave when it is over.
func (l *Library) enter(w *openWatch) (leave func()) {
	l.mu.Lock()
	l.watches[w] = true
	l.mu.Unlock()
	l.judge(w) // what has changed in between was told to nobody
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watches, w)
	}
}

// judgeWatches judges the open watches of a node's callers again, or all of them.
func (l *Library) judgeWatches(of *node) {
	l.mu.Lock()
	var all []*openWatch
	for w := range l.watches {
		if of == nil || w.node == of {
			all = append(all, w)
		}
	}
	l.mu.Unlock()
	for _, w := range all {
		l.judge(w)
	}
}

// judge ends a watch that would be let pass otherwise now, or not at all.
func (l *Library) judge(w *openWatch) {
	l.mu.Lock()
	rules := l.rules
	l.mu.Unlock()
	if l.keyOf(&w.question, rules) == w.key {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.watches[w] {
		return
	}
	delete(l.watches, w)
	for _, changed := range w.views {
		close(changed)
	}
	if len(w.views) == 0 {
		w.end()
	}
}

// keyOf is equal for the same question as long as it gets the same answer.
func (l *Library) keyOf(q *question, rules []*rule) string {
	key := ""
	for _, r := range rules {
		if r.audits() || !l.means(r, q) {
			continue
		}
		p, err := r.read(q)
		if err != nil || q.acts || q.info.Subresource != "" {
			return "" // which no watch was let pass with
		}
		key += p.key(r)
	}
	return key + nobodys
}

// nobodys is the key of what no policy narrows.
const nobodys = "."

// means reports whether a rule is about a question, whose node is known.
func (l *Library) means(r *rule, q *question) bool {
	return r.means(q.node.name, q.node.labels.Load()) && (q.origin.node != "" || !r.gateway())
}

// selecting reports whether rules may mean nodes by labels.
func selecting(rules []*rule) bool {
	return slices.ContainsFunc(rules, func(r *rule) bool { return r.selector != nil })
}

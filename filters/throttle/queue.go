package throttle

import "slices"

// Bounds of one queue.
const (
	maxQueue = 512
	maxFlow  = 64
)

// A queue lets those who wait for one bucket in turn by turn: each flow, which is
// one caller, gets its turn, however many requests of another one wait.
type queue struct {
	flows  map[string][]*waiter
	turns  []string // of flows with somebody in them; the next one first
	length int
}

// push appends w to its flow, if there is room.
func (q *queue) push(w *waiter) bool {
	if q.length >= maxQueue || len(q.flows[w.flow]) >= maxFlow {
		return false
	}
	if q.flows == nil {
		q.flows = map[string][]*waiter{}
	}
	if len(q.flows[w.flow]) == 0 {
		q.turns = append(q.turns, w.flow)
	}
	q.flows[w.flow] = append(q.flows[w.flow], w)
	q.length++
	return true
}

// next is whose turn it is.
func (q *queue) next() *waiter {
	if q.length == 0 {
		return nil
	}
	return q.flows[q.turns[0]][0]
}

// served takes w out, whose turn it was; another flow is next.
func (q *queue) served(w *waiter) {
	q.remove(w)
	if len(q.turns) > 0 && q.turns[0] == w.flow {
		q.turns = append(q.turns[1:], w.flow)
	}
}

// remove takes w out, if it is there.
func (q *queue) remove(w *waiter) {
	flow := q.flows[w.flow]
	i := slices.Index(flow, w)
	if i < 0 {
		return
	}
	q.length--
	if flow = slices.Delete(flow, i, i+1); len(flow) > 0 {
		q.flows[w.flow] = flow
		return
	}
	delete(q.flows, w.flow)
	q.turns = slices.DeleteFunc(q.turns, func(f string) bool { return f == w.flow })
}

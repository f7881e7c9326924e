package rego

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	randomly "math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/portico-proxy/portico/core/telemetry"
)

const (
	// maxQueued is how many lines wait to be written.
	maxQueued = 1024
	// lastWrites bounds how long the end waits for them.
	lastWrites = 3 * time.Second
)

// LogOptions says what is logged of decisions, and where.
type LogOptions struct {
	// To gets one line of JSON at a time, and is closed in the end.
	To io.WriteCloser
	// Sample is which part of the decisions that let requests pass is logged,
	// between 0 and 1. Denials and failures are logged all.
	Sample float64
	// PerSecond bounds how many decisions are logged.
	PerSecond int
	// Mask are the fields of the input that are not logged, as in user.extra.
	Mask []string
	// Node is the one that the proxy runs on.
	Node string
	// Dropped is told why a decision was not logged that was to be.
	Dropped func(reason string)
	Log     logr.Logger
}

// A DecisionLog tells what policies decided. It holds nobody up: what cannot be
// written at once waits in a queue, and what finds no room there is dropped.
// A nil one logs nothing.
type DecisionLog struct {
	options LogOptions
	mask    *mask
	queue   chan []byte

	mu     sync.Mutex // guards following
	second time.Time  // when the second began in which there were as many
	logged int

	// These are the writer's own.
	failing bool // the last write failed
	torn    bool // a line was begun and not ended
}

// NewDecisionLog returns a log that is written by [DecisionLog.Start].
func NewDecisionLog(o LogOptions) (*DecisionLog, error) {
	if o.Sample < 0 || o.Sample > 1 {
		return nil, fmt.Errorf("a sample of %v is not between 0 and 1", o.Sample)
	}
	if o.PerSecond <= 0 {
		return nil, fmt.Errorf("%d decisions a second are none", o.PerSecond)
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // it never fails
	m, err := newMask(o.Mask, key[:])
	if err != nil {
		return nil, fmt.Errorf("mask decisions: %w", err)
	}
	return &DecisionLog{options: o, mask: m, queue: make(chan []byte, maxQueued)}, nil
}

// record logs a decision, or does not. It never waits for the writer.
func (l *DecisionLog) record(d *decided) {
	if l == nil || d.said == telemetry.DecisionPass && randomly.Float64() >= l.options.Sample {
		return
	}
	if !l.room(time.Now()) {
		l.options.Dropped(telemetry.UnloggedRate)
		return
	}
	line := l.mask.line(d, l.options.Node)
	if line == nil {
		l.options.Dropped(telemetry.UnloggedSize)
		return
	}
	select {
	case l.queue <- line:
	default:
		l.options.Dropped(telemetry.UnloggedQueue)
	}
}

// room takes the place of one decision in its second.
func (l *DecisionLog) room(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.second) >= time.Second {
		l.second, l.logged = now, 0
	}
	l.logged++
	return l.logged <= l.options.PerSecond
}

// Start writes until ctx ends, and then what is still queued, if that takes no
// longer than it may. Nothing may be decided any more then.
func (l *DecisionLog) Start(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.write(ctx)
	}()
	<-ctx.Done()
	late := time.NewTimer(lastWrites)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		l.options.Log.Info("the last decisions are not logged: nobody takes them")
	}
	if err := l.options.To.Close(); err != nil {
		return fmt.Errorf("close the decision log: %w", err)
	}
	return nil
}

func (l *DecisionLog) write(ctx context.Context) {
	for {
		select {
		case line := <-l.queue:
			l.append(line)
		case <-ctx.Done():
			for len(l.queue) > 0 {
				l.append(<-l.queue)
			}
			return
		}
	}
}

// append writes one line. After a disk was full, it begins with an end of the line
// of which there may be a part.
func (l *DecisionLog) append(line []byte) {
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.options.To.Write(line)
	if err == nil {
		if l.failing {
			l.options.Log.Info("decisions are logged again")
		}
		l.failing, l.torn = false, false
		return
	}
	l.options.Dropped(telemetry.UnloggedWrite)
	if !l.failing {
		l.options.Log.Error(err, "decisions are not logged")
	}
	l.failing, l.torn = true, l.torn || n > 0
}

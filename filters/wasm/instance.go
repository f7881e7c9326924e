package wasm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/portico-proxy/portico/core/attention"
	"github.com/portico-proxy/portico/core/document"
	"github.com/portico-proxy/portico/plugins/abi"
)

// acquireTimeout bounds how long a request waits for an instance.
const acquireTimeout = 10 * time.Second

// An instance runs one call at a time. It serves any request, and is thrown
// away once it has trapped or been stopped: its memory may be in any state.
type instance struct {
	module *Module
	guest  api.Module
	clock  *deadline
	call   *call // what host functions are about, during a call
	// Of the call that runs, and here so that it need not be made for each.
	exchange exchange
	finder   document.Finder
	stack    [2]uint64
	features uint32 // of http_handler, that the guest enabled when it began

	onRequest, onObject, onEnd    api.Function
	handleRequest, handleResponse api.Function
}

// call is what a guest may look at and do during one of its calls.
type call struct {
	facts  Facts
	object *objects
	trip   *roundTrip // of a guest of http_handler
	end    *End
	// What the guest said.
	denial   *Denial
	warnings []string
	failure  string
	effects  bool  // respond and warn are heard
	early    bool  // the guest is being configured
	unknown  error // why it was told that there is nothing of what it looked up
}

type instanceKey struct{}

// deadline is the context of all calls of an instance. A context of its own for
// each call, with a timer of its own, would cost more than most calls do, and so
// would it to set the timer for each: it goes off now and then while there are
// calls, and sees how long the one that runs has been running.
type deadline struct {
	context.Context
	of    *instance
	timer *time.Timer

	began atomic.Int64 // when the call that runs did, see now; 0 if there is none, and tooSlow if it was
	limit atomic.Int64 // how long it may take, in nanoseconds
	armed atomic.Bool  // the timer will go off
}

// tooSlow is what began is of a call that was. None comes after it.
const tooSlow = -1

// epoch is what calls' times are counted from.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) + 1 }

func newDeadline(ctx context.Context, i *instance) *deadline {
	d := &deadline{Context: context.WithoutCancel(ctx), of: i}
	d.timer = time.AfterFunc(time.Hour, d.look)
	d.timer.Stop()
	return d
}

// begin gives a call so long.
func (d *deadline) begin(limit time.Duration) (began int64) {
	began = now()
	d.limit.Store(int64(limit))
	d.began.Store(began)
	if d.armed.CompareAndSwap(false, true) {
		d.timer.Reset(limit)
		attention.Pay() // to the timer
	}
	return began
}

// rest has the next call set the timer, however long the one before had.
func (d *deadline) rest() {
	if d.timer.Stop() {
		d.armed.Store(false)
	}
}

// end reports whether the call that began then was in time.
func (d *deadline) end(began int64) bool { return d.began.CompareAndSwap(began, 0) }

// look ends the call that runs if it was too slow, and otherwise looks again when it
// would be.
func (d *deadline) look() {
	for {
		began := d.began.Load()
		if left := time.Duration(began + d.limit.Load() - now()); began > 0 && left > 0 {
			d.timer.Reset(left)
			return
		}
		if began > 0 && d.began.CompareAndSwap(began, tooSlow) {
			return
		}
		if began > 0 {
			continue // it is another by now
		}
		d.armed.Store(false)
		if d.began.Load() <= 0 || !d.armed.CompareAndSwap(false, true) {
			return // whoever begins now sets the timer
		}
	}
}

// late reports whether the call that runs has taken too long.
func (d *deadline) late() bool { return d.began.Load() == tooSlow }

// check traps if it has.
func (d *deadline) check() {
	if d.late() {
		panic(errTimeout)
	}
}

// Value finds the instance that a host function is called by. Nothing else is looked
// for in each call, and what is in vain takes as long as the context is deep.
func (d *deadline) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return d.of
	}
	return nil
}

func (m *Module) instantiate(ctx context.Context) (*instance, error) {
	i := &instance{module: m}
	i.clock = newDeadline(ctx, i)
	i.call = &call{early: true}
	defer func() { i.call = nil }()
	began := i.clock.begin(instantiateTimeout)
	defer i.clock.rest()
	var err error
	start := []string{abi.ExportInitialize}
	if m.handler {
		start = append(start, exportStart) // where guests say what handles requests
	}
	i.guest, err = m.runtime.InstantiateModule(i.clock, m.compiled, wazero.NewModuleConfig().
		WithName("").WithArgs("filter").WithStartFunctions(start...))
	if err != nil {
		i.clock.end(began)
		return nil, fmt.Errorf("instantiate the module: %w", err)
	}
	if i.guest.IsClosed() { // an exit by which all is well is no error
		i.clock.end(began)
		return nil, errExited
	}
	i.onRequest = i.guest.ExportedFunction(abi.ExportOnRequest)
	i.onObject = i.guest.ExportedFunction(abi.ExportOnObject)
	i.onEnd = i.guest.ExportedFunction(abi.ExportOnEnd)
	i.handleRequest = i.guest.ExportedFunction(exportHandleRequest)
	i.handleResponse = i.guest.ExportedFunction(exportHandleResponse)
	err = i.configure()
	// A guest may be found late when it asks no more. Its clock has stopped for good.
	if !i.clock.end(began) && err == nil {
		err = errTimeout
	}
	if err != nil {
		i.close(ctx)
		return nil, err
	}
	return i, nil
}

func (i *instance) configure() error {
	f := i.guest.ExportedFunction(abi.ExportConfigure)
	if f == nil || i.module.handler {
		return nil
	}
	results, err := f.Call(i.clock)
	if err != nil {
		return fmt.Errorf("configure the module: %w", err)
	}
	if int32(uint32(results[0])) != 0 {
		return fmt.Errorf("the module refuses its configuration: %s", clean(i.call.failure, abi.MaxMessage))
	}
	return nil
}

func (i *instance) close(ctx context.Context) {
	i.clock.timer.Stop()
	if err := i.guest.Close(ctx); err != nil {
		i.module.log.Error(err, "close an instance")
	}
}

// acquire takes an instance, which must be given back by release.
func (m *Module) acquire(ctx context.Context) (*instance, error) {
	select {
	case i := <-m.idle:
		return i, nil
	default:
	}
	patience := time.NewTimer(acquireTimeout)
	defer patience.Stop()
	select {
	case i := <-m.idle:
		return i, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, errBusy
	}
}

// ask calls f about c, on an instance, which is given back, or thrown away.
func (m *Module) ask(i *instance, f api.Function, c *call) (answer int32, err error) {
	word, err := m.invoke(i, f, c)
	if err == nil {
		m.idle <- i
		err = c.unknown
	}
	return int32(uint32(word)), err
}

// invoke calls f about c on an instance, which is thrown away if that fails.
func (m *Module) invoke(i *instance, f api.Function, c *call, parameters ...uint64) (uint64, error) {
	i.call = c
	copy(i.stack[:], parameters)
	began := i.clock.begin(m.spec.WallClock)
	err := f.CallWithStack(i.clock, i.stack[:])
	inTime := i.clock.end(began)
	i.call, i.exchange = nil, exchange{}
	i.finder.Forget()
	if err == nil && inTime {
		return i.stack[0], nil
	}
	i.close(context.WithoutCancel(i.clock))
	m.broken <- struct{}{}
	if errors.Is(err, errNotDeclared) {
		return 0, errNotDeclared
	}
	if !inTime {
		return 0, errTimeout
	}
	m.log.V(1).Info("guest trapped", "reason", clean(err.Error(), abi.MaxLog))
	return 0, errFailed
}

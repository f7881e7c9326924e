package wasm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/portico-proxy/portico/crds/proxy/v1alpha1"
	"github.com/portico-proxy/portico/filters/wasm/meter"
	"github.com/portico-proxy/portico/plugins/abi"
)

// pagesPerMiB are the pages of WebAssembly memory in a MiB.
const pagesPerMiB = 16

// instantiateTimeout bounds how long an instance may take to begin.
const instantiateTimeout = 10 * time.Second

// Engine compiles modules. It outlives every configuration.
type Engine struct {
	log   logr.Logger
	cache wazero.CompilationCache
	open  atomic.Int32 // modules that are

	mu       sync.Mutex
	runtimes map[class]wazero.Runtime
}

// A class of modules shares a runtime: in wazero, the memory limit and what can
// be imported are a runtime's.
type class struct {
	memoryMiB int32
	handler   bool // it has http_handler, and nothing else
	kv, clock bool
	lookup    bool
}

// NewEngine returns an engine that keeps compiled code in dir; an empty dir
// keeps it in memory.
func NewEngine(dir string, log logr.Logger) (*Engine, error) {
	e := &Engine{log: log, cache: wazero.NewCompilationCache(), runtimes: map[class]wazero.Runtime{}}
	if dir != "" {
		var err error
		if e.cache, err = wazero.NewCompilationCacheWithDir(dir); err != nil {
			return nil, fmt.Errorf("open the cache of compiled modules: %w", err)
		}
	}
	return e, nil
}

// Close frees all of it. No module may be in use.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.runtimes {
		if err := r.Close(ctx); err != nil {
			return fmt.Errorf("close the runtime: %w", err)
		}
	}
	clear(e.runtimes)
	if err := e.cache.Close(ctx); err != nil {
		return fmt.Errorf("close the cache of compiled modules: %w", err)
	}
	return nil
}

// runtime returns the one for a class, and makes it first.
func (e *Engine) runtime(ctx context.Context, c class) (wazero.Runtime, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.runtimes[c]; ok {
		return r, nil
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().
		WithCompilationCache(e.cache).
		WithMemoryLimitPages(uint32(c.memoryMiB)*pagesPerMiB))
	// All of WASI, as Go needs it to be there: without files, sockets,
	// environment and a true clock, as none is configured.
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, fmt.Errorf("provide WASI: %w", err)
	}
	host := hostModule(r, c)
	if c.handler {
		host = handlerHost(r)
	}
	if _, err := host.Instantiate(ctx); err != nil {
		return nil, fmt.Errorf("provide what guests import: %w", err)
	}
	if _, err := meterHost(r).Instantiate(ctx); err != nil {
		return nil, fmt.Errorf("provide the meter: %w", err)
	}
	e.runtimes[c] = r
	return r, nil
}

// meterHost is what has guests end whose time is over, however long they run without
// calling a function of the host.
func meterHost(r wazero.Runtime) wazero.HostModuleBuilder {
	ask := api.GoFunc(func(ctx context.Context, stack []uint64) {
		ctx.Value(instanceKey{}).(*instance).clock.check()
		stack[0] = meter.Tank
	})
	return r.NewHostModuleBuilder(meter.Module).NewFunctionBuilder().WithGoFunction(ask, nil, []api.ValueType{i32}).Export(meter.Ask)
}

// Spec is a module and how it shall run.
type Spec struct {
	Name         string
	ABI          v1alpha1.WasmABI // empty is PorticoV1
	Code, Config []byte
	Capabilities []abi.Capability
	Known        *Known // for the capability lookup
	MemoryMiB    int32
	Instances    int
	WallClock    time.Duration
}

func (s *Spec) class() class {
	if s.ABI == v1alpha1.WasmHTTPWasmV1 {
		return class{memoryMiB: s.MemoryMiB, handler: true}
	}
	granted := func(c abi.Capability) bool { return slices.Contains(s.Capabilities, c) }
	return class{memoryMiB: s.MemoryMiB, kv: granted(abi.CapabilityKV), clock: granted(abi.CapabilityClock), lookup: granted(abi.CapabilityLookup)}
}

// Module is a compiled module with its instances.
type Module struct {
	engine                     *Engine
	spec                       Spec
	log                        logr.Logger
	runtime                    wazero.Runtime
	compiled                   wazero.CompiledModule
	onRequest, onObject, onEnd bool
	handler, bodies            bool // see handles
	counters                   *counters

	idle   chan *instance
	broken chan struct{} // one for each instance to be replaced
	stop   context.CancelFunc
	done   sync.WaitGroup
	users  atomic.Int32 // see hold
}

// Load compiles a module and starts its instances. It takes seconds for large
// modules: no request may wait for it.
func (e *Engine) Load(ctx context.Context, s Spec) (*Module, error) {
	r, err := e.runtime(ctx, s.class())
	if err != nil {
		return nil, err
	}
	metered, err := meter.Rewrite(s.Code)
	if err != nil {
		return nil, fmt.Errorf("compile filter %s: %w", s.Name, err)
	}
	compiled, err := r.CompileModule(ctx, metered)
	if err != nil {
		return nil, fmt.Errorf("compile filter %s: %w", s.Name, err)
	}
	m := &Module{
		engine: e, spec: s, log: e.log.WithValues("filter", s.Name), runtime: r, compiled: compiled, counters: newCounters(),
		idle: make(chan *instance, s.Instances), broken: make(chan struct{}, s.Instances),
	}
	e.open.Add(1)
	if err := m.start(ctx); err != nil {
		m.free(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("start filter %s: %w", s.Name, err)
	}
	return m, nil
}

func (m *Module) start(ctx context.Context) error {
	if err := m.imports(); err != nil {
		return err
	}
	if err := m.exports(); err != nil {
		return err
	}
	for range m.spec.Instances {
		i, err := m.instantiate(ctx)
		if err != nil {
			return err
		}
		m.idle <- i
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.done.Go(func() { m.replace(life) })
	return nil
}

// replace makes a new instance for each that broke. A module whose instances do
// not even begin is tried again once a second.
func (m *Module) replace(life context.Context) {
	for {
		select {
		case <-life.Done():
			return
		case <-m.broken:
		}
		for {
			i, err := m.instantiate(life)
			if err == nil {
				m.idle <- i
				break
			}
			m.log.Error(err, "replace an instance")
			select {
			case <-life.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// hold keeps the module open until release is called as often.
func (m *Module) hold() { m.users.Add(1) }

func (m *Module) release(ctx context.Context) {
	if m.users.Add(-1) == 0 {
		m.Close(ctx)
	}
}

// Close ends all instances. Nobody may use the module any more.
func (m *Module) Close(ctx context.Context) {
	m.stop()
	m.done.Wait()
	m.free(ctx)
}

func (m *Module) free(ctx context.Context) {
	defer m.engine.open.Add(-1)
	for {
		select {
		case i := <-m.idle:
			i.close(ctx)
			continue
		default:
		}
		break
	}
	if err := m.compiled.Close(ctx); err != nil {
		m.log.Error(err, "close a module")
	}
}

package wasm

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/portico-proxy/portico/plugins/abi"
)

// A driver asks one guest about many things in one call of WebAssembly. wazero
// starts a goroutine for each call from outside, so as to be able to end it, which
// costs as much as most guests do. So a small module of our own, the wheel, runs in
// a coroutine of the instance. It asks the host what is next, calls that function
// of the guest, and hands its result to the host:
//
//	for what := next(0); what != 0; what = next(guest[what]()) {}
//
// It waits in next while nobody asks the guest anything. It is ended with the
// instance.
type driver struct {
	resume func() (struct{}, bool)
	stop   func()
	wheel  api.Module

	what   guestFunction // that is to be called
	result int32
	err    error // what the wheel ended with
}

// A guestFunction is one that a wheel calls.
type guestFunction uint64

const (
	noFunction guestFunction = iota
	onRequest
	onObject
)

const (
	wheelHost  = "host"
	wheelGuest = "guest"
	wheelNext  = "next"
	wheelRun   = "run"
)

// driven are the names of exports, in the order of their numbers.
var driven = []string{abi.ExportOnRequest, abi.ExportOnObject}

// wheels are those of one runtime.
type wheels struct {
	host api.Module // what they import of it; guests cannot, as it has no name
	of   [1 << 2]wazero.CompiledModule
}

// which is the wheel for a guest that has these functions.
func which(onRequest, onObject bool) (n int) {
	if onRequest {
		n |= 1
	}
	if onObject {
		n |= 2
	}
	return n
}

func newWheels(ctx context.Context, r wazero.Runtime) (*wheels, error) {
	next := api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
		i := ctx.Value(instanceKey{}).(*instance)
		stack[0] = uint64(i.next(int32(uint32(stack[0]))))
	})
	compiled, err := r.NewHostModuleBuilder(wheelHost).NewFunctionBuilder().
		WithGoModuleFunction(next, []api.ValueType{i32}, []api.ValueType{i32}).Export(wheelNext).Compile(ctx)
	if err != nil {
		return nil, err
	}
	w := &wheels{}
	if w.host, err = r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("")); err != nil {
		return nil, err
	}
	for n := range w.of {
		if w.of[n], err = r.CompileModule(ctx, wheelOf(n)); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// drive makes a driver of an instance that is configured.
func (i *instance) drive(ctx context.Context) (*driver, error) {
	m := i.module
	resolved := experimental.WithImportResolver(ctx, func(name string) api.Module {
		if name == wheelGuest {
			return i.guest
		}
		return m.wheels.host
	})
	wheel, err := m.runtime.InstantiateModule(resolved, m.wheels.of[which(m.onRequest, m.onObject)], wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, fmt.Errorf("instantiate the wheel: %w", err)
	}
	run, d := wheel.ExportedFunction(wheelRun), &driver{wheel: wheel}
	d.resume, d.stop = iter.Pull(func(yield func(struct{}) bool) {
		i.yield = yield
		d.err = run.CallWithStack(i.clock, nil)
	})
	if _, waits := d.resume(); !waits {
		return nil, fmt.Errorf("start the wheel: %w", d.err)
	}
	return d, nil
}

// next is where the wheel waits.
func (i *instance) next(result int32) guestFunction {
	d := i.driver
	if d != nil {
		d.result = result
	}
	if !i.yield(struct{}{}) {
		return noFunction
	}
	return i.driver.what
}

// call calls one function of the guest.
func (d *driver) call(what guestFunction) (int32, error) {
	d.what = what
	if _, waits := d.resume(); !waits {
		return 0, cmp.Or(d.err, errClosed)
	}
	return d.result, nil
}

func (d *driver) close(ctx context.Context) error {
	d.stop()
	return d.wheel.Close(ctx)
}

// wheelOf is the code of a wheel for a guest that has the functions in n, see which.
func wheelOf(has int) []byte {
	imports := []byte{1, byte(len(wheelHost))}
	imports = append(append(append(imports, wheelHost...), byte(len(wheelNext))), wheelNext+"\x00\x00"...)
	body := []byte{
		1, 1, 0x7f, // one local, an i32: what is next, and then its result
		0x03, 0x40, // loop
		0x20, 0, 0x10, 0, 0x21, 0, // it = next(it)
	}
	for n, name := range driven {
		if has&(1<<n) == 0 {
			continue
		}
		function := imports[0] // next is function 0
		imports[0]++
		imports = append(append(append(append(imports, byte(len(wheelGuest))), wheelGuest...), byte(len(name))), name+"\x00\x01"...)
		body = append(body, 0x20, 0, 0x41, byte(n+1), 0x46, 0x04, 0x40, // if it == n+1
			0x10, function, 0x21, 0, // it = guest()
			0x0c, 1, 0x0b) // again
	}
	body = append(body, 0x0b, 0x0b)
	code := []byte("\x00asm\x01\x00\x00\x00")
	code = append(code, 1, 13, 3, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 0, 1, 0x7f, 0x60, 0, 0) // types: i32 to i32, to i32, nothing
	code = append(append(code, 2, byte(len(imports))), imports...)                      // see above
	code = append(code, 3, 2, 1, 2)                                                     // one function, of type 2
	code = append(append(code, 7, byte(len(wheelRun)+4), 1, byte(len(wheelRun))), wheelRun...)
	code = append(code, 0, imports[0])
	code = append(code, 10, byte(len(body)+2), 1, byte(len(body)))
	return append(code, body...)
}

package wasm

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/portico-proxy/portico/plugins/abi"
)

// The words of http_handler (https://http-wasm.io/http-handler-abi).
const (
	handlerModule        = "http_handler"
	exportHandleRequest  = "handle_request"
	exportHandleResponse = "handle_response"
	exportStart          = "_start"

	bufferRequest  = 1
	bufferResponse = 2
)

// handles looks at what a module of http_handler offers, and whether it could
// look at the bodies of requests.
func (m *Module) handles() error {
	if m.compiled.ExportedMemories()[abi.ExportMemory] == nil {
		return errNoHandler
	}
	for name, want := range map[string]signature{
		exportHandleRequest: {nil, []api.ValueType{i64}}, exportHandleResponse: {types(2), nil},
	} {
		f := m.compiled.ExportedFunctions()[name]
		if f == nil {
			return errNoHandler
		}
		if err := want.check(handlerModule, name, f); err != nil {
			return err
		}
	}
	for _, f := range m.compiled.ImportedFunctions() {
		if module, name, _ := f.Import(); module == handlerModule && (name == "read_body" || name == "write_body") {
			m.bodies = true
		}
	}
	m.handler = true
	return nil
}

// handleRequest asks the module about a request, and reports whether that may go
// on. If the guest wants to recognise it, its instance waits for the answer.
func (m *Module) handleRequest(ctx context.Context, t *roundTrip) (next bool, err error) {
	i, err := m.acquire(ctx)
	if err != nil {
		return false, err
	}
	t.features = i.features
	word, err := m.invoke(i, i.handleRequest, &call{trip: t})
	if err != nil {
		return false, err
	}
	t.context = uint32(word >> 32)
	switch uint32(word) {
	case 0:
		err = t.refuses()
	case 1:
		err = t.forwards()
		next = err == nil
	default:
		err = errHandled
	}
	if next && t.context != 0 && !t.streams {
		t.instance = i
		return true, nil
	}
	m.idle <- i
	return next, err
}

// handleResponse shows the module the answer. A request that failed has none.
func (m *Module) handleResponse(ctx context.Context, t *roundTrip, failed bool) (err error) {
	i := t.instance
	t.instance = nil
	if i == nil {
		if i, err = m.acquire(ctx); err != nil {
			return err
		}
	}
	isError := uint64(0)
	if failed {
		isError = 1
	}
	if _, err = m.invoke(i, i.handleResponse, &call{trip: t}, uint64(t.context), isError); err == nil {
		m.idle <- i
	}
	return err
}

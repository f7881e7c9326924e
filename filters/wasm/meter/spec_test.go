package meter

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// specification is WebAssembly's own tests, which wazero has with it.
func specification(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
}

// A command is one of a script of the specification.
type command struct {
	Type, Name, As, Filename string
	Line                     int
	ModuleType               string `json:"module_type"`
	Action                   struct {
		Type, Module, Field string
		Args                []struct {
			Type     string
			LaneType string `json:"lane_type"`
			Value    any
		}
	}
}

// world is a runtime with what a script has made in it.
type world struct {
	wazero.Runtime
	meter   func([]byte) ([]byte, error)
	last    api.Module
	named   map[string]api.Module
	begun   int
	asked   int
	context context.Context
}

// quickly is the fuel of modules in tests: they shall ask often.
const quickly = 3

func newWorld(t testing.TB, meter func([]byte) ([]byte, error)) *world {
	t.Helper()
	w := &world{Runtime: wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigCompiler()), meter: meter, named: map[string]api.Module{}}
	t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	w.context = experimental.WithImportResolver(t.Context(), func(name string) api.Module { return w.named[name] })
	ask := func(context.Context) int32 { w.asked++; return quickly }
	if _, err := w.NewHostModuleBuilder(Module).NewFunctionBuilder().WithFunc(ask).Export(Ask).Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// begin makes a module, and reports why it cannot.
func (w *world) begin(code []byte) (api.Module, error) {
	code, err := w.meter(code)
	if err != nil {
		return nil, err
	}
	compiled, err := w.CompileModule(w.context, code)
	if err != nil {
		return nil, err
	}
	w.begun++
	return w.InstantiateModule(w.context, compiled, wazero.NewModuleConfig().WithName(fmt.Sprint("m", w.begun)))
}

// do carries out a command, and returns what comes of it.
func (w *world) do(t testing.TB, dir string, c *command) string {
	t.Helper()
	switch {
	case c.Type == "register":
		w.named[c.As] = w.last
		if c.Name != "" {
			w.named[c.As] = w.named[c.Name]
		}
	case c.ModuleType == "text":
	case c.Filename != "":
		code, err := os.ReadFile(filepath.Join(dir, c.Filename))
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.begin(code)
		if err != nil {
			return "it does not begin"
		}
		if w.last = m; c.Name != "" {
			w.named[c.Name] = m
		}
	case c.Action.Type == "get":
		return fmt.Sprint(w.module(c).ExportedGlobal(c.Action.Field).Get())
	case c.Action.Type == "invoke":
		return w.invoke(t, c)
	}
	return ""
}

func (w *world) module(c *command) api.Module {
	if c.Action.Module != "" {
		return w.named[c.Action.Module]
	}
	return w.last
}

func (w *world) invoke(t testing.TB, c *command) string {
	t.Helper()
	var parameters []uint64
	for _, a := range c.Action.Args {
		parameters = append(parameters, words(t, a.Type, a.LaneType, a.Value)...)
	}
	results, err := w.module(c).ExportedFunction(c.Action.Field).Call(w.context, parameters...)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n") // behind it is where
		return why
	}
	return fmt.Sprint(results)
}

// words are a value as wazero takes it.
func words(t testing.TB, kind, lane string, value any) []uint64 {
	t.Helper()
	number := func(v any) uint64 {
		text := fmt.Sprint(v)
		if strings.HasPrefix(text, "nan:") {
			return 0x7fc00000
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return uint64(n)
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch {
	case kind == "externref" && value != "null":
		return []uint64{number(value) + 1}
	case kind == "externref" || kind == "funcref":
		return []uint64{0}
	case kind == "i32" || kind == "f32":
		return []uint64{uint64(uint32(number(value)))}
	case kind != "v128":
		return []uint64{number(value)}
	}
	bits, err := strconv.Atoi(lane[1:])
	if err != nil {
		t.Fatal(err)
	}
	out := make([]uint64, 2)
	for i, v := range value.([]any) {
		n := number(v)
		if bits < 64 {
			n &= 1<<bits - 1
		}
		out[i*bits/64] |= n << (i * bits % 64)
	}
	return out
}

// TestMeteredModulesDoWhatTheyDid runs WebAssembly's own tests on modules as they
// are and as they become, which are refused, trap and answer alike.
func TestMeteredModulesDoWhatTheyDid(t *testing.T) {
	dir := filepath.Join(specification(t), "v2", "testdata")
	scripts, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(scripts) < 100 {
		t.Fatalf("found %d scripts, %v", len(scripts), err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			var of struct{ Commands []command }
			if err := json.Unmarshal(text, &of); err != nil {
				t.Fatal(err)
			}
			same := func(code []byte) ([]byte, error) { return code, nil }
			plain, metered := newWorld(t, same), newWorld(t, Rewrite)
			for _, w := range []*world{plain, metered} {
				host := command{Filename: "spectest.wasm", Name: "spectest"}
				w.do(t, filepath.Join(specification(t), "testdata"), &host)
			}
			for i := range of.Commands {
				c := &of.Commands[i]
				if got, want := metered.do(t, dir, c), plain.do(t, dir, c); got != want {
					t.Errorf("line %d, %s %s: %s, and not %s", c.Line, c.Type, c.Action.Field, got, want)
				}
			}
			calls := slices.ContainsFunc(of.Commands, func(c command) bool { return c.Action.Type == "invoke" })
			if calls && metered.asked == 0 {
				t.Error("nothing asked")
			}
		})
	}
}

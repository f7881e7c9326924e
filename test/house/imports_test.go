package house

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// An arrow says which of our packages a room may import besides its own.
type arrow struct {
	from string   // a room; * stands for any one directory
	to   []string // nil is nothing
	why  string
}

var anything = []string{"."}

// roads are looked up from the top: the first that fits a package is its own.
var roads = []arrow{
	{"cmd", []string{"filters", "core", "crds", "bpf", "plugins/abi"}, "a command wires rooms together"},
	{"filters/*", []string{"core", "crds", "plugins/abi"}, "what a filter learns for another travels in the request's context"},
	{"filters", []string{"core", "crds"}, "the chain knows the filters and what they need"},
	{"core/pipeline", nil, "whoever writes a filter should have to read nothing else"},
	{"core", []string{"crds"}, "the core stays when every filter is exchanged"},
	{"crds/*", nil, "strangers import API types and should get nothing else with them"},
	{"plugins/abi", nil, "host and guest share it, so it can know neither"},
	{"plugins/guest", []string{"plugins/abi"}, "plugin authors compile it into every plugin"},
	{"plugins", nil, "the same cases must fit any host"},
	{"bpf", nil, "the kernel programs and their loader are of use without the proxy"},
	{"examples", anything, "an example may show anything"},
	{"test", anything, "a test may look at anything"},
}

// fromTests is what tests next to the code may import besides.
var fromTests = []string{"test", "plugins/tck"}

// byways are imports that no road allows: from files whose path begins so, to
// the package named.
var byways = map[string]string{
	"cmd/portico/dev": "test/controlplane", // portico dev starts the control plane that tests use
}

var arrows = rule{
	name: "import-arrows",
	why:  "imports go one way, cmd → filters → core → crds, so that each room can be read by itself",
	check: func(t *tree) (found []finding) {
		eachImport(t, func(s *source, imported string) {
			to, ours := strings.CutPrefix(imported, module+"/")
			road := roadFrom(s.dir)
			if ours && road != nil && !allowed(s, *road, to) {
				found = append(found, finding{s.path, fmt.Sprintf("%s may not import %s: %s", road.from, to, road.why)})
			}
		})
		return found
	},
	broken: map[string]files{
		"core/cache/up.go":         {"core/cache/up.go": importing("cache", module+"/filters/authn")},
		"core/cache/kernel.go":     {"core/cache/kernel.go": importing("cache", module+"/bpf")},
		"core/pipeline/config.go":  {"core/pipeline/config.go": importing("pipeline", module+"/core/config")},
		"filters/authz/sibling.go": {"filters/authz/sibling.go": importing("authz", module+"/filters/authn")},
		"filters/authn/chain.go":   {"filters/authn/chain.go": importing("authn", module+"/filters")},
		"bpf/table.go":             {"bpf/table.go": importing("bpf", module+"/core/redirect")},
		"plugins/abi/core.go":      {"plugins/abi/core.go": importing("abi", module+"/core/pipeline")},
		"plugins/guest/host.go":    {"plugins/guest/host.go": importing("guest", module+"/plugins/tck")},
		"crds/proxy/v1alpha1/b.go": {"crds/proxy/v1alpha1/b.go": importing("v1alpha1", module+"/crds/balancing/v1beta1")},
		"cmd/portico/proxy.go":     {"cmd/portico/proxy.go": importing("main", module+"/test/controlplane")},
		"core/cache/fault.go":      {"core/cache/fault.go": importing("cache", module+"/test/faultserver")},
		"core/cache/filter_test.go": {
			"core/cache/filter_test.go": importing("cache", module+"/filters/authn"),
		},
	},
}

func roadFrom(dir string) *arrow {
	i := slices.IndexFunc(roads, func(a arrow) bool { return rootOf(dir, a.from) != "" })
	if i < 0 {
		return nil
	}
	return &roads[i]
}

// rootOf returns the part of dir that pattern stands for, or "".
func rootOf(dir, pattern string) string {
	n := strings.Count(pattern, "/") + 1
	elements := strings.Split(dir, "/")
	if len(elements) < n {
		return ""
	}
	root := strings.Join(elements[:n], "/")
	if ok, _ := path.Match(pattern, root); !ok {
		return ""
	}
	return root
}

func allowed(s *source, road arrow, to string) bool {
	if road.to != nil && road.to[0] == "." || within(to, rootOf(s.dir, road.from)) {
		return true
	}
	below := func(room string) bool { return within(to, room) }
	if slices.ContainsFunc(road.to, below) || s.test && slices.ContainsFunc(fromTests, below) {
		return true
	}
	for from, only := range byways {
		if strings.HasPrefix(s.path, from) && to == only {
			return true
		}
	}
	return false
}

// eachImport calls visit for every import of every Go file.
func eachImport(t *tree, visit func(s *source, imported string)) {
	for _, s := range t.sources {
		for _, spec := range s.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err == nil {
				visit(s, imported)
			}
		}
	}
}

// homes are the packages that know a library, by the library's path.
var homes = map[string]arrow{
	"github.com/tetratelabs/wazero":    {from: "filters/wasm", why: "another WebAssembly runtime must mean one other package"},
	"github.com/open-policy-agent/opa": {from: "filters/rego", why: "another policy engine must mean one other package"},
	"github.com/cilium/ebpf":           {from: "bpf", why: "everything else is to be tested without a kernel"},
}

var confined = rule{
	name: "libraries-at-home",
	why:  "a large library that one room knows can be exchanged; one that all know cannot",
	check: func(t *tree) (found []finding) {
		eachImport(t, func(s *source, imported string) {
			for library, home := range homes {
				free := within(s.dir, home.from) || within(s.dir, "test") || within(s.dir, "examples")
				if within(imported, library) && !free {
					found = append(found, finding{s.path, fmt.Sprintf("only %s imports %s: %s", home.from, library, home.why)})
				}
			}
		})
		return found
	},
	broken: map[string]files{
		"core/config/wasm.go":    {"core/config/wasm.go": importing("config", "github.com/tetratelabs/wazero/api")},
		"filters/authz/rego.go":  {"filters/authz/rego.go": importing("authz", "github.com/open-policy-agent/opa/v1/rego")},
		"core/redirect/links.go": {"core/redirect/links.go": importing("redirect", "github.com/cilium/ebpf/link")},
	},
}

// A diet is what a package may import of what is not ours.
type diet struct {
	room    string
	only    []string // libraries besides the standard one; nil: any
	without []string
	why     string
}

// worldly is what reaches outside the process.
var worldly = []string{
	"os", "syscall", "net/http", "golang.org/x/sys", "k8s.io/client-go", "sigs.k8s.io/controller-runtime",
}

var diets = []diet{
	{"plugins/abi", []string{}, nil, "it is compiled into every plugin, in languages' smallest runtimes"},
	{"plugins/guest", []string{}, nil, "it is compiled into every plugin"},
	{"crds", []string{"k8s.io/apimachinery"}, nil, "strangers import API types and should get nothing else with them"},
	{"core/redirect", nil, worldly, "it is a pure function: no client and no kernel"},
}

var narrow = rule{
	name: "narrow-packages",
	why:  "some packages promise their importers how little they need",
	check: func(t *tree) (found []finding) {
		eachImport(t, func(s *source, imported string) {
			for _, d := range diets {
				if within(s.dir, d.room) && !s.test && !d.allows(imported) {
					found = append(found, finding{s.path, fmt.Sprintf("%s may not import %s: %s", d.room, imported, d.why)})
				}
			}
		})
		return found
	},
	broken: map[string]files{
		"plugins/abi/log.go":         {"plugins/abi/log.go": importing("abi", "k8s.io/klog/v2")},
		"crds/proxy/v1alpha1/reg.go": {"crds/proxy/v1alpha1/reg.go": importing("v1alpha1", "sigs.k8s.io/controller-runtime/pkg/scheme")},
		"core/redirect/watch.go":     {"core/redirect/watch.go": importing("redirect", "k8s.io/client-go/informers")},
		"core/redirect/node.go":      {"core/redirect/node.go": importing("redirect", "os")},
	},
}

func (d diet) allows(imported string) bool {
	below := func(library string) bool { return within(imported, library) }
	standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	if slices.ContainsFunc(d.without, below) {
		return false
	}
	// What is ours is the arrows' business.
	return d.only == nil || standard || within(imported, module) || slices.ContainsFunc(d.only, below)
}

const kubernetes = "k8s.io/kubernetes"

var productModule = rule{
	name: "no-kubernetes-in-the-product",
	why:  "k8s.io/kubernetes is not made to be imported, and whoever imports us would inherit its replacements",
	check: func(t *tree) (found []finding) {
		if strings.Contains(t.files["go.mod"], kubernetes+" v") {
			found = append(found, finding{"go.mod", "must not require " + kubernetes})
		}
		eachImport(t, func(s *source, imported string) {
			if within(imported, kubernetes) && t.moduleOf(s.dir) == "." {
				found = append(found, finding{s.path, "must not import " + kubernetes})
			}
		})
		return found
	},
	broken: map[string]files{
		"go.mod":                     {"go.mod": "module " + module + "\n\nrequire k8s.io/kubernetes v1.37.2 // indirect\n"},
		"test/e2e/scheduler_test.go": {"test/e2e/scheduler_test.go": importing("e2e", kubernetes+"/cmd/kube-scheduler/app")},
	},
}

// moduleOf returns the root of the Go module that a directory belongs to.
func (t *tree) moduleOf(dir string) string {
	for dir != "." {
		if _, ok := t.files[dir+"/go.mod"]; ok {
			return dir
		}
		dir = path.Dir(dir)
	}
	return "."
}

// importing is a Go file that imports one thing.
func importing(pkg, imported string) string {
	return fmt.Sprintf("package %s\n\nimport _ %q\n", pkg, imported)
}

package kubectl

import (
	"strings"
	"testing"
)

// TestWatchersSeeTheSame lets direct and proxied watchers of one namespace
// print what happens there at the same time.
func TestWatchersSeeTheSame(t *testing.T) {
	p := newProxy(t)
	for name, line := range map[string]string{
		"table":      "get configmaps -w",
		"wide":       "get configmaps -w -o wide --show-labels",
		"events":     "get configmaps -w --output-watch-events",
		"yaml":       "get configmaps -w -o yaml",
		"json":       "get configmaps -w -o json --output-watch-events",
		"name":       "get configmaps -w -o name",
		"changes":    "get configmaps -w -o name --watch-only -v=6",
		"selected":   "get configmaps -w -l app=web --output-watch-events",
		"one-object": "get configmap web -w --output-watch-events --show-labels",
		"all-events": "get events -w -v=6 --output-watch-events -o name",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct, proxied := newSide(t, nil), newSide(t, p)
			proxied.namespace = direct.namespace
			direct.direct().in(configMap).works("create -f -")
			both := []*process{direct.start(line), proxied.start(line)}
			for _, w := range both {
				if strings.Contains(line, "-v=6") {
					w.expectLog("watch=true")
				} else {
					w.expect("web")
				}
			}
			change(direct.direct())
			for _, w := range both {
				w.expect(final)
				w.interrupt()
				w.cut(final)
			}
			same(t, direct, proxied)
		})
	}
}

// final is in the last event of each watch.
const final = "this-is-all"

// change does to ConfigMaps what can be done to them.
func change(s *side) {
	s.works("create configmap other --from-literal=a=b")
	s.works("label configmap other app=web")
	s.works("patch configmap web", `-p={"data":{"greeting":"good bye"}}`)
	s.works("label configmap other app-")
	s.works("delete configmap other")
	s.works("annotate configmap web example.org/note=hi")
	s.works("label configmap web is=" + final)
	s.in(strings.ReplaceAll(configMap, "name: web", "name: "+final)).works("create -f -")
	s.in(`
apiVersion: v1
kind: Event
metadata: {name: web.` + final + `}
involvedObject: {kind: ConfigMap, name: web, namespace: ` + s.namespace + `}
type: Normal
`).works("create -f -")
}

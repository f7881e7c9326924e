package filters

import (
	"strings"
	"sync"
	"testing"
)

const twoMaps = `apiVersion: v1
kind: ConfigMap
metadata: {name: seen, namespace: views, annotations: {secret: not-for-jane}}
data: {k: v}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: unseen, namespace: views, labels: {hide: "yes"}}
data: {k: not-for-jane}
`

// TestFiltersSayWhatIsSeen has a module hide and change objects in all answers that
// one caller gets, and in no others.
func TestFiltersSayWhatIsSeen(t *testing.T) {
	must(t, world.KubeconfigPath(), "", "create", "namespace", "views")
	must(t, world.KubeconfigPath(), twoMaps, "apply", "-f", "-")
	for _, flag := range []string{"--watch-cache=true", "--watch-cache=false"} {
		t.Run(flag, func(t *testing.T) {
			p := newProxy(t, flag)
			jane, joe := p.Kubeconfig(world.Token("jane")), p.Kubeconfig(world.Token("joe"))
			early := map[string]<-chan string{jane: followed(t, jane), joe: followed(t, joe)}
			apply(t, ofGuest("glass", "{inline: "+encoded(t, fromC(t, "../../../plugins/tck/guests/c/guest.c"))+"}")+strings.NewReplacer(
				"verbs: [create]", "namespaces: [views]", "spec:\n  filterRef", "spec:\n  phase: View\n  filterRef").Replace(bound("glass")))
			inForce(t, "wasmfilter/glass", "filterbinding/glass")
			if out := <-early[jane]; !strings.Contains(out, `"reason":"Expired"`) {
				t.Errorf("what jane followed before ended with %s", out)
			}
			select {
			case out := <-early[joe]:
				t.Errorf("what joe followed before ended with %s", out)
			default:
			}
			maps := func(args ...string) []string {
				return append([]string{"--namespace=views", "get", "configmaps"}, args...)
			}
			for _, args := range [][]string{maps(), maps("-o", "yaml"), maps("-o", "json", "--chunk-size=1"), maps("-o", "yaml", "seen"), {"get", "--raw", "/api/v1/namespaces/views/configmaps?resourceVersion=0&watch=true&timeoutSeconds=2"}} {
				out := must(t, jane, "", args...)
				if !strings.Contains(out, "seen") || strings.Contains(out, "unseen") || strings.Contains(out, "not-for-jane") {
					t.Errorf("%v: jane gets %s", args, out)
				}
				if args[len(args)-1] == "configmaps" && !strings.Contains(out, "<masked>") {
					t.Errorf("%v: jane gets %s", args, out)
				}
			}
			if out, err := kubectl(jane, "", maps("unseen")...); err == nil || !strings.Contains(out, `configmaps "unseen" not found`) {
				t.Errorf("%v: %s", err, out)
			}
			if out := must(t, joe, "", maps("unseen", "--output=yaml")...); !strings.Contains(out, "not-for-jane") {
				t.Errorf("joe gets %s", out)
			}
			must(t, world.KubeconfigPath(), "", "delete", "filterbinding/glass", "wasmfilter/glass")
			until(t, "the filter is gone", func() bool {
				_, err := kubectl(jane, "", maps("unseen")...)
				return err == nil
			})
		})
	}
}

// followed watches what there is in a namespace, and tells all of it in the end.
func followed(t *testing.T, kubeconfig string) <-chan string {
	t.Helper()
	out, ctx := make(chan string, 1), t.Context()
	begun := &beginning{begun: make(chan struct{})}
	cmd := world.Kubectl(ctx, kubeconfig, "get", "--raw", "/api/v1/namespaces/views/configmaps?watch=true")
	cmd.Stdout, cmd.Stderr = begun, begun
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // be it that the test ends
		out <- begun.text()
	}()
	<-begun.begun
	return out
}

// beginning keeps what is written, and closes begun with the first of it.
type beginning struct {
	begun chan struct{}

	mu  sync.Mutex // guards following
	all strings.Builder
}

func (b *beginning) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all.Len() == 0 {
		close(b.begun)
	}
	return b.all.Write(p)
}

func (b *beginning) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

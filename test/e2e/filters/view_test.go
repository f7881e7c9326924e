package filters

import (
	"strings"
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
			apply(t, ofGuest("glass", "{inline: "+encoded(t, fromC(t, "../../../plugins/tck/guests/c/guest.c"))+"}")+strings.NewReplacer(
				"verbs: [create]", "namespaces: [views]", "spec:\n  filterRef", "spec:\n  phase: View\n  filterRef").Replace(bound("glass")))
			inForce(t, "wasmfilter/glass", "filterbinding/glass")
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

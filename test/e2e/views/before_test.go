package views

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/test/proxy"
)

// An early watch began before there was a view.
type early struct {
	who, of, format string
	watch.Interface
}

func (e *early) String() string { return fmt.Sprintf("%s's watch of %s in %s", e.who, e.of, e.format) }

// watched opens a watch from what there is now, by whatever road it is answered.
func watched(t *testing.T, p *proxy.Proxy, who, of, format string) *early {
	t.Helper()
	cfg := p.Config(world.Token(who))
	cfg.ContentType, cfg.AcceptContentTypes = format, format
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resource, namespace, _ := strings.Cut(of, " ")
	var w watch.Interface
	switch resource {
	case "configmaps": // which are not in memory
		w, err = from(t, c.CoreV1().ConfigMaps(namespace).List, c.CoreV1().ConfigMaps(namespace).Watch)
	case "configmaps-as-stream": // which the API server would compress
		w, err = c.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{
			SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
		})
	case "serviceaccounts":
		w, err = from(t, c.CoreV1().ServiceAccounts(namespace).List, c.CoreV1().ServiceAccounts(namespace).Watch)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return &early{who, of, format, w}
}

func from[L metav1.ListInterface](t *testing.T, list func(context.Context, metav1.ListOptions) (L, error), follow func(context.Context, metav1.ListOptions) (watch.Interface, error)) (watch.Interface, error) {
	t.Helper()
	all, err := list(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	return follow(t.Context(), metav1.ListOptions{ResourceVersion: all.GetResourceVersion(), AllowWatchBookmarks: true})
}

// expires fails unless the watch ends with 410.
func (e *early) expires(t *testing.T) {
	t.Helper()
	var last watch.Event
	for event := range e.ResultChan() {
		last = event
	}
	if last.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(last.Object)) {
		t.Errorf("%s ended with %+v", e, last)
	}
}

// goesOn fails unless the watch shows an object that has been made meanwhile.
func (e *early) goesOn(t *testing.T, name string) {
	t.Helper()
	for event := range e.ResultChan() {
		if o, ok := event.Object.(metav1.Object); ok && o.GetName() == name {
			return
		}
	}
	t.Errorf("%s ended", e)
}

// begin opens watches of what one caller is about to be shown less of, of what he goes on
// being shown, and those of another.
func begin(t *testing.T, p *proxy.Proxy, who, in string) (narrowed, shown, others []*early) {
	t.Helper()
	for _, format := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		for _, of := range []string{"configmaps", "configmaps-as-stream", "serviceaccounts"} {
			narrowed = append(narrowed, watched(t, p, who, of, format))
			shown = append(shown, watched(t, p, who, of+" "+in, format))
			others = append(others, watched(t, p, "quin", of, format))
		}
	}
	return narrowed, shown, others
}

// TestWatchesFromBeforeAViewEnd has views of every kind come into force while watches
// are open that nobody had to know the callers of.
func TestWatchesFromBeforeAViewEnd(t *testing.T) {
	apply(t, namespace("before", "")+namespace("beside", ""))
	const rego = `package early

selectors contains {"namespaces": ["before"]} if input.user.name == "pete"
selectors contains {"namespaces": ["*"]} if input.user.name == "quin"
`
	for name, put := range map[string]func(*testing.T){
		"virtualview": func(t *testing.T) { show(t, "early", "  subjects: {users: [pete]}\n  namespaces: {names: [before]}\n") },
		"labels": func(t *testing.T) {
			show(t, "early", "  subjects: {users: [pete]}\n  namespaces: {selector: {matchLabels: {kubernetes.io/metadata.name: before}}}\n")
		},
		"audited-first": func(t *testing.T) {
			show(t, "early", "  subjects: {users: [pete]}\n  namespaces: {names: [before]}\n  mode: Audit\n")
			admin(t, "", "patch", "virtualview", "early", "--type=merge", "-p", `{"spec":{"mode":"Enforce"}}`)
		},
		"other-subject": func(t *testing.T) {
			show(t, "early", "  subjects: {users: [nobody]}\n  namespaces: {names: [before]}\n")
			admin(t, "", "patch", "virtualview", "early", "--type=merge", "-p", `{"spec":{"subjects":{"users":["pete"]}}}`)
		},
		"rego": func(t *testing.T) {
			policy := "apiVersion: proxy.elf.io/v1alpha1\nkind: RegoPolicy\nmetadata: {name: early}\nspec:\n  deadline: 10s\n  rego: " + quoted(rego) + "\n"
			apply(t, policy) // a binding without one shows nobody anything
			admin(t, "", "wait", "--for=condition=Programmed", "--timeout=2m", "regopolicy/early")
			apply(t, "apiVersion: proxy.elf.io/v1alpha1\nkind: FilterBinding\nmetadata: {name: early}\nspec: {filterRef: {kind: RegoPolicy, name: early}, phase: View, match: {users: [pete, quin]}}\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			narrowed, shown, others := begin(t, p, "pete", "before")
			put(t)
			for _, e := range narrowed {
				e.expires(t)
			}
			made := "made-under-" + name
			apply(t, settings("before", made, "", "x")+"---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: "+made+", namespace: before}\n")
			if name != "labels" { // he is refused until the proxy knows the namespaces' labels
				others = append(others, shown...)
			}
			for _, e := range others {
				e.goesOn(t, made)
			}
		})
	}
}

// TestNewTruthIsListed has an informer that began before a view lose what the view does
// not show.
func TestNewTruthIsListed(t *testing.T) {
	apply(t, namespace("truth", "")+namespace("untruth", "")+settings("truth", "a", "", "x")+settings("untruth", "b", "", "x"))
	p := newProxy(t)
	f := follow(t, newTenant(t, p, "pete"), "pete")
	if !f.configMaps.WaitForCacheSync(t.Context()) {
		t.Fatal("nothing is seen")
	}
	until(t, "all is seen", func() bool { return f.has(t)["configmap untruth/b"] != "" })
	show(t, "truth", "  subjects: {users: [pete]}\n  namespaces: {names: [truth]}\n")
	until(t, "what is not there any more is gone", func() bool {
		all := f.has(t)
		return all["configmap untruth/b"] == "" && all["configmap truth/a"] != ""
	})
}

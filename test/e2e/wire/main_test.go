package wire_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portico-proxy/portico/test/controlplane"
	"github.com/portico-proxy/portico/test/e2e/wire"
	"github.com/portico-proxy/portico/test/proxy"
)

// cp is the control plane that all tests of this package share.
var cp *controlplane.ControlPlane

const (
	reader = "reader" // may read ConfigMaps in namespace wire
	poor   = "poor"   // may as well, but one at a time
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{m}) }

// suite runs all tests on one control plane that holds still: no controller
// writes anything.
type suite struct{ tests *testing.M }

func (s suite) Run() int {
	ctx := context.Background()
	var err error
	cp, err = controlplane.Start(ctx, controlplane.Options{
		Users: []controlplane.User{{Name: reader}, {Name: poor}},
		Flags: map[controlplane.Part][]string{controlplane.APIServer: {
			"--feature-gates=CBORServingAndStorage=true",
			"--disable-admission-plugins=ServiceAccount", // nobody makes them here
			"--endpoint-reconciler-type=none",
			"--min-request-timeout=1", // of watches that do not say
		}},
	})
	if err == nil {
		defer cp.Stop()
		err = makeState(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return s.tests.Run()
}

func newProxy(tb testing.TB, flags ...string) *proxy.Proxy {
	tb.Helper()
	return proxy.New(tb, proxy.Options{Kubeconfig: cp.KubeconfigPath(), Flags: flags})
}

// direct and proxied are the two ways to the API server.
func direct() wire.Server                { return wire.At(cp.URL(), serverCA()) }
func proxied(p *proxy.Proxy) wire.Server { return wire.At(p.URL, p.CA) }
func admin(r wire.Request) wire.Request  { return r.Bearer(cp.Token("admin").Token) }
func serverCA() []byte                   { return cp.Config().CAData }
func object(kind, version string, rest map[string]any) map[string]any {
	rest["kind"], rest["apiVersion"] = kind, version
	return rest
}

func named(name string) map[string]any { return map[string]any{"name": name} }

// makeState makes what the tests read. It is not changed after that.
func makeState(ctx context.Context) error {
	if err := create(ctx, state()); err != nil {
		return err
	}
	if err := until(ctx, admin(wire.Request{Target: gadgetsAt}), http.StatusOK); err != nil {
		return err
	}
	var all []made
	for i := range 3 {
		all = append(all, made{gadgetsAt, object("Gadget", "wire.example.com/v1", map[string]any{
			"metadata": named(fmt.Sprintf("gadget-%d", i)), "spec": map[string]any{"size": fmt.Sprint(i), "free": []any{1, 2.5, nil, "x"}},
		})})
	}
	return create(ctx, all)
}

func create(ctx context.Context, all []made) error {
	for _, o := range all {
		body, err := json.Marshal(o.body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", o.path, err)
		}
		r := admin(wire.Request{Method: http.MethodPost, Target: o.path, Body: body}).With("Content-Type", "application/json")
		res, err := direct().HTTP2(ctx, r)
		if err != nil {
			return fmt.Errorf("create in %s: %w", o.path, err)
		}
		if res.Code != http.StatusCreated {
			return fmt.Errorf("create in %s: %v", o.path, res)
		}
	}
	return nil
}

// until waits for what follows from what was created.
func until(ctx context.Context, r wire.Request, code int) error {
	for {
		res, err := direct().HTTP2(ctx, r)
		if err != nil || res.Code == code {
			return err
		}
	}
}

type made struct {
	path string
	body map[string]any
}

func state() []made {
	all := []made{{"/api/v1/namespaces", object("Namespace", "v1", map[string]any{"metadata": named("wire")})}}
	for i := range 60 {
		all = append(all, made{"/api/v1/namespaces/wire/configmaps", object("ConfigMap", "v1", map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("cm-%02d", i), "labels": map[string]any{"half": fmt.Sprint(i % 2), "unicode": "x"}},
			"data":     map[string]any{"text": strings.Repeat(fmt.Sprintf("line %d of many ", i), 200), "more": "ключ\n<&>\u2028"},
		})})
	}
	for i := range 3 {
		all = append(all, made{"/api/v1/namespaces/wire/pods", object("Pod", "v1", map[string]any{
			"metadata": named(fmt.Sprintf("pod-%d", i)),
			"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "none.invalid/none"}}},
		})})
	}
	return append(all, kinds()...)
}

// kinds are one object each of kinds that are answered by other code.
func kinds() []made {
	limited := map[string]any{"type": "Limited", "limited": map[string]any{
		"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": map[string]any{"type": "Reject"},
	}}
	return []made{
		{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", gadgets()},
		{"/api/v1/nodes", object("Node", "v1", map[string]any{"metadata": named("node-a")})},
		{"/api/v1/namespaces/wire/secrets", object("Secret", "v1", map[string]any{"metadata": named("secret"), "stringData": map[string]any{"a": "b"}})},
		{"/api/v1/namespaces/wire/serviceaccounts", object("ServiceAccount", "v1", map[string]any{"metadata": named("account")})},
		{"/api/v1/namespaces/wire/services", object("Service", "v1", map[string]any{
			"metadata": named("service"), "spec": map[string]any{"ports": []any{map[string]any{"port": 80}}},
		})},
		{"/apis/rbac.authorization.k8s.io/v1/namespaces/wire/roles", object("Role", "rbac.authorization.k8s.io/v1", map[string]any{
			"metadata": named(reader),
			"rules":    []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"configmaps"}, "verbs": []any{"get", "list", "watch"}}},
		})},
		{"/apis/rbac.authorization.k8s.io/v1/namespaces/wire/rolebindings", object("RoleBinding", "rbac.authorization.k8s.io/v1", map[string]any{
			"metadata": named(reader),
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": reader},
			"subjects": []any{
				map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": reader},
				map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": poor},
			},
		})},
		{"/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", object("PriorityLevelConfiguration", "flowcontrol.apiserver.k8s.io/v1",
			map[string]any{"metadata": named(poor), "spec": limited})},
		{"/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", object("FlowSchema", "flowcontrol.apiserver.k8s.io/v1", map[string]any{
			"metadata": named(poor),
			"spec": map[string]any{
				"matchingPrecedence": 10, "priorityLevelConfiguration": named(poor),
				"rules": []any{map[string]any{
					"subjects":      []any{map[string]any{"kind": "User", "user": named(poor)}},
					"resourceRules": []any{map[string]any{"apiGroups": []any{"*"}, "namespaces": []any{"*"}, "resources": []any{"*"}, "verbs": []any{"*"}, "clusterScope": true}},
				}},
			},
		})},
	}
}

func gadgets() map[string]any {
	version := func(name string, storage bool) map[string]any {
		return map[string]any{
			"name": name, "served": true, "storage": storage, "deprecated": !storage,
			"subresources":     map[string]any{"status": map[string]any{}},
			"schema":           map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			"selectableFields": []any{}, "additionalPrinterColumns": []any{map[string]any{"name": "Size", "type": "string", "jsonPath": ".spec.size"}},
		}
	}
	return object("CustomResourceDefinition", "apiextensions.k8s.io/v1", map[string]any{
		"metadata": named("gadgets.wire.example.com"),
		"spec": map[string]any{
			"group": "wire.example.com", "scope": "Namespaced",
			"names":    map[string]any{"plural": "gadgets", "kind": "Gadget", "singular": "gadget"},
			"versions": []any{version("v1", true), version("v1beta1", false)},
		},
	})
}

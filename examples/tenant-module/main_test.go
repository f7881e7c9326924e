package main

import (
	"strings"
	"testing"

	"github.com/portico-proxy/portico/plugins/abi"
	"github.com/portico-proxy/portico/plugins/guest/guesttest"
)

const shop = `{"prefix":"shop"}`

func TestTheTenantHasNamespacesOfOnePrefix(t *testing.T) {
	for name, tt := range map[string]struct {
		attrs  map[abi.Attr]string
		object string
		result int32
		want   string
	}{
		"own-namespace":    {map[abi.Attr]string{abi.Resource: "namespaces"}, `{"metadata":{"name":"shop-web"}}`, abi.Keep, `{"metadata":{"name":"shop-web"}}`},
		"other-namespace":  {map[abi.Attr]string{abi.Resource: "namespaces"}, `{"metadata":{"name":"bank"}}`, abi.Drop, `{"metadata":{"name":"bank"}}`},
		"of-the-cluster":   {map[abi.Attr]string{abi.Resource: "nodes"}, `{"metadata":{"name":"n1"}}`, abi.Keep, `{"metadata":{"name":"n1"}}`},
		"in-own":           {map[abi.Attr]string{abi.Resource: "configmaps"}, `{"metadata":{"namespace":"shop"}}`, abi.Keep, `{"metadata":{"namespace":"shop"}}`},
		"in-other":         {map[abi.Attr]string{abi.Resource: "configmaps"}, `{"metadata":{"namespace":"bank"}}`, abi.Drop, `{"metadata":{"namespace":"bank"}}`},
		"secret":           {map[abi.Attr]string{abi.Resource: "secrets"}, `{"metadata":{"namespace":"shop"},"data":{"a":"b"}}`, abi.Patched, `{"metadata":{"namespace":"shop"}}`},
		"secret-is-made":   {map[abi.Attr]string{abi.Resource: "secrets", abi.Verb: "create"}, `{"data":{"a":"b"},"metadata":{"namespace":"shop"}}`, abi.Keep, `{"data":{"a":"b"},"metadata":{"namespace":"shop"}}`},
		"made-in-another":  {map[abi.Attr]string{abi.Resource: "pods", abi.Verb: "create"}, `{"metadata":{"namespace":"bank"}}`, abi.Drop, `{"metadata":{"namespace":"bank"}}`},
		"namespace-of-own": {map[abi.Attr]string{abi.Resource: "namespaces", abi.Verb: "create"}, `{"metadata":{"name":"shop-2"}}`, abi.Keep, `{"metadata":{"name":"shop-2"}}`},
	} {
		if out := guesttest.Run(guesttest.Input{Config: shop, Attrs: tt.attrs, Object: tt.object}, onObject); out.Result != tt.result || out.Object != tt.want {
			t.Errorf("%s: got %+v", name, out)
		}
	}
}

func TestRequestsStayInTheTenantsNamespaces(t *testing.T) {
	for name, tt := range map[string]struct {
		attrs  map[abi.Attr]string
		result int32
	}{
		"own":             {map[abi.Attr]string{abi.Namespace: "shop", abi.Resource: "pods", abi.Verb: "delete"}, abi.Continue},
		"other":           {map[abi.Attr]string{abi.Namespace: "bank", abi.Resource: "pods", abi.Verb: "get"}, abi.Deny},
		"all":             {map[abi.Attr]string{abi.Resource: "pods", abi.Verb: "list"}, abi.Continue},
		"secret":          {map[abi.Attr]string{abi.Namespace: "shop", abi.Resource: "secrets", abi.Verb: "get"}, abi.Continue},
		"secret-is-given": {map[abi.Attr]string{abi.Namespace: "shop", abi.Resource: "secrets", abi.Verb: "update"}, abi.Deny},
	} {
		if out := guesttest.Run(guesttest.Input{Config: shop, Attrs: tt.attrs}, onRequest); out.Result != tt.result {
			t.Errorf("%s: got %+v", name, out)
		}
	}
}

func TestConfigurationNamesThePrefix(t *testing.T) {
	if out := guesttest.Run(guesttest.Input{Config: `{}`}, configure); out.Result == 0 || !strings.Contains(out.Failure, "prefix") {
		t.Errorf("accepted without a prefix: %+v", out)
	}
}

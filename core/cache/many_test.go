package cache_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kproto "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/test/controlplane"
)

// TestHundredThousandSmallObjects are read whole and in pages while somebody
// else watches something small.
func TestHundredThousandSmallObjects(t *testing.T) {
	const n = 100_000
	many := controlplane.New(t, planeOptions(""))
	putMany(t, etcd(t, many), n)
	d := cachetest.NewDoor(t, many.Config())
	d.AddNamespace("quiet")
	const path, other = "/api/v1/configmaps", "/api/v1/namespaces/quiet/services"
	p := newProxyOf(t, many.Config(), nothingRefused)
	p.warm(other, cachetest.JSON)
	p.warm(path, cachetest.Protobuf)
	rv := d.Get(path+"?limit=1", cachetest.JSON).List(t).Metadata.ResourceVersion
	exact := path + "?resourceVersionMatch=Exact&resourceVersion=" + rv
	want := d.Get(exact, cachetest.Protobuf).Body

	const readers, rounds = 4, 3
	done := make(chan error, readers)
	for range readers {
		door := cachetest.NewDoor(t, p.config)
		go func() {
			var err error
			for range rounds {
				if got := door.Get(exact, cachetest.Protobuf); got.ServedBy() != "cache" || !bytes.Equal(got.Body, want) {
					err = fmt.Errorf("list by %q: %d bytes, want %d", got.ServedBy(), len(got.Body), len(want))
				}
			}
			done <- err
		}()
	}
	watch := p.Watch(other+"?watch=true&resourceVersion="+rv, cachetest.JSON)
	for i, left := 0, readers; left > 0; i++ {
		name := fmt.Sprintf("s-%d", i)
		d.Write(http.MethodPost, other, object{"metadata": object{"name": name}, "spec": object{"clusterIP": "None"}})
		if e := watch.Event(); e.Object.Metadata.Name != name {
			t.Fatalf("the watch of services got %+v, want %s", e, name)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			left--
		default:
		}
	}

	p.warm(path, cachetest.JSON)
	names := map[string]bool{}
	for token := ""; ; {
		page := p.Get(path+"?limit=10000&continue="+url.QueryEscape(token), cachetest.JSON)
		for _, i := range page.List(t).Items {
			names[i.Metadata.Namespace+"/"+i.Metadata.Name] = true
		}
		if token = page.List(t).Metadata.Continue; token == "" {
			break
		}
	}
	if len(names) < n {
		t.Errorf("pages have %d of %d objects", len(names), n)
	}
}

// putMany writes small ConfigMaps past the API server, which would take minutes.
func putMany(t *testing.T, to *clientv3.Client, n int) {
	t.Helper()
	encoder := scheme.Codecs.EncoderForVersion(kproto.NewSerializer(scheme.Scheme, scheme.Scheme), corev1.SchemeGroupVersion)
	const together = 100 // etcd takes no more than 128
	for i := 0; i < n; i += together {
		var ops []clientv3.Op
		for j := i; j < i+together; j++ {
			name := fmt.Sprintf("c-%06d", j)
			raw, err := runtime.Encode(encoder, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "many", UID: types.UID(name)}, Data: map[string]string{"n": strconv.Itoa(j)},
			})
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, clientv3.OpPut("/registry/configmaps/many/"+name, string(raw)))
		}
		if _, err := to.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// last is the name of the object that is made when all changes have been.
const last = "this-is-all"

// TestInformersAgreeWithTheAPIServer follows a namespace with each kind of
// informer, directly and through the proxy, while its objects change. In the
// end they must have what the API server has, and have logged no more errors on
// one way than on the other.
func TestInformersAgreeWithTheAPIServer(t *testing.T) {
	p := newProxy(t)
	ns := addNamespace(t, "shop-informers")
	client := clientset(t, cp.Config())
	for n := range 200 {
		put(t, client, ns, n)
	}
	ctx, stop := context.WithCancel(t.Context())
	var churning sync.WaitGroup
	for seed := range 3 {
		churning.Go(func() { churn(ctx, t, client, ns, uint64(seed)) })
	}
	var all []*informers2
	for _, list := range []struct {
		name string
		env  []string
	}{
		{"watch-list", []string{"KUBE_FEATURE_WatchListClient=true", "KUBE_WATCHLIST_INCONSISTENCY_DETECTOR=true"}},
		{"list-then-watch", []string{"KUBE_FEATURE_WatchListClient=false", "KUBE_LIST_INCONSISTENCY_DETECTOR=true"}},
	} {
		all = append(all,
			startInformers(t, "direct-"+list.name, direct(), ns, list.env),
			startInformers(t, "proxied-"+list.name, through(p), ns, list.env))
	}
	for _, i := range all {
		i.awaitSynced(t)
	}
	for range 300 { // and some more while all follow
		churnOnce(t.Context(), t, client, ns, rand.New(rand.NewPCG(7, 7)))
	}
	stop()
	churning.Wait()
	makeLast(t, client, ns)

	want := listed(t, client, ns, "")
	half := listed(t, client, ns, "half")
	logged := map[string]string{}
	for _, i := range all {
		report := i.end(t)
		wantStores := map[string]map[string]string{"typed": want, "half": half, "dynamic": want, "metadata": want}
		if diff := cmp.Diff(wantStores, report.Stores); diff != "" {
			t.Errorf("%s: stores differ from a list (-list +store):\n%s", i.name, diff)
		}
		if streams := strings.HasSuffix(i.name, "watch-list"); report.Streamed != streams {
			t.Errorf("%s: lists were watches: %v, want %v", i.name, report.Streamed, streams)
		}
		logged[i.name] = i.errors()
	}
	for _, list := range []string{"watch-list", "list-then-watch"} {
		if diff := cmp.Diff(logged["direct-"+list], logged["proxied-"+list]); diff != "" {
			t.Errorf("%s: logged errors differ (-direct +proxied):\n%s", list, diff)
		}
	}
}

// churn changes random objects until ctx ends.
func churn(ctx context.Context, t *testing.T, client kubernetes.Interface, ns string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, seed))
	for ctx.Err() == nil {
		churnOnce(ctx, t, client, ns, random)
	}
}

// churnOnce makes, changes, relabels or deletes a random object.
func churnOnce(ctx context.Context, t *testing.T, client kubernetes.Interface, ns string, random *rand.Rand) {
	maps := client.CoreV1().ConfigMaps(ns)
	name := fmt.Sprintf("web-%d", random.IntN(250))
	var err error
	switch random.IntN(6) {
	case 0:
		err = maps.Delete(ctx, name, metav1.DeleteOptions{})
	case 1:
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	case 2:
		_, err = maps.Patch(ctx, name, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"half":null}}}`), metav1.PatchOptions{})
	case 3:
		_, err = maps.Patch(ctx, name, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"half":"1"}}}`), metav1.PatchOptions{})
	default:
		patch := fmt.Sprintf(`{"data":{"n":"%d","text":%q}}`, random.Int(), strings.Repeat("x", random.IntN(4000)))
		_, err = maps.Patch(ctx, name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	}
	if ctx.Err() == nil && err != nil && !expected(err) {
		t.Errorf("change %s: %v", name, err)
	}
}

package authz

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// settle is how long after a change decisions are forgotten once more: API
// servers learn of RBAC by watching it too, and one that has not yet heard of the
// change answers by what was before.
const settle = time.Second

// Follower tells a gate of changes to RBAC, of which it reads the metadata only.
// Where the proxy's identity may not, decisions just live out their time.
type Follower struct {
	Gate   *Gate
	Client metadata.Interface
	Log    logr.Logger
}

// Start follows until ctx ends, and returns when nothing of it runs any more.
func (f *Follower) Start(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	informers := metadatainformer.NewSharedInformerFactory(f.Client, 0)
	for _, resource := range []string{"roles", "rolebindings", "clusterroles", "clusterrolebindings"} {
		informer := informers.ForResource(rbacv1.SchemeGroupVersion.WithResource(resource)).Informer()
		if err := f.attach(informer, changed); err != nil {
			return err
		}
	}
	informers.Start(ctx.Done())
	defer informers.Shutdown()
	// Aside, as that may take long: what changes meanwhile is not to wait for it.
	judging := make(chan struct{}, 1)
	var beside sync.WaitGroup
	beside.Go(func() { f.judge(ctx, judging) })
	defer beside.Wait()
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	again := time.NewTimer(settle)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			f.Gate.forget()
			again.Reset(settle)
		case <-again.C:
			f.Gate.forget()
		case <-tick.C:
		}
		say(judging)
	}
}

// judge has open watches be judged whenever that is said, until ctx ends.
func (f *Follower) judge(ctx context.Context, said <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-said:
			f.Gate.judge(ctx)
		}
	}
}

func say(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // it has been said
	}
}

// attach makes an informer say that something has changed, whatever it is.
func (f *Follower) attach(informer cache.SharedIndexInformer, changed chan<- struct{}) error {
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { say(changed) },
		UpdateFunc: func(was, is any) {
			if versionOf(was) != versionOf(is) { // otherwise it is only told again, after a relist
				say(changed)
			}
		},
		DeleteFunc: func(any) { say(changed) },
	}); err != nil {
		return err
	}
	return informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		f.Log.V(1).Info("changes to RBAC are not seen; decisions live out their time", "reason", err.Error())
	})
}

func versionOf(o any) string {
	m, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}

// NeedLeaderElection tells controller-runtime that every replica follows.
func (f *Follower) NeedLeaderElection() bool { return false }

var (
	_ manager.Runnable               = (*Follower)(nil)
	_ manager.LeaderElectionRunnable = (*Follower)(nil)
)

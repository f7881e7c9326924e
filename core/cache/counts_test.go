package cache_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache"
	"github.com/portico-proxy/portico/core/cache/cachetest"
	"github.com/portico-proxy/portico/core/telemetry"
)

// figuresOf are those of a core resource in JSON.
func figuresOf(t *testing.T, p *proxy, resource string) telemetry.CollectionFigures {
	t.Helper()
	for _, f := range p.cache.Figures().Collections {
		if f.Group == "" && f.Resource == resource && f.Format == "json" {
			return f
		}
	}
	t.Fatalf("nothing is told of %s", resource)
	return telemetry.CollectionFigures{}
}

func TestAnswersAreCounted(t *testing.T) {
	d := direct(t)
	d.AddNamespace("counted")
	const path = "/api/v1/namespaces/counted/configmaps"
	made := d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p := newProxy(t, nothingRefused)
	p.warm(path, cachetest.JSON)
	before := figuresOf(t, p, "configmaps")
	if before.Streams != 1 || before.Objects == 0 || before.Bytes == 0 || before.Resets != 1 || before.Upstream[telemetry.ForWatch] == 0 {
		t.Errorf("a collection that was just loaded: %+v", before)
	}

	p.Get(path+"?resourceVersion=0", cachetest.JSON)
	p.Get(path, cachetest.JSON) // proven one way or the other
	w := p.Watch(path+"?watch=true&resourceVersion="+cachetest.ResourceVersion(made), cachetest.JSON)
	d.Patch(path+"/c", `{"data":{"n":"1"}}`)
	w.Event()
	now := figuresOf(t, p, "configmaps")
	answers := func(f telemetry.CollectionFigures) int64 {
		return f.Answers[telemetry.ServedByCache] + f.Answers[telemetry.ServedByCoalesced]
	}
	if n := answers(now) - answers(before); n != 3 {
		t.Errorf("%d answers were counted, want 3", n)
	}
	if now.Watchers != 1 || now.Events <= before.Events || now.ResourceVersion <= before.ResourceVersion {
		t.Errorf("after an event: %+v, before %+v", now, before)
	}
	if now.Upstream[telemetry.ForProbe] == before.Upstream[telemetry.ForProbe] {
		t.Error("the probe is not counted")
	}
	proofs := now.Proofs[telemetry.ProofNatural] + now.Proofs[telemetry.ProofCoalesced] + now.Proofs[telemetry.ProofCatchUp]
	if proofs != 1 || now.Proofs[telemetry.ProofFailed] != 0 {
		t.Errorf("proofs: %v", now.Proofs)
	}
}

func TestWhatIsPassedOnHasAReason(t *testing.T) {
	d := direct(t)
	d.AddNamespace("passed")
	p := newProxy(t, func(o *cache.Options) {
		o.Policies = func(r schema.GroupResource) cache.Policy { return cache.Policy{Refuse: r.Resource == "secrets"} }
	})
	const path = "/api/v1/namespaces/passed/configmaps"
	p.warm(path, cachetest.JSON)
	for reason, ask := range map[string]struct{ path, accept string }{
		telemetry.PassedPolicy:      {"/api/v1/secrets?resourceVersion=0", cachetest.JSON},
		telemetry.PassedNewestGet:   {path + "/c", cachetest.JSON},
		telemetry.PassedNotFound:    {path + "/c?resourceVersion=0", cachetest.JSON},
		telemetry.PassedUnsupported: {path + "?resourceVersion=0", "application/json;as=Table;g=meta.k8s.io;v=v1"},
		telemetry.PassedHistory:     {path + "?watch=true&resourceVersion=1&timeoutSeconds=1", cachetest.JSON},
		telemetry.PassedNotCurrent:  {path + "?resourceVersion=" + strconv.Itoa(1<<40), cachetest.JSON},
	} {
		before := p.cache.Figures().Passed[reason]
		p.Get(ask.path, ask.accept)
		if n := p.cache.Figures().Passed[reason] - before; n != 1 {
			t.Errorf("%s: counted %d times as %s: %v", ask.path, n, reason, p.cache.Figures().Passed)
		}
	}
}

func TestEndsOfStreamsAreCounted(t *testing.T) {
	d := direct(t)
	d.AddNamespace("ends")
	said := make(chan string, 100)
	log := funcr.New(func(_, args string) { said <- args }, funcr.Options{})
	p := newProxy(t, func(o *cache.Options) { nothingRefused(o); o.MemoryBudget, o.Log = 1, log })
	const path = "/api/v1/namespaces/ends/configmaps"
	d.Write(http.MethodPost, path, object{"metadata": object{"name": "c"}})
	p.Get(path+"?resourceVersion=0", cachetest.JSON)
	until(t, func() bool { return p.cache.Figures().Ended[telemetry.EndedOverBudget] > 0 })
	before := p.cache.Figures().Passed[telemetry.PassedUnavailable]
	p.Get(path+"?resourceVersion=0", cachetest.JSON)
	if f := p.cache.Figures(); f.Passed[telemetry.PassedUnavailable] != before+1 || f.Memory != 0 || f.MemoryLimit != 1 {
		t.Errorf("got %+v", f)
	}
	if line := <-said; !strings.Contains(line, "does not fit into memory") || !strings.Contains(line, "configmaps") {
		t.Errorf("logged %s", line)
	}
}

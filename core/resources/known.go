package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	v2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// documents is what is asked for: all groups in one answer.
	documents = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	// maxDocument bounds an answer, in bytes, and patience how long one takes.
	maxDocument = 32 << 20
	patience    = 30 * time.Second
)

var errUnfit = errors.New("the API server has no aggregated discovery")

// known is what the API server had at one moment. It is never changed.
type known struct {
	at     time.Time // when it was asked for
	core   document  // of /api
	named  document  // of /apis
	groups map[string]*group
}

// document is an answer of discovery.
type document struct {
	version string // the server's name for it
	groups  map[string]*group
}

// group is what one group has, in all its versions.
type group struct {
	stale     bool // the API server itself could not ask for all of it
	resources map[string]*resource
}

type resource struct {
	called       []string // what it is called besides: kind in lower case, singular, short names
	subresources map[string]bool
}

// time is at as conditions have it: two proxies must not take one time for two.
func (k *known) time() metav1.Time { return metav1.NewTime(k.at.Truncate(time.Second)) }

func (k *known) equal(o *known) bool { return reflect.DeepEqual(k.groups, o.groups) }

// read asks for both documents, or whether they are what they were.
func (o *Options) read(ctx context.Context, was *known) (*known, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if was == nil {
		was = &known{}
	}
	is := &known{at: time.Now(), groups: map[string]*group{}}
	var err error
	if is.core, err = o.document(ctx, "/api", was.core); err != nil {
		return nil, err
	}
	if is.named, err = o.document(ctx, "/apis", was.named); err != nil {
		return nil, err
	}
	maps.Copy(is.groups, is.named.groups)
	maps.Copy(is.groups, is.core.groups)
	return is, nil
}

func (o *Options) document(ctx context.Context, path string, was document) (document, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Base.JoinPath(path).String(), nil)
	if err != nil {
		return document{}, fmt.Errorf("ask for %s: %w", path, err)
	}
	r.Header.Set("Accept", documents)
	if was.version != "" {
		r.Header.Set("If-None-Match", was.version)
	}
	res, err := o.Upstream.RoundTrip(r)
	if err != nil {
		return document{}, fmt.Errorf("ask for %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotModified && was.version != "":
		return was, nil
	case res.StatusCode == http.StatusNotAcceptable, res.StatusCode == http.StatusOK && !strings.Contains(res.Header.Get("Content-Type"), "as=APIGroupDiscoveryList"):
		return document{}, errUnfit
	case res.StatusCode != http.StatusOK:
		return document{}, fmt.Errorf("ask for %s: %s", path, res.Status)
	}
	var list v2.APIGroupDiscoveryList
	if err := json.NewDecoder(io.LimitReader(res.Body, maxDocument)).Decode(&list); err != nil {
		return document{}, fmt.Errorf("read %s: %w", path, err)
	}
	return document{version: res.Header.Get("Etag"), groups: groupsOf(&list)}, nil
}

func groupsOf(list *v2.APIGroupDiscoveryList) map[string]*group {
	all := map[string]*group{}
	for i := range list.Items {
		g := &group{resources: map[string]*resource{}}
		all[list.Items[i].Name] = g
		for _, v := range list.Items[i].Versions {
			g.stale = g.stale || v.Freshness == v2.DiscoveryFreshnessStale
			for j := range v.Resources {
				g.add(&v.Resources[j])
			}
		}
	}
	return all
}

func (g *group) add(d *v2.APIResourceDiscovery) {
	r := g.resources[d.Resource]
	if r == nil {
		r = &resource{subresources: map[string]bool{}}
		g.resources[d.Resource] = r
	}
	names := append(slices.Clone(d.ShortNames), d.SingularResource)
	if d.ResponseKind != nil {
		names = append(names, strings.ToLower(d.ResponseKind.Kind))
	}
	for _, n := range names {
		if n != "" && !slices.Contains(r.called, n) {
			r.called = append(r.called, n)
		}
	}
	for _, s := range d.Subresources {
		r.subresources[s.Subresource] = true
	}
}

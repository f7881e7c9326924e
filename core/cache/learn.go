package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/portico-proxy/portico/core/cache/internal/stream"
	"github.com/portico-proxy/portico/core/cache/wire"
)

// errUnfit says that a resource is not one to cache.
var errUnfit = errors.New("resource cannot be cached")

// maxDocument bounds what is read of a discovery document or a definition.
const maxDocument = 8 << 20

// read finds out how to read gvr's objects. The definition is nil unless gvr is
// a custom resource.
func (s *streams) read(ctx context.Context, gvr schema.GroupVersionResource) (*wire.Schema, *definition, error) {
	r, err := discover(ctx, s.source, gvr)
	if err != nil {
		return nil, nil, err
	}
	builtin := wire.Builtin(gvr, r.Kind, r.Namespaced)
	if !strings.Contains(gvr.Group, ".") {
		return builtin, nil, nil // a custom resource's group has a dot
	}
	// Before the definition is read, so that no change of it is missed.
	if err := s.follow(ctx); err != nil {
		return nil, nil, err
	}
	var crd definition
	err = fetch(ctx, s.source, stream.CollectionPath(definitionsResource, "")+"/"+gvr.GroupResource().String(), &crd)
	if err == nil {
		custom, err := crd.schema(gvr, r)
		return custom, &crd, err
	}
	if !apierrors.IsNotFound(err) {
		return nil, nil, err
	}
	return builtin, nil, s.refuseAggregated(ctx, gvr)
}

// refuseAggregated returns an error if gvr is served by an aggregated API
// server, whose resourceVersions need not be etcd's.
func (s *streams) refuseAggregated(ctx context.Context, gvr schema.GroupVersionResource) error {
	var service struct {
		Spec struct {
			Service *struct{} `json:"service"`
		} `json:"spec"`
	}
	if err := fetch(ctx, s.source, "/apis/apiregistration.k8s.io/v1/apiservices/"+gvr.Version+"."+gvr.Group, &service); err != nil {
		return err
	}
	if service.Spec.Service != nil {
		return fmt.Errorf("%s is served by an aggregated API server: %w", gvr, errUnfit)
	}
	return nil
}

// discover returns what discovery says of gvr.
func discover(ctx context.Context, from *stream.Source, gvr schema.GroupVersionResource) (*metav1.APIResource, error) {
	path := "/apis/" + gvr.Group + "/" + gvr.Version
	if gvr.Group == "" {
		path = "/api/" + gvr.Version
	}
	var resources metav1.APIResourceList
	if err := fetch(ctx, from, path, &resources); err != nil {
		return nil, err
	}
	for i := range resources.APIResources {
		r := &resources.APIResources[i]
		if r.Name == gvr.Resource && slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch") {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%s cannot be listed and watched: %w", gvr, errUnfit)
}

// fetch reads one JSON document.
func fetch(ctx context.Context, from *stream.Source, path string, into any) error {
	res, err := from.Get(ctx, path, url.Values{}, "application/json")
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocument))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// definitionSpec is what is read of a definition.
type definitionSpec struct {
	Names struct {
		ListKind string `json:"listKind"`
	} `json:"names"`
	Versions []struct {
		Name             string `json:"name"`
		SelectableFields []struct {
			JSONPath string `json:"jsonPath"`
		} `json:"selectableFields"`
	} `json:"versions"`
}

func (d *definition) schema(gvr schema.GroupVersionResource, r *metav1.APIResource) (*wire.Schema, error) {
	var spec definitionSpec
	if err := json.Unmarshal(d.Spec, &spec); err != nil {
		return nil, fmt.Errorf("read definition of %s: %w", gvr, err)
	}
	s := &wire.Schema{
		Resource: gvr, Kind: r.Kind, ListKind: spec.Names.ListKind, Namespaced: r.Namespaced, Custom: true,
		NoNamespaceField: !r.Namespaced,
	}
	for _, v := range spec.Versions {
		if v.Name != gvr.Version {
			continue
		}
		for _, f := range v.SelectableFields {
			// What is not understood is not selectable here but upstream.
			if field, ok := wire.CustomField(f.JSONPath); ok {
				s.Fields = append(s.Fields, field)
			}
		}
		return s, nil
	}
	return nil, fmt.Errorf("%s: the definition has no such version: %w", gvr, errUnfit)
}

// isTransient reports errors that say nothing about the resource.
func isTransient(err error) bool {
	if errors.Is(err, errUnfit) {
		return false
	}
	status := apierrors.APIStatus(nil)
	return !errors.As(err, &status) || status.Status().Code == http.StatusTooManyRequests || status.Status().Code >= http.StatusInternalServerError
}

package telemetry

import (
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
)

const (
	// maxLabelSets bounds the sets of labels that name a resource. Beyond it
	// new ones are counted as unknown; nothing that has begun stops.
	maxLabelSets = 5000
	// maxLabel is the longest name of a resource or group in characters: those
	// of Kubernetes are DNS subdomains.
	maxLabel = 253
)

// resourceKey names what a request is about. It is the zero value for
// requests that are not about a resource.
type resourceKey struct {
	group, version, resource, subresource string
}

// unknownResource stands for what nobody has shown to exist.
var unknownResource = resourceKey{group: "unknown", version: "unknown", resource: "unknown"}

// seriesKey tells series apart. code is the HTTP code.
type seriesKey struct {
	resourceKey
	verb, scope, servedBy string
	code                  int
}

func keyOf(r *http.Request, info *request.RequestInfo, code int) seriesKey {
	k := seriesKey{scope: metrics.CleanScope(info), code: code}
	k.verb = verbOf(r, info, k.scope)
	if info.IsResourceRequest {
		k.resourceKey = resourceKey{info.APIGroup, info.APIVersion, info.Resource, info.Subresource}
	}
	return k
}

// proves reports whether an answer shows that its resource exists. Refusals do
// not: kube-apiserver forbids what does not exist before it looks for it. Nor
// does success of OPTIONS, which CORS gives to any path.
func (k seriesKey) proves() bool {
	ok := k.code >= 200 && k.code < 300 || k.code == http.StatusNotModified || k.code == http.StatusSwitchingProtocols
	return ok && k.verb != verbOther
}

// series are the metrics of one set of labels.
type series struct {
	requests, aborts prometheus.Counter
	duration, sizes  prometheus.Observer
	longRunning      prometheus.Gauge
}

// seriesCache finds series without hashing labels five times, and keeps callers
// from inventing them: a resource's name becomes a label only once a request for
// it has succeeded, and only maxLabelSets times.
type seriesCache struct {
	open func(seriesKey) *series

	mu     sync.RWMutex // guards following
	series map[seriesKey]*series
	known  map[resourceKey]bool
}

func (c *seriesCache) get(k seriesKey) *series {
	c.mu.RLock()
	k, s := c.find(k)
	c.mu.RUnlock()
	if s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, s = c.find(k); s != nil {
		return s
	}
	return c.add(k)
}

// find returns the key that k is counted under, and its series if there is one.
func (c *seriesCache) find(k seriesKey) (seriesKey, *series) {
	if s := c.series[k]; s != nil {
		return k, s
	}
	if k.resourceKey == (resourceKey{}) || k.resourceKey == unknownResource || c.admits(k) {
		return k, nil
	}
	k.resourceKey = unknownResource
	return k, c.series[k]
}

func (c *seriesCache) admits(k seriesKey) bool {
	if len(c.series) >= maxLabelSets {
		return false
	}
	return c.known[k.resourceKey] || k.proves() && k.valid()
}

// valid reports whether all parts can be labels; client_golang panics otherwise.
func (k resourceKey) valid() bool {
	for _, s := range []string{k.group, k.version, k.resource, k.subresource} {
		if len(s) > maxLabel || !utf8.ValidString(s) {
			return false
		}
	}
	return true
}

func (c *seriesCache) add(k seriesKey) *series {
	// The strings are parts of a request's path, which they would keep alive.
	k.group, k.version = strings.Clone(k.group), strings.Clone(k.version)
	k.resource, k.subresource = strings.Clone(k.resource), strings.Clone(k.subresource)
	if k.resource != "" && k.resourceKey != unknownResource {
		c.known[k.resourceKey] = true
	}
	s := c.open(k)
	c.series[k] = s
	return s
}

func (m *Metrics) open(k seriesKey) *series {
	labels := []string{k.verb, k.group, k.version, k.resource, k.subresource, k.scope}
	timed := append(labels, k.servedBy)
	return &series{
		requests:    m.requests.WithLabelValues(append(timed, cleanCode(k.code))...),
		duration:    m.duration.WithLabelValues(timed...),
		aborts:      m.aborts.WithLabelValues(labels...),
		sizes:       m.sizes.WithLabelValues(labels...),
		longRunning: m.longRunning.WithLabelValues(labels...),
	}
}

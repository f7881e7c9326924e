package noderestriction

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// A ref names an object that a pod needs.
type ref struct{ resource, namespace, name string }

// Resources that pods refer to, as groups have no two of one name here.
const (
	secrets    = "secrets"
	configMaps = "configmaps"
	claims     = "persistentvolumeclaims"
	accounts   = "serviceaccounts"
	resClaims  = "resourceclaims"
	namespaces = "namespaces"
)

// A pod is what is remembered of one: never what is in it.
type pod struct {
	uid     string
	version uint64
	beside  bool // it was read beside the watch, which has not told of this version
	account string
	refs    []ref
}

// remember returns what is remembered of p, sorted.
func remember(p *corev1.Pod) *pod {
	r := &refs{namespace: p.Namespace}
	r.add(namespaces, p.Namespace)
	r.add(accounts, p.Spec.ServiceAccountName)
	for _, s := range p.Spec.ImagePullSecrets {
		r.add(secrets, s.Name)
	}
	for i := range p.Spec.Volumes {
		r.volume(p.Name, &p.Spec.Volumes[i])
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			r.environment(containers[i].EnvFrom, containers[i].Env)
		}
	}
	for i := range p.Spec.EphemeralContainers {
		c := &p.Spec.EphemeralContainers[i]
		r.environment(c.EnvFrom, c.Env)
	}
	r.resourceClaims(p)
	slices.SortFunc(r.all, func(a, b ref) int {
		return cmp.Or(cmp.Compare(a.resource, b.resource), cmp.Compare(a.name, b.name))
	})
	return &pod{uid: string(p.UID), version: versionOf(p.ResourceVersion), account: p.Spec.ServiceAccountName, refs: slices.Compact(r.all)}
}

// versionOf is 0 if it is no number, which only fakes of API servers have.
func versionOf(resourceVersion string) uint64 {
	n, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// refs gathers what a pod refers to: always of its own namespace.
type refs struct {
	namespace string
	all       []ref
}

func (r *refs) add(resource, name string) {
	switch {
	case name == "":
	case resource == namespaces:
		r.all = append(r.all, ref{resource: resource, name: name})
	default:
		r.all = append(r.all, ref{resource, r.namespace, name})
	}
}

func (r *refs) secret(s *corev1.LocalObjectReference) {
	if s != nil {
		r.add(secrets, s.Name)
	}
}

func (r *refs) environment(from []corev1.EnvFromSource, env []corev1.EnvVar) {
	for _, f := range from {
		if f.SecretRef != nil {
			r.add(secrets, f.SecretRef.Name)
		}
		if f.ConfigMapRef != nil {
			r.add(configMaps, f.ConfigMapRef.Name)
		}
	}
	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		if s := e.ValueFrom.SecretKeyRef; s != nil {
			r.add(secrets, s.Name)
		}
		if c := e.ValueFrom.ConfigMapKeyRef; c != nil {
			r.add(configMaps, c.Name)
		}
	}
}

func (r *refs) volume(pod string, v *corev1.Volume) {
	switch {
	case v.Secret != nil:
		r.add(secrets, v.Secret.SecretName)
	case v.ConfigMap != nil:
		r.add(configMaps, v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		r.add(claims, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		r.add(claims, pod+"-"+v.Name)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			r.projection(&v.Projected.Sources[i])
		}
	default:
		r.driver(v)
	}
}

func (r *refs) projection(p *corev1.VolumeProjection) {
	if p.Secret != nil {
		r.add(secrets, p.Secret.Name)
	}
	if p.ConfigMap != nil {
		r.add(configMaps, p.ConfigMap.Name)
	}
}

// driver gathers the secrets by which drivers of volumes log in.
func (r *refs) driver(v *corev1.Volume) {
	switch {
	case v.CSI != nil:
		r.secret(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		r.add(secrets, v.AzureFile.SecretName)
	case v.CephFS != nil:
		r.secret(v.CephFS.SecretRef)
	case v.Cinder != nil:
		r.secret(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		r.secret(v.FlexVolume.SecretRef)
	case v.ISCSI != nil:
		r.secret(v.ISCSI.SecretRef)
	case v.RBD != nil:
		r.secret(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		r.secret(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		r.secret(v.StorageOS.SecretRef)
	}
}

func (r *refs) resourceClaims(p *corev1.Pod) {
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			r.add(resClaims, *c.ResourceClaimName)
		}
	}
	for _, c := range p.Status.ResourceClaimStatuses {
		if c.ResourceClaimName != nil {
			r.add(resClaims, *c.ResourceClaimName)
		}
	}
	if c := p.Status.ExtendedResourceClaimStatus; c != nil {
		r.add(resClaims, c.ResourceClaimName)
	}
}

// maxGone bounds how many pods are remembered that are no more.
const maxGone = 1000

// graph is what the pods of one node need.
type graph struct {
	mu     sync.RWMutex // guards following
	pods   map[ref]*pod // by pods' own names
	needed map[ref]int  // by how many pods
	gone   []grave      // the last deleted last
}

// A grave is a pod that was there. What is read beside the watch may still tell of
// it.
type grave struct {
	ref
	uid string
}

func newGraph() *graph { return &graph{pods: map[ref]*pod{}, needed: map[ref]int{}} }

func podRef(namespace, name string) ref { return ref{"pods", namespace, name} }

// put takes note of a pod that the watch tells of, unless something newer is known
// of it, and reports whether that changes what is needed.
func (g *graph) put(p *corev1.Pod) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.putLocked(podRef(p.Namespace, p.Name), remember(p))
}

// putBeside is put for a pod that was read beside the watch.
func (g *graph) putBeside(p *corev1.Pod) bool {
	is := remember(p)
	is.beside = true
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.putLocked(podRef(p.Namespace, p.Name), is)
}

func (g *graph) putLocked(key ref, p *pod) bool {
	was := g.pods[key]
	if was != nil && was.version > p.version || slices.Contains(g.gone, grave{key, p.uid}) {
		return false
	}
	if was != nil && was.version == p.version {
		p.beside = p.beside && was.beside
	}
	if was != nil && was.uid == p.uid && slices.Equal(was.refs, p.refs) {
		was.version, was.beside = p.version, p.beside
		return false
	}
	g.dropLocked(key)
	g.pods[key] = p
	for _, r := range p.refs {
		g.needed[r]++
	}
	return true
}

func (g *graph) dropLocked(key ref) {
	p := g.pods[key]
	if p == nil {
		return
	}
	for _, r := range p.refs {
		if g.needed[r]--; g.needed[r] == 0 {
			delete(g.needed, r)
		}
	}
	delete(g.pods, key)
}

// remove forgets a pod, but not that it was there.
func (g *graph) remove(p *corev1.Pod) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := podRef(p.Namespace, p.Name)
	if was := g.pods[key]; was == nil || was.uid != string(p.UID) {
		return // it was made again
	}
	g.dropLocked(key)
	g.bury(grave{key, string(p.UID)})
}

func (g *graph) bury(p grave) {
	if g.gone = append(g.gone, p); len(g.gone) > maxGone {
		g.gone = slices.Delete(g.gone, 0, len(g.gone)-maxGone)
	}
}

// replace makes all the pods of the node those of a list that is of a version. What
// was read beside the watch and is newer stays: the watch goes on from that version,
// and will tell of it. That the watch told of something newer does not count: then
// it is the API server that went back in time.
func (g *graph) replace(all []*corev1.Pod, version uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.pods
	g.pods, g.needed = map[ref]*pod{}, map[ref]int{}
	for _, p := range all {
		g.putLocked(podRef(p.Namespace, p.Name), remember(p))
	}
	for key, was := range before {
		if was.beside && was.version > version {
			g.putLocked(key, was)
		} else if is := g.pods[key]; is == nil || is.uid != was.uid {
			g.bury(grave{key, was.uid})
		}
	}
}

// needs reports whether a pod of the node needs an object.
func (g *graph) needs(r ref) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.needed[r] > 0
}

// pod returns one of the node's, or nil.
func (g *graph) pod(namespace, name string) *pod {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.pods[podRef(namespace, name)]
}

// wasThere reports whether a pod of that name was the node's not long ago.
func (g *graph) wasThere(namespace, name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.ContainsFunc(g.gone, func(p grave) bool { return p.ref == podRef(namespace, name) })
}

// all are the needed objects of a resource, in a namespace if one is given, and
// something that is equal for equal ones.
func (g *graph) all(resource, namespace string) (map[ref]bool, string) {
	g.mu.RLock()
	all := map[ref]bool{}
	for r := range g.needed {
		if r.resource == resource && (namespace == "" || r.namespace == namespace) {
			all[r] = true
		}
	}
	g.mu.RUnlock()
	sum := fnv.New128a()
	sorted := make([]string, 0, len(all))
	for r := range all {
		sorted = append(sorted, r.namespace+"/"+r.name)
	}
	slices.Sort(sorted)
	for _, s := range sorted {
		_, _ = sum.Write([]byte(s + "\n")) // it never fails
	}
	return all, string(sum.Sum(nil))
}

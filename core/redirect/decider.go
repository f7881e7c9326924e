package redirect

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Decider remembers the world that it decided on, so that a small change costs
// what has changed. Whatever it is asked in which order, the table comes to what
// [Decide] makes of the world as it is then. Its methods must not be called at
// once. The zero value knows an empty world.
type Decider struct {
	world  World
	owners owners

	// What Services say: which destinations each has, and what becomes of them.
	named    map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName][]*discoveryv1.EndpointSlice
	fronts   map[types.NamespacedName][]front
	services map[Target]*Layer

	// What policies say.
	policies map[Target]*Layer
	// claimed are the frontends of policies, also while they have no backends.
	claimed map[Target]string
	probes  []Target
	results []PolicyResult
}

// Decide decides anew.
func (d *Decider) Decide(w World) Decision {
	*d = Decider{world: w, owners: ownersOf(w.Services), named: map[types.NamespacedName]*corev1.Service{}}
	for _, s := range w.Services {
		d.named[nameOf(s)] = s
	}
	d.services = map[Target]*Layer{}
	if w.ResolveServices {
		d.resolveServices()
	}
	d.applyPolicies()
	table := make(Table, len(d.services)+len(d.policies))
	for t := range d.services {
		table[t] = d.entry(t)
	}
	for t := range d.policies {
		table[t] = d.entry(t)
	}
	return d.decision(table)
}

// Endpoints decides what changes because one Service's EndpointSlices are others
// than before; the table that it returns has nothing else in it. It looks at
// nothing else either: which destinations a Service has, and what policies make
// of them, does not depend on its endpoints.
func (d *Decider) Endpoints(service types.NamespacedName, now []*discoveryv1.EndpointSlice) Table {
	if !d.world.ResolveServices {
		return nil
	}
	d.slices[service] = now
	changed := Table{}
	for t, l := range d.layersOf(service) {
		if !l.equal(d.services[t]) {
			d.services[t] = l
			changed[t] = d.entry(t)
		}
	}
	return changed
}

func (d *Decider) entry(t Target) Entry { return Entry{Policy: d.policies[t], Service: d.services[t]} }

func (d *Decider) decision(t Table) Decision {
	return Decision{Table: t, Probes: d.probes, Policies: d.results}
}

package cache

import (
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// A Policy says how one resource is cached. The zero Policy caches it, and
// reads are linearizable.
type Policy struct {
	// Refuse keeps the resource out of memory.
	Refuse bool
	// Parts keeps nothing but parts of it in memory: namespaces, and the pods of
	// nodes.
	Parts bool
	// Session names callers for whom a read need only be as new as what was
	// written and read through this proxy: it costs upstream nothing. Nil is
	// nobody.
	Session func(user.Info) bool
	// StaleIfError is how long ago upstream may have proven memory current for it to
	// answer while upstream is gone. 0 has nothing answered then.
	StaleIfError time.Duration
}

// Policies says how each resource is cached.
type Policies func(schema.GroupResource) Policy

// DefaultPolicy keeps out of memory what a node's memory should not hold or what
// changes too often to be worth it: Secrets, ConfigMaps, Leases and Events.
func DefaultPolicy(r schema.GroupResource) Policy {
	switch r.Resource {
	case "secrets", "configmaps":
		return Policy{Refuse: r.Group == ""}
	case "events":
		return Policy{Refuse: r.Group == "" || r.Group == "events.k8s.io"}
	case "leases":
		return Policy{Refuse: r.Group == "coordination.k8s.io"}
	}
	return Policy{}
}

// SetPolicies changes what is cached and how from now on. Collections that are
// no longer wanted end once they are idle.
func (c *Cache) SetPolicies(p Policies) { c.policies.Store(&p) }

func (c *Cache) policy(r schema.GroupResource) Policy { return (*c.policies.Load())(r) }

// isSession reports whether r's caller has chosen session reads. The caller is
// known wherever a request carries a grant.
func (p Policy) isSession(r *http.Request) bool {
	if p.Session == nil {
		return false
	}
	caller, ok := request.UserFrom(r.Context())
	return ok && p.Session(caller)
}

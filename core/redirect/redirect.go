// Package redirect decides which connections go where: Services, EndpointSlices,
// Pods, policies and this node in, the kernel's table out.
package redirect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-proxy/portico/crds/balancing/v1beta1"
)

// World is all that a decision is made from, at one moment. It is only read.
type World struct {
	Node Node

	Services       []*corev1.Service
	EndpointSlices []*discoveryv1.EndpointSlice
	LocalRedirects []*v1beta1.LocalRedirectPolicy
	Balancings     []*v1beta1.BalancingPolicy

	// Pods are those of this node, and those that policies select elsewhere.
	Pods []*corev1.Pod
	// Nodes are those of the Pods; only [v1beta1.HostPort] and
	// [v1beta1.NodeProxy] look at them.
	Nodes []*corev1.Node

	// Answers says of a backend that is to be probed whether it answered the
	// last time. Nil answers for all.
	Answers func(Target) bool
	// Cgroups are the kernel's numbers of the cgroups of this node's pods. A pod
	// that is not in it cannot be told from others by what it does.
	Cgroups map[types.UID]uint64
	// APIServers are where this machine reaches the API server, if its own word,
	// the endpoints of the kubernetes Service, is not to be taken for it.
	APIServers []netip.AddrPort
	// ResolveServices fills the table with Services too, as kube-proxy would.
	// Otherwise it holds policies only, and somebody else resolves Services.
	ResolveServices bool
}

// Node is the machine that the table is for.
type Node struct {
	// Name is the Node's. On a machine that is no node of the cluster, it only
	// appears in the status of policies.
	Name string
	// Object is nil on such a machine.
	Object *corev1.Node
	// Addresses are those of the machine at which it offers NodePorts; loopback
	// needs not be among them.
	Addresses []netip.Addr
}

// Target is where something listens, or is thought to.
type Target struct {
	netip.AddrPort
	Protocol corev1.Protocol
}

func (t Target) String() string { return t.AddrPort.String() + "/" + string(t.Protocol) }

func (t Target) compare(u Target) int {
	return cmp.Or(t.Compare(u.AddrPort), cmp.Compare(t.Protocol, u.Protocol))
}

// A Table says what becomes of destinations. What is not in it stays as it is.
type Table map[Target]Entry

// An Entry is what becomes of one destination: what Policy says, if it counts at
// the moment and for the client, or else what Service says.
type Entry struct {
	Policy  *Layer
	Service *Layer
}

// A Layer is a choice of backends. With none, connections are refused.
type Layer struct {
	// Owner is what the layer was made from, for people and for session
	// affinity: layers of one owner share it.
	Owner    string
	Backends []netip.AddrPort
	// Affinity is how long a client keeps its backend; 0 is not at all.
	Affinity  time.Duration
	PerCgroup bool
	// HostOnly layers count only in the host's network namespace.
	HostOnly bool
	// Leased layers count only while somebody keeps them up to date.
	Leased bool
	// Strict layers refuse when their lease has run out.
	Strict bool
	// Clients are the cgroups that the layer is for; nil is everybody.
	Clients []uint64
	// Except are cgroups that it is not for.
	Except []uint64
}

// equal says whether two layers do the same. What is nil and what is empty
// differ for clients: everybody, and nobody.
func (l *Layer) equal(m *Layer) bool {
	if l == nil || m == nil {
		return l == m
	}
	return l.Owner == m.Owner && l.Affinity == m.Affinity && l.PerCgroup == m.PerCgroup && l.HostOnly == m.HostOnly &&
		l.Leased == m.Leased && l.Strict == m.Strict && slices.Equal(l.Backends, m.Backends) &&
		(l.Clients == nil) == (m.Clients == nil) && slices.Equal(l.Clients, m.Clients) && slices.Equal(l.Except, m.Except)
}

// Decision is a table and what else follows from a world.
type Decision struct {
	Table Table
	// Probes are the backends that somebody must probe, sorted.
	Probes []Target
	// Policies are what became of each policy, in no order.
	Policies []PolicyResult
}

// Decide makes the table for a world. It is a pure function: the same world
// gives the same decision, whatever the order of what is in it.
func Decide(w World) Decision { return new(Decider).Decide(w) }

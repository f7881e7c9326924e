// Package scale computes what clusters of sizes that no one machine has cost an API
// server and its proxies, from costs that were measured on one machine.
package scale

// Costs are those of one thing, as test/bench measures them.
type Costs struct {
	Object float64 // bytes of one pod on the wire, in protobuf
	// Listed is the processor time for one object of a list, and Delivered that for
	// one event sent to one watcher, in seconds.
	Listed, Delivered ByServer
	// Idle is a proxy's memory that holds nothing, in bytes, and Held what it takes
	// for a byte of objects.
	Idle, Held float64
}

// ByServer tells the API server and the proxy apart.
type ByServer struct{ API, Proxy float64 }

// Measured are the figures of docs/benchmarks.md.
var Measured = Costs{
	Object:    104 * mebi / 10000,
	Listed:    ByServer{API: 0.459 / 10000, Proxy: 0.080 / 10000},
	Delivered: ByServer{API: 41.2e-6, Proxy: 22.9e-6},
	Idle:      60 * mebi,
	Held:      1.3,
}

const mebi = 1 << 20

// Cluster is what is asked for.
type Cluster struct {
	Nodes       int
	PodsPerNode int
	// Informers are how many clients on each node follow all pods.
	Informers int
	// Changes is how often each pod changes, per second.
	Changes float64
}

// Topology is what stands between the informers and the API server.
type Topology struct {
	Name string
	// Areas are the proxies that the API server sees, if there are any: of areas, or
	// one on each node.
	Areas func(nodes int) int
	// Tiers puts a proxy on each node behind those of the areas.
	Tiers bool
}

// Topologies are the ones to compare.
var Topologies = []Topology{
	{Name: "none", Areas: func(int) int { return 0 }},
	{Name: "one on each node", Areas: func(nodes int) int { return nodes }},
	{Name: "1 in all", Areas: func(int) int { return 1 }},
	{Name: "10 in all", Areas: func(int) int { return 10 }},
	{Name: "100 in all", Areas: func(int) int { return 100 }},
	{Name: "10, and one on each node", Areas: func(int) int { return 10 }, Tiers: true},
}

// Load is what comes of it.
type Load struct {
	Watches int     // of pods, that the API server has open
	Bytes   float64 // a second, that the API server sends
	CPU     float64 // of the API server, in processors
	// Busiest is what the busiest proxy takes, in processors, and Memory that of one
	// proxy, in bytes.
	Busiest, Memory float64
	// StartBytes and StartCPU are what the API server sends and takes, in bytes and
	// seconds, when everything starts at once.
	StartBytes, StartCPU float64
}

// Of computes the load of a cluster behind a topology.
func (c Costs) Of(k Cluster, t Topology) Load {
	pods := float64(k.Nodes * k.PodsPerNode)
	events := pods * k.Changes
	clients := float64(k.Nodes * k.Informers)
	upstream, proxies := clients, float64(t.Areas(k.Nodes))
	l := Load{}
	if proxies > 0 {
		upstream = proxies
		l.Memory = c.Idle + c.Held*pods*c.Object
		readers := clients / proxies
		if t.Tiers {
			readers = max(float64(k.Nodes)/proxies, float64(k.Informers))
		}
		l.Busiest = events * readers * c.Delivered.Proxy
	}
	l.Watches = int(upstream)
	l.Bytes = events * upstream * c.Object
	l.CPU = events * upstream * c.Delivered.API
	l.StartBytes = pods * upstream * c.Object
	l.StartCPU = pods * upstream * c.Listed.API
	return l
}

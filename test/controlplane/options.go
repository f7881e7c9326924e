package controlplane

import (
	"io"
	"strconv"
	"time"
)

// A Part is one running program of a control plane.
type Part string

// The parts. APIServer is the first kube-apiserver; see [APIServerN] for the
// others.
const (
	Etcd              Part = "etcd"
	APIServer         Part = "kube-apiserver"
	ControllerManager Part = "kube-controller-manager"
	Scheduler         Part = "kube-scheduler"
	Kwok              Part = "kwok"
)

// APIServerN names the n-th kube-apiserver, counted from 0.
func APIServerN(n int) Part {
	if n == 0 {
		return APIServer
	}
	return APIServer + Part("-"+strconv.Itoa(n))
}

// A User is somebody the API servers know by a static token.
type User struct {
	Name   string
	UID    string
	Groups []string
	// Token is made up when empty; see [ControlPlane.Token].
	Token string
}

// Options says what to start. The zero value is one etcd and one
// kube-apiserver in a temporary directory.
type Options struct {
	// APIServers is how many kube-apiservers share the etcd; 0 means 1.
	APIServers int

	// ControllerManager starts kube-controller-manager. Without it there are
	// no ServiceAccounts and no kube-root-ca.crt in new namespaces, so pods
	// are refused, and nothing collects garbage.
	ControllerManager bool

	// Scheduler starts kube-scheduler.
	Scheduler bool

	// Kwok starts kwok, which plays the kubelet of every Node: see
	// [ControlPlane.AddNode].
	Kwok bool

	// Forwards says where port-forward to a port of any pod leads, as
	// host:port. All other ports echo what they are sent. Needs Kwok.
	Forwards map[int]string

	// Flags are further flags ("--v=4") of a part. A flag given here replaces
	// the one of the same name that the part would have. Flags of APIServer
	// hold for all API servers, before those of one that is named by
	// [APIServerN].
	Flags map[Part][]string

	// Env are further environment variables ("NAME=value") of a part, chosen
	// like Flags.
	Env map[Part][]string

	// Users may call the API servers with a static token. Their rights are
	// what RBAC gives them, which at first is nothing.
	Users []User

	// Dir holds data, certificates and logs, and is kept. Empty means a
	// temporary directory that Stop removes.
	Dir string

	// Programs is the directory of the programs. Empty means what the function
	// [Programs] returns.
	Programs string

	// Log receives a line for each step. Nil discards it.
	Log io.Writer

	// Timeout bounds the start of each part; 0 means 2 minutes, which
	// is ample for a busy machine.
	Timeout time.Duration
}

func (o Options) withDefaults() Options {
	o.APIServers = max(o.APIServers, 1)
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	return o
}

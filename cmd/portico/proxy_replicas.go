package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-proxy/portico/core/replicas"
	"github.com/portico-proxy/portico/core/telemetry"
)

// replicaOptions are the flags of proxies behind one address. Those that
// kube-apiserver has for its own peers have its names.
type replicaOptions struct {
	peers   []string
	service string

	advertiseIP   string
	advertisePort int

	caFile, certFile, keyFile string
}

var (
	errPeersTwice     = errors.New("--peers and --peer-service exclude each other")
	errPeersNameless  = errors.New("replicas need --peer-advertise-ip, --peer-ca-file, --peer-cert-file and --peer-key-file")
	errPeersForgetful = errors.New("replicas have nothing to tell each other with --watch-cache=false")
	errPeersPortless  = errors.New("is no port that can be reached: choose one from 1 to 65535")
	errNotAnAddress   = errors.New("is not IP:port: replicas know each other by their --peer-advertise-ip and --peer-advertise-port, so write those, as 10.0.0.2:6444 or [fd00::2]:6444")
	errNotAService    = errors.New("is not namespace/name")
)

func (o *replicaOptions) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.peers, "peers", o.peers, "Addresses (IP:port) of all replicas of this proxy, which clients may reach one or the other of: their --peer-advertise-ip and --peer-advertise-port. Sessions then see what they did through any of them. It may name this one as well.")
	f.StringVar(&o.service, "peer-service", o.service, "Service (namespace/name) whose endpoints are the replicas, instead of --peers. The proxy's own identity must be allowed to list and watch its EndpointSlices.")
	f.StringVar(&o.advertiseIP, "peer-advertise-ip", o.advertiseIP, "IP address where other replicas reach this one.")
	f.IntVar(&o.advertisePort, "peer-advertise-port", o.advertisePort, "Port where they do. It is opened on --bind-address.")
	f.StringVar(&o.caFile, "peer-ca-file", o.caFile, "Authorities of replicas' certificates. Whoever has one of theirs for a replica's name is a replica: let them sign nothing else.")
	f.StringVar(&o.certFile, "peer-cert-file", o.certFile, "Certificate that this replica shows to others, as a server and as a client: for --peer-advertise-ip, or with --peer-service for <name>.<namespace>.svc. It is read again for each connection.")
	f.StringVar(&o.keyFile, "peer-key-file", o.keyFile, "Key of --peer-cert-file.")
}

func (o *replicaOptions) isAsked() bool { return len(o.peers) > 0 || o.service != "" }

// own is where other replicas reach this one, as [replicaOptions.check] has the
// addresses of all written.
func (o *replicaOptions) own() string {
	return net.JoinHostPort(net.ParseIP(o.advertiseIP).String(), strconv.Itoa(o.advertisePort))
}

// check says what does not go together. It has each peer written in one way: a proxy
// that took its own address for another's would wait for itself.
func (o *replicaOptions) check(watchCache bool) error {
	switch {
	case len(o.peers) > 0 && o.service != "":
		return errPeersTwice
	case net.ParseIP(o.advertiseIP) == nil, o.caFile == "", o.certFile == "", o.keyFile == "":
		return errPeersNameless
	case o.advertisePort < 1 || o.advertisePort > math.MaxUint16:
		return fmt.Errorf("--peer-advertise-port=%d %w", o.advertisePort, errPeersPortless)
	case !watchCache:
		return errPeersForgetful
	}
	for i, p := range o.peers {
		a, err := netip.ParseAddrPort(p)
		if err != nil || a.Addr().Zone() != "" || a.Port() == 0 {
			return fmt.Errorf("--peers=%s %w", p, errNotAnAddress)
		}
		o.peers[i] = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
	}
	return nil
}

// join prepares what tells other replicas; nil if there are none.
func (p *proxy) join(client kubernetes.Interface, o proxyOptions) (*replicas.Replicas, error) {
	if !o.replicas.isAsked() {
		return nil, nil
	}
	if err := o.replicas.check(o.watchCache); err != nil {
		return nil, err
	}
	port := strconv.Itoa(o.replicas.advertisePort)
	identity := replicas.Identity{CertFile: o.replicas.certFile, KeyFile: o.replicas.keyFile, CAFile: o.replicas.caFile}
	discovery := &replicas.Discovery{Client: client}
	if o.replicas.service != "" {
		var ok bool
		if discovery.Namespace, discovery.Service, ok = strings.Cut(o.replicas.service, "/"); !ok {
			return nil, fmt.Errorf("--peer-service=%s %w", o.replicas.service, errNotAService)
		}
		identity.ServerName = discovery.ServerName()
	}
	r, err := replicas.New(replicas.Options{
		Address: o.replicas.own(), Listen: net.JoinHostPort(o.bindAddress.String(), port),
		Identity: identity, Log: p.log.WithName("replicas"),
	})
	if err != nil {
		return nil, err
	}
	p.beside = append(p.beside, r)
	if discovery.Replicas = r; discovery.Service != "" {
		p.beside = append(p.beside, discovery)
	} else {
		r.List(o.replicas.peers)
	}
	p.ready["replicas"] = r.Ready
	return r, p.telemetry.ObserveReplicas(func() telemetry.ReplicaFigures {
		f := r.Figures()
		return telemetry.ReplicaFigures{Peers: float64(f.Peers), Held: float64(f.Held), InTouch: f.InTouch, Lost: float64(f.Lost), Failed: float64(f.Failed)}
	})
}

package replicas

import (
	"context"
	"fmt"
	"net"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// A Discovery learns who the peers are from the EndpointSlices of a Service. A
// replica is one as long as it has an endpoint there, ready or not.
type Discovery struct {
	Client             kubernetes.Interface
	Namespace, Service string
	Replicas           *Replicas
}

// ServerName is what the certificates of a Service's replicas are for.
func (d *Discovery) ServerName() string { return d.Service + "." + d.Namespace + ".svc" }

// Start follows the EndpointSlices until ctx ends.
func (d *Discovery) Start(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(d.Client, 0, informers.WithNamespace(d.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = discoveryv1.LabelServiceName + "=" + d.Service }))
	slices := factory.Discovery().V1().EndpointSlices().Informer()
	list := func() {
		if slices.HasSynced() {
			d.Replicas.List(d.addresses(slices.GetStore().List()))
		}
	}
	if _, err := slices.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { list() }, UpdateFunc: func(any, any) { list() }, DeleteFunc: func(any) { list() },
	}); err != nil {
		return fmt.Errorf("follow EndpointSlices: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if cache.WaitFor(ctx, "", slices.HasSyncedChecker()) {
		list() // there may be none
	}
	<-ctx.Done()
	return nil
}

// addresses are those of all endpoints of the family that this proxy has.
func (d *Discovery) addresses(all []any) (addresses []string) {
	host, port, err := net.SplitHostPort(d.Replicas.options.Address)
	if err != nil {
		return nil
	}
	family := discoveryv1.AddressTypeIPv4
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		family = discoveryv1.AddressTypeIPv6
	}
	for _, o := range all {
		s, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || s.AddressType != family {
			continue
		}
		for _, e := range s.Endpoints {
			for _, a := range e.Addresses {
				addresses = append(addresses, net.JoinHostPort(a, port))
			}
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// Package controlplane starts a real Kubernetes control plane on loopback:
// etcd, one or more kube-apiservers and, if asked, kube-controller-manager,
// kube-scheduler and kwok, for tests and for portico dev.
//
// [Programs] builds the programs from the Go module in the programs directory
// and keeps them in a cache that all checkouts of this machine share. [Start]
// runs them; [New] does both for a test and stops everything when it ends:
//
//	cp := controlplane.New(t, controlplane.Options{ControllerManager: true})
//	client := kubernetes.NewForConfigOrDie(cp.Config())
//
// Every part can be killed, frozen and restarted by itself, and
// every kind of caller (static token, ServiceAccount token, expired token,
// client certificate) can be had for a given user and groups.
package controlplane

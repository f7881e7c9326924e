//go:build tools

// Package programs pins the versions of the programs that make up a control
// plane. They have a Go module of their own, because k8s.io/kubernetes needs
// far more than the product should carry.
package programs

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)

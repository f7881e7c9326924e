// Package kubeproxy compares which endpoints serve a Service by core/redirect with
// what kube-proxy's own code says, which is built from a Go module apart.
package kubeproxy

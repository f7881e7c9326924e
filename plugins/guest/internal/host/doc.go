// Package host is the other side of portico.v1: the proxy's functions in a
// guest, and those that a test plays elsewhere.
package host

package limit

import "net/netip"

// AddressOf is whom a connection from remote, as [net.Conn] and [net/http.Request]
// tell it, counts for: a host, or a network of IPv6, where each host has as many
// addresses as it likes.
func AddressOf(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	address := from.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, _ := address.Prefix(64)
	return network.String()
}

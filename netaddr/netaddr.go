// Package netaddr judges how far a network address reaches.
package netaddr

import (
	"net"
	"net/netip"
	"strings"
)

// IsLoopback reports whether host, a name or an IP address without a port, means
// this machine: a loopback address, or localhost in any case. It asks no DNS: any
// other name, also one under localhost, may lead elsewhere.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// IsPrivate reports whether addr, an IP address and port, is a loopback address or
// one of a private network (RFC 1918, RFC 4193).
func IsPrivate(addr net.Addr) bool {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap()
	return ip.IsLoopback() || ip.IsPrivate()
}

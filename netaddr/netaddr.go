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

// notPublic are ranges that netip has no words for: shared by carriers (RFC 6598), for
// protocols, for documentation, for measurements, and kept for later.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fec0::/10"),
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

// IsPublic reports whether ip is an address of the Internet, so that it is neither this
// host, nor in a private network, nor one that only means something on the same link, such
// as that of a cloud's metadata. An IPv4 address within an IPv6 one is judged itself.
func IsPublic(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	switch b := ip.As16(); {
	case nat64.Contains(ip):
		return IsPublic(netip.AddrFrom4([4]byte(b[12:16])))
	case sixTo4.Contains(ip):
		return IsPublic(netip.AddrFrom4([4]byte(b[2:6])))
	case !ip.IsGlobalUnicast() || ip.IsPrivate():
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

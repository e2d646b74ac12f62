package netaddr

import (
	"net"
	"net/netip"
	"testing"
)

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST": true,
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, ".": false, "[::1]": false, "app.localhost": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "notlocalhost": false,
		"localhost.example.com": false, "127.0.0.1.example.com": false, "example.com": false, "127.1": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestIsPrivate(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:25": true, "[::1]:25": true, "10.1.2.3:587": true, "172.31.0.1:587": true, "192.168.0.1:587": true,
		"[fd00::1]:587": true, "[::ffff:10.0.0.1]:587": true,
		"192.0.2.1:587": false, "172.32.0.1:587": false, "[2001:db8::1]:587": false, "169.254.1.1:587": false, "0.0.0.0:587": false,
	} {
		if got := IsPrivate(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))); got != want {
			t.Errorf("IsPrivate(%s) = %v, want %v", addr, got, want)
		}
	}
	if IsPrivate(&net.UnixAddr{Name: "/run/relay"}) {
		t.Error("IsPrivate(/run/relay) = true, want false: it has no IP address")
	}
}

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

func TestIsPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true, "64:ff9b::808:808": true, "2002:808:808::1": true,
		"127.0.0.1": false, "::1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "fd00::1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"100.64.0.1": false, "192.0.0.8": false, "192.0.2.1": false, "198.18.0.1": false, "198.51.100.7": false, "203.0.113.9": false, "240.0.0.1": false, "255.255.255.255": false,
		"224.0.0.1": false, "ff02::1": false, "2001:db8::1": false, "100::1": false,
		"::ffff:127.0.0.1": false, "::ffff:100.64.0.1": false, "fec0::1%eth0": false, "::ffff:169.254.169.254": false, "64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "2002:a00:1::1": false,
	} {
		if got := IsPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("IsPublic(%s) = %t, want %t", text, got, want)
		}
	}
	if IsPublic(netip.Addr{}) {
		t.Error("IsPublic of no address = true")
	}
}

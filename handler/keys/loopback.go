package keys

import (
	"net"
	"net/http"
	"strings"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/netaddr"
)

// checkLoopback refuses requests that a foreign name led here. It is for servers
// without keys.
func checkLoopback(r *http.Request) error {
	if loopbackHost(r.Host) {
		return nil
	}
	return problem.New(api.CodeForeignHost, "Without API keys only localhost and loopback addresses are answered as Host.")
}

// loopbackHost reports whether a Host header names this machine. A foreign name
// that resolves to 127.0.0.1 (DNS rebinding) does not.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return strings.HasSuffix(name, ".localhost") || netaddr.IsLoopback(strings.Trim(name, "[]"))
}

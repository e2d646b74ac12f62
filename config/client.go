package config

import (
	"net"
	"net/url"
	"os"
	"strings"

	"mailsidecar/units"
)

// Client is what the commands that talk to a running server read, as other
// clients of it do. The env tags name the fields: after MAILSIDECAR_.
type Client struct {
	URL       string     `env:"URL" desc:"Address of the server." unset:"http://127.0.0.1:8587, with the port of MAILSIDECAR_ADDR" note:"https for a server on another host."`
	APIKey    Secret     `env:"API_KEY" desc:"The secret of an API key, without its name." unset:"the only one of MAILSIDECAR_API_KEYS"`
	TLSCAFile string     `env:"TLS_CA_FILE" desc:"PEM file with certificate authorities to trust, besides the system's, for a server at an https address." note:"mailsidecar ca prints that of MAILSIDECAR_TLS=self-signed."`
	Wait      units.Wait `env:"WAIT" default:"10s" max:"60s" desc:"How long to wait for a message's first attempt, a duration or seconds; 0 means not at all."`
}

// LoadClient reads the variables of clients. Inside the server's own container
// none of them is needed: what is not set comes from the server's. The error is
// an [*Error].
func LoadClient() (Client, error) {
	r := newReader(os.Getenv, nil)
	var c Client
	r.read(servicePrefix, &c)
	server := newReader(os.Getenv, nil)
	s := server.service()
	if c.URL == "" {
		c.URL = "http://" + s.dialAddr()
	}
	if !c.APIKey.IsSet() && len(s.Keys) == 1 {
		c.APIKey = s.Keys[0].Secret
	}
	r.checkURL(&c)
	return c, r.err()
}

// dialAddr is where a client on the same host reaches the server.
func (s Service) dialAddr() string {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil || port == "" {
		return "127.0.0.1:8587"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func (r *reader) checkURL(c *Client) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		r.problem(serviceName("URL"), "is no address of a server", "write one such as http://127.0.0.1:8587, without user name or password")
	}
	c.URL = strings.TrimRight(c.URL, "/")
}

package config

import "net"

// SelfSigned reports whether HTTPS is served with a certificate of our own making.
func (s Service) SelfSigned() bool { return s.TLS == "self-signed" }

// HTTPS reports whether HTTPS is served beside HTTP.
func (s Service) HTTPS() bool { return s.SelfSigned() || s.TLSCertFile != "" }

func (r *reader) checkHTTPS(s *Service) {
	certificate, key := serviceName("TLS_CERT_FILE"), serviceName("TLS_KEY_FILE")
	switch {
	case s.TLSCertFile == "" && s.TLSKeyFile != "":
		r.problem(certificate, "is not set, and "+key+" is", "name the file with the certificate and its chain, in PEM form")
	case s.TLSCertFile != "" && s.TLSKeyFile == "":
		r.problem(key, "is not set, and "+certificate+" is", "name the file with the private key, in PEM form")
	case s.TLSCertFile != "" && s.SelfSigned():
		r.problem(serviceName("TLS"), "asks for a certificate of our own, and "+certificate+" names another", "keep one of them")
	}
	if !s.HTTPS() {
		return
	}
	r.checkHostPort(serviceName("TLS_ADDR"), s.TLSAddr, ":8443")
	_, port, _ := net.SplitHostPort(s.Addr)
	if _, tlsPort, _ := net.SplitHostPort(s.TLSAddr); port == tlsPort && port != "0" {
		r.problem(serviceName("TLS_ADDR"), "has the port of "+serviceName("ADDR"), "give each its own")
	}
	if s.SelfSigned() && s.DataDir == "" && !r.failed[serviceName("DATA_DIR")] {
		if s.DataDir = stateDir(r.getenv); s.DataDir == "" {
			r.problem(serviceName("DATA_DIR"), "is not set, and there is no home directory to keep the certificate in", "set it to a directory on a volume that lasts")
		}
	}
}

package cli

import (
	"crypto/tls"
	"log/slog"

	"mailsidecar/config"
	"mailsidecar/service/certs"
)

// buildTLS is what HTTPS is served with; nil when it is not served. TLS 1.2 is
// the least that clients with security updates speak.
func buildTLS(s config.Service, log *slog.Logger) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case s.SelfSigned():
		ca, err := certs.OpenAuthority(s.DataDir)
		if err != nil {
			return nil, exit(exitConfig, "MAILSIDECAR_TLS: %w", err)
		}
		c.GetCertificate = certs.NewIssuer(ca).GetCertificate
	case s.TLSCertFile != "":
		files, err := certs.OpenFiles(s.TLSCertFile, s.TLSKeyFile, log)
		if err != nil {
			return nil, exit(exitConfig, "MAILSIDECAR_TLS_CERT_FILE, MAILSIDECAR_TLS_KEY_FILE: %w", err)
		}
		c.GetCertificate = files.GetCertificate
	default:
		return nil, nil
	}
	return c, nil
}

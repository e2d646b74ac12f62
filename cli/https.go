package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"mailsidecar/config"
)

// buildTLS is what HTTPS is served with; nil when it is not served. TLS 1.2 is
// the least that clients with security updates speak.
func buildTLS(s config.Service, log *slog.Logger) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case s.SelfSigned():
		ca, err := openAuthority(s.DataDir)
		if err != nil {
			return nil, exit(exitConfig, "MAILSIDECAR_TLS: %w", err)
		}
		c.GetCertificate = (&issuer{ca: ca}).certificate
	case s.TLSCertFile != "":
		f := &certificateFiles{certFile: s.TLSCertFile, keyFile: s.TLSKeyFile, log: log}
		if err := f.load(); err != nil {
			return nil, exit(exitConfig, "MAILSIDECAR_TLS_CERT_FILE, MAILSIDECAR_TLS_KEY_FILE: %w", err)
		}
		c.GetCertificate = f.certificate
	default:
		return nil, nil
	}
	return c, nil
}

// reloadEvery is how often the files are looked at, when somebody connects.
const reloadEvery = time.Second

// certificateFiles are a certificate and its key in files that an operator or a
// program renews. While the new pair cannot be read, or one file is written and
// the other is not yet, the old one serves.
type certificateFiles struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]stamp
	looked  time.Time
}

// stamp tells one version of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

// certificate implements [tls.Config.GetCertificate].
func (f *certificateFiles) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) >= reloadEvery {
		f.looked = time.Now()
		f.reload()
	}
	return f.current, nil
}

func (f *certificateFiles) reload() {
	old, seen := f.current, f.seen
	err := f.load()
	switch {
	case f.seen == seen && err == nil:
	case err != nil && f.seen != seen:
		f.log.Error("new certificate not read", "file", f.certFile, "error", err)
	case err == nil && f.current != old:
		f.log.Info("new certificate", "file", f.certFile, "not_after", f.current.Leaf.NotAfter)
	}
}

// load reads the pair unless it is the one read last, or the one that failed
// last.
func (f *certificateFiles) load() error {
	var seen [2]stamp
	for i, path := range []string{f.certFile, f.keyFile} {
		var err error
		if seen[i], err = stampOf(path); err != nil {
			return withoutPath(err)
		}
	}
	if seen == f.seen {
		return nil
	}
	f.seen = seen
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return withoutPath(err)
	}
	f.current = &pair
	return nil
}

// withoutPath shortens an error to what is wrong, with the file's name once.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}

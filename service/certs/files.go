package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"mailsidecar/files"
)

// reloadEvery is how often the files are looked at, at most, when clients
// connect.
const reloadEvery = time.Second

// Files are a certificate and its key in files that an operator or a program
// renews. While the new pair cannot be read, or one file is written and the
// other is not yet, the old one serves.
type Files struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]stamp
	looked  time.Time
}

// OpenFiles reads a certificate with its chain and its key, both in PEM form.
// Later versions of them, and failures to read these, are logged.
func OpenFiles(certFile, keyFile string, log *slog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// stamp distinguishes the versions of a file.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	if !info.Mode().IsRegular() { // a named pipe would be waited for
		return stamp{}, fmt.Errorf("%s: no regular file", path)
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

// GetCertificate is for the field of that name in [tls.Config].
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) >= reloadEvery {
		f.looked = time.Now()
		f.reload()
	}
	return f.current, nil
}

func (f *Files) reload() {
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
func (f *Files) load() error {
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
	pair, err := readPair(f.certFile, f.keyFile)
	if err != nil {
		return err
	}
	f.current = &pair
	return nil
}

// maxFile limits a certificate with its chain, and a key, in octets.
const maxFile = 1 << 20

func readPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	var data [2][]byte
	for i, path := range []string{certFile, keyFile} {
		if data[i], err = files.Read(path, maxFile); err != nil {
			return pair, fmt.Errorf("%s: %w", files.Shown(path), err)
		}
	}
	return tls.X509KeyPair(data[0], data[1])
}

// withoutPath shortens an error to what is wrong, with the file's name once.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", files.Shown(e.Path), e.Err)
	}
	return err
}

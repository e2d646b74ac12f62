// Package mta has the parts that the real mail servers in tests share: a directory
// for all their files, a certificate, an account, ports on
// loopback, a log, and Maildirs that the test reads.
//
// A server that the machine itself runs is not touched.
package mta

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// Domain is the domain that the servers deliver mail for.
const Domain = "example.org"

// KeyAndChain is the file in an instance's directory with its private key and
// certificates, in PEM form.
const KeyAndChain = "server.pem"

// Instance is a mail server of a test's own. It accepts TLS as localhost and
// 127.0.0.1.
type Instance struct {
	// CAFile holds the certificate of the authority that signed the server's.
	CAFile string
	// Username and Password are the one account.
	Username, Password string

	dir      string
	output   machine.Buffer
	logFiles []string // below dir
}

// New makes the directory of a server, which goes when the test ends, with its
// certificate. name is the program's, for messages; logFiles are those that it
// will write below the directory, if any. When the test has failed its log is
// printed.
func New(t *testing.T, name string, logFiles ...string) *Instance {
	t.Helper()
	s := &Instance{
		Username: "app@mail.example.com", Password: "s3cret with blank: é%",
		dir: machine.TempDir(t), logFiles: logFiles,
	}
	s.CAFile = s.Path("ca.pem")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s logged:\n%s", name, s.Log())
		}
	})
	if err := s.writeCertificates(); err != nil {
		t.Fatalf("set up %s: %v", name, err)
	}
	return s
}

// writeCertificates writes CAFile for clients and KeyAndChain for the server.
func (s *Instance) writeCertificates() error {
	server, err := relaytest.KeyAndChainPEM()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.Path(KeyAndChain), server, 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.CAFile, relaytest.AuthorityPEM(), 0o644)
}

// Account returns name and password, and the file with the authority to trust.
func (s *Instance) Account() (username, password, caFile string) {
	return s.Username, s.Password, s.CAFile
}

// Path is that of a file in the server's directory.
func (s *Instance) Path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Log returns the server's log so far, from its output and its files.
func (s *Instance) Log() string {
	log := s.output.String()
	for _, name := range s.logFiles {
		text, err := os.ReadFile(s.Path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			text = []byte(err.Error())
		}
		log += string(text)
	}
	return log
}

// Launch starts the server's main process, which stays in the foreground, and
// waits until it accepts connections on every port. When the test ends, ask asks
// it to stop; nil means SIGTERM to it and to all that it has forked.
func (s *Instance) Launch(t *testing.T, cmd *exec.Cmd, ask func() error, ports ...int) *machine.Server {
	t.Helper()
	return machine.Start(t, cmd, &s.output, ask, func() bool {
		for _, port := range ports {
			if !machine.Accepts("tcp", machine.Address(port))() {
				return false
			}
		}
		return true
	})
}

// Require skips the test when something is missing for the server, unless
// CI=true: then it fails.
func Require(t *testing.T, server string, missing []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing = append(missing, "root ("+server+" does not start without)")
	}
	if len(missing) == 0 {
		return
	}
	machine.Lacks(t, "needs a real "+server+" (make test-deps installs it); missing: "+strings.Join(missing, ", "))
}

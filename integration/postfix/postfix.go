// Package postfix runs a real Postfix for a test: a relay that offers
// submission with STARTTLS, implicit TLS and AUTH on loopback, and delivers to
// Maildirs that the test reads.
//
// The instance is the test's own: its configuration, queue, data, password
// database and certificate lie in one temporary directory, it listens on free
// loopback ports, and it relays nothing. A Postfix that the machine runs is not
// touched. Postfix itself insists on being started by root.
package postfix

import (
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/mta"
)

// Domain is the domain that the server delivers mail for.
const Domain = mta.Domain

// Delivered is a message as it lies in a mailbox.
type Delivered = mta.Delivered

// Busy is a recipient that is refused with "450 4.2.1 …" at RCPT, always.
//
// The server accepts the addresses that [Server.Recipient] gives out. Any other
// in [Domain] gets "550 5.1.1 … User unknown in virtual mailbox table", and any
// other domain "554 5.7.1 … Access denied" without AUTH.
const Busy = "busy@" + Domain

// Odd are recipients that RFC 5321 does not allow, or only in quotes.
var Odd = []string{"a..b@" + Domain, ".a@" + Domain, "a.@" + Domain, strings.Repeat("l", 150) + "@" + Domain}

// mailboxCount limits the recipients that a test may ask for.
const mailboxCount = 1000

// SizeLimit is the value that the server announces with SIZE (RFC 1870), in octets.
const SizeLimit = 2 << 20

// Server is a running Postfix. Its ports serve 127.0.0.1 only. The account may
// use PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-1 and SCRAM-SHA-256.
type Server struct {
	*mta.Instance
	// Submission offers STARTTLS and, after it, AUTH (RFC 6409).
	Submission int
	// Submissions is the same with implicit TLS (RFC 8314 §3.3).
	Submissions int
	// SevenBit is like Submission, without 8BITMIME and SMTPUTF8.
	SevenBit int
	// Doors are the ports that were asked for.
	Doors []int

	mailboxes atomic.Int32 // given out so far
}

// Start starts a server and stops it when the test ends. If the machine lacks a
// part, the test is skipped, or fails with CI=true. A failed test prints the
// server's log.
//
// Each of doors opens a further port, like Submission but with the settings given,
// "name=value" separated by blanks. Rates are per second.
func Start(t *testing.T, doors ...string) *Server {
	t.Helper()
	requireParts(t)
	s := &Server{
		Instance:   mta.New(t, "Postfix"),
		Submission: machine.FreePort(t), Submissions: machine.FreePort(t), SevenBit: machine.FreePort(t),
	}
	for range doors {
		s.Doors = append(s.Doors, machine.FreePort(t))
	}
	if err := s.writeConfig(doors); err != nil {
		t.Fatalf("set up Postfix: %v", err)
	}
	if err := s.writePassword(); err != nil {
		t.Fatalf("set up Postfix: %v", err)
	}
	s.run(t)
	return s
}

// Recipient returns the address of a new, empty mailbox.
func (s *Server) Recipient(t *testing.T) string {
	t.Helper()
	n := int(s.mailboxes.Add(1))
	if n > mailboxCount {
		t.Fatalf("more than %d mailboxes", mailboxCount)
	}
	return mailbox(n)
}

func mailbox(n int) string { return fmt.Sprintf("box%d@%s", n, Domain) }

// run starts Postfix in the foreground and waits until it answers on every
// port.
func (s *Server) run(t *testing.T) {
	t.Helper()
	postfix := func(command string) *exec.Cmd { return exec.Command("postfix", "-c", s.Path("etc"), command) }
	stop := func() error {
		if out, err := postfix("stop").CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	s.Launch(t, postfix("start-fg"), stop, append(s.Doors, s.Submission, s.Submissions, s.SevenBit)...)
}

// requireParts skips the test if a part is missing.
func requireParts(t *testing.T) {
	t.Helper()
	var missing []string
	for _, tool := range []string{"postfix", "saslpasswd2"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	mta.Require(t, "Postfix", missing)
}

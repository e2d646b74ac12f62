// Package relaytest is a scripted SMTP relay for tests.
//
// Without a script it is a working relay: STARTTLS with a certificate of its own
// authority ([RootCAs]), AUTH, 8BITMIME, SIZE, SMTPUTF8, PIPELINING. A [Script]
// changes its replies, and the transcript records commands, credentials and messages,
// and which of them came in clear.
package relaytest

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Script maps a client's command to what the relay does. A key is the beginning of a
// command line, in any case; the longest key that matches counts. Some steps have
// names of their own: "greeting", "TLS" (the handshake), "AUTH+" (each response
// within AUTH), "content" (after 354) and "." (the final dot).
//
// A value is a reply, its lines separated by "\n", or one of:
//
//	drop             close the connection
//	reset            close it with a TCP reset
//	silence          answer nothing any more
//	stall            answer and read nothing any more
//	part REPLY       send REPLY without a line end, then drop
//	split REPLY      every octet of it in a packet of its own
//	drip REPLY       one octet a second
//	after 2s REPLY   REPLY, but not at once
//	later ACTION     any of these, after a second
//	last REPLY       REPLY if there is one, then drop, when the client has sent on;
//	                 else as if there were no script
//	hold REPLY       not before the next command is there
//	inject REPLY     REPLY and, in the same packet, a second reply
//	extra OWN | MORE  OWN, and MORE, which answers no command, a millisecond later
//	stray MORE | OWN  the same the other way round
//	unsaid REPLY     as if REPLY were sent
//	bye REPLY        REPLY, then drop
//	lf REPLY         lines that end in a bare LF
//	endless line     a line that never ends
//	endless reply    lines that never end
//	default          as if there were no script
//	10% ACTION       any of these in ten of a hundred, at random; else as if there
//	                 were no script
//	wait             as if there were no script, but not before fewer than
//	                 Options.MaxConnections are served
//	plain            at "TLS": answer the handshake in clear
//
// Several joined by " then " are for the first, second … time; the last one
// stays.
type Script map[string]string

// Options are the features and limits of a relay.
type Options struct {
	// Implicit speaks TLS from the first octet.
	Implicit bool
	// Certificate is the one shown; zero is a good one.
	Certificate Certificate
	// Extensions are the EHLO lines in clear and over TLS; nil means the
	// default. STARTTLS and AUTH are among them.
	Extensions, TLSExtensions []string
	// Password of every account; "" means "secret".
	Password string
	// Token, if not nil, reports whether a user's access token is accepted; else it must
	// be the password.
	Token func(username, token string) bool
	// ClientCAs, if not nil, must have signed the client's certificate.
	ClientCAs *x509.CertPool
	// MaxTLS is the newest TLS version spoken; zero means the newest there is.
	MaxTLS uint16
	// SCRAMIterations is the work asked of a client; zero means 4096.
	SCRAMIterations int
	// MaxConnections limits the clients at a time; the others meet Crowded. Zero means
	// no limit.
	MaxConnections int
	// Crowded goes before the script for a client beyond MaxConnections; nil means a 421
	// in place of the greeting.
	Crowded Script
	// MaxMessages limits the messages of one connection; then MAIL gets 421. Zero means
	// no limit.
	MaxMessages int
	// SessionFull is what MAIL gets then, in place of 421, and the connection stays open.
	SessionFull string
	// StaysOpen leaves a transaction open whose content was refused: the next MAIL gets
	// 503, as it does from Postfix with smtpd_end_of_data_restrictions.
	StaysOpen bool
	// MaxErrors limits the replies of 5yz on a connection; then it gets a 421 that
	// answers no command, as Postfix sends it. Zero means no limit.
	MaxErrors int
	// MaxNonmail limits the commands on a connection that are not part of a
	// transaction, as Exim counts them: one RSET and one EHLO between two messages are
	// free. Zero means no limit.
	MaxNonmail int
	// EHLOEndsLogin makes the relay forget the login when EHLO comes again: RCPT is
	// refused then.
	EHLOEndsLogin bool
	// MaxBusy limits the transactions at a time; the others get 432 at MAIL. Zero means
	// no limit.
	MaxBusy int
	// MaxRate limits the transactions that begin in a second; the others get TooFast at
	// MAIL, an action as in a [Script]. Zero means no limit.
	MaxRate int
	TooFast string
	// Delay returns the time that the relay takes for a message while it has that number
	// of connections; nil means none.
	Delay func(connections int) time.Duration
	// IdleTimeout is how long a client may be silent before it gets 421; zero means no
	// limit.
	IdleTimeout time.Duration
	// Kept is how many octets of each message the relay keeps; zero means all.
	Kept int
	// SCRAMUnproved makes the relay say 235 without proof that it knows the password.
	SCRAMUnproved bool
}

var (
	defaultExtensions = []string{"PIPELINING", "SIZE 10485760", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS"}
	defaultTLS        = []string{
		"PIPELINING", "SIZE 10485760", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES",
		"AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2",
	}
)

// Without returns the default extensions over TLS without those named.
func Without(keywords ...string) []string {
	return slices.DeleteFunc(slices.Clone(defaultTLS), func(line string) bool {
		return slices.Contains(keywords, strings.Fields(line)[0])
	})
}

// Relay is a scripted relay. Its methods may be called at any time.
type Relay struct {
	script Script
	opts   Options

	mu          sync.Mutex
	turns       map[string]int // how often each key of the script was used
	commands    []Command
	credentials []Credential
	messages    []Message
	verdicts    map[string][]string
	clear       bytes.Buffer
	conns       map[net.Conn]bool
	serving     int        // those of conns that are not crowded
	fewer       *sync.Cond // serving has become less, or the relay ends
	served      int
	most        int         // connections at a time
	busy        int         // transactions
	began       []time.Time // the last MaxRate transactions
	sessions    sync.WaitGroup
	closed      chan struct{}
	over        bool // closed is closed
}

// Command is a line from the client.
type Command struct {
	Line string
	TLS  bool
	Conn int // number of the connection, from 1
	At   time.Time
}

// Credential is a login that was tried.
type Credential struct {
	Mechanism, Username, Secret string
	TLS                         bool
	Accepted                    bool
}

// Message is a message whose final dot came.
type Message struct {
	ReversePath  string
	Params       string // of MAIL
	ForwardPaths []string
	Data         []byte // dots removed
	TLS          bool
	// Client is the certificate that the client has shown; nil without one.
	Client *x509.Certificate
	Reply  string // to the final dot, or what was done instead
}

// New returns a relay that ends with the test. Use [Network] or [Relay.Listen]
// to reach it.
func New(t testing.TB, opts Options, script Script) *Relay {
	t.Helper()
	if opts.Password == "" {
		opts.Password = "secret"
	}
	if opts.Extensions == nil {
		opts.Extensions = defaultExtensions
	}
	if opts.TLSExtensions == nil {
		opts.TLSExtensions = defaultTLS
	}
	if opts.Crowded == nil {
		opts.Crowded = Script{"greeting": "bye 421 4.7.0 too many connections"}
	}
	r := &Relay{script: script, opts: opts, turns: map[string]int{}, verdicts: map[string][]string{}, conns: map[net.Conn]bool{}, closed: make(chan struct{})}
	r.fewer = sync.NewCond(&r.mu)
	t.Cleanup(r.close)
	return r
}

// Listen serves on a port of the loopback interface and returns it.
func (r *Relay) Listen(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.Serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// Serve talks to one client in the background.
func (r *Relay) Serve(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.served++
	r.conns[c] = true
	s := newSession(r, c, r.served)
	if s.crowded = r.full(); !s.crowded {
		r.begin()
	}
	r.sessions.Go(func() {
		s.run()
		defer c.Close() // after it is no longer counted: the client may open another
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, c)
		if !s.crowded {
			r.serving--
			r.fewer.Broadcast()
		}
	})
}

// full reports whether there are as many clients as are served. The caller holds mu.
func (r *Relay) full() bool { return r.opts.MaxConnections > 0 && r.serving >= r.opts.MaxConnections }

// begin counts a client that is served. The caller holds mu.
func (r *Relay) begin() {
	r.serving++
	r.most = max(r.most, r.serving)
}

// wait waits until one client more can be served, or the relay ends.
func (r *Relay) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.full() && !r.over {
		r.fewer.Wait()
	}
	r.begin()
}

// close ends all sessions and waits for them.
func (r *Relay) close() {
	close(r.closed)
	r.mu.Lock()
	r.over = true
	for c := range r.conns {
		c.Close()
	}
	r.fewer.Broadcast()
	r.mu.Unlock()
	r.sessions.Wait()
}

// Restart closes all connections.
func (r *Relay) Restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

// Allow changes Options.MaxConnections.
func (r *Relay) Allow(connections int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opts.MaxConnections = connections
}

// admit reports whether a transaction may begin, and otherwise what the relay does.
func (r *Relay) admit() (refusal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.opts.MaxRate; n > 0 {
		now := time.Now()
		if len(r.began) == n && now.Sub(r.began[0]) < time.Second {
			return r.opts.TooFast
		}
		r.began = append(r.began, now)
		r.began = r.began[max(0, len(r.began)-n):]
	}
	if r.opts.MaxBusy > 0 && r.busy == r.opts.MaxBusy {
		return "432 4.3.2 Concurrent connections limit exceeded"
	}
	r.busy++
	return ""
}

func (r *Relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
}

// delay returns Options.Delay for the connections of this moment.
func (r *Relay) delay() time.Duration {
	if r.opts.Delay == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.Delay(len(r.conns))
}

// Connections returns the number of clients at this moment.
func (r *Relay) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// Most returns the greatest number of clients that were served at a time.
func (r *Relay) Most() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

// Served returns the number of connections so far.
func (r *Relay) Served() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.served
}

// Commands returns the lines of all clients, without content.
func (r *Relay) Commands() []Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.commands)
}

// Said counts the commands that begin with prefix.
func (r *Relay) Said(prefix string) int {
	n := 0
	for _, c := range r.Commands() {
		if strings.HasPrefix(strings.ToUpper(c.Line), strings.ToUpper(prefix)) {
			n++
		}
	}
	return n
}

// Credentials returns the logins that were tried.
func (r *Relay) Credentials() []Credential {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.credentials)
}

// Messages returns those whose final dot came, whatever the reply was.
func (r *Relay) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

// Verdicts returns the relay's own replies about a recipient, in order: to its RCPT,
// and if that was accepted to DATA and the final dot. An empty path means MAIL.
func (r *Relay) Verdicts(forwardPath string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.verdicts[forwardPath])
}

func (r *Relay) noteVerdict(reply string, forwardPaths ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range forwardPaths {
		r.verdicts[path] = append(r.verdicts[path], reply)
	}
}

// Clear returns every octet that clients sent outside TLS, including handshakes.
func (r *Relay) Clear() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.clear.Bytes())
}

// next returns what the script says to line, or "default". For a client beyond
// MaxConnections, Crowded may say something else.
func (r *Relay) next(line string, crowded bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key, found := r.opts.Crowded.match(line); found && crowded {
		return r.step(r.opts.Crowded, key, "crowded "+key)
	}
	if key, found := r.script.match(line); found {
		return r.step(r.script, key, key)
	}
	return "default"
}

// match returns the longest key that line begins with.
func (s Script) match(line string) (key string, found bool) {
	for k := range s {
		if len(k) >= len(key) && len(line) >= len(k) && strings.EqualFold(line[:len(k)], k) {
			key, found = k, true
		}
	}
	return key, found
}

// step returns what is to be done this time, by the number of earlier times that
// count has. The caller holds mu.
func (r *Relay) step(s Script, key, count string) string {
	steps := strings.Split(s[key], " then ")
	turn := min(r.turns[count], len(steps)-1)
	r.turns[count]++
	if percent, action, found := strings.Cut(steps[turn], "% "); found {
		if n, err := strconv.Atoi(percent); err == nil {
			if rand.IntN(100) < n {
				return action
			}
			return "default"
		}
	}
	return steps[turn]
}

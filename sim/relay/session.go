package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"mailsidecar/sim/chance"
	"mailsidecar/sim/network"
)

// session is a connection.
type session struct {
	relay   *Relay
	conn    *network.Conn
	nc      net.Conn // conn, or TLS over it
	in      *bufio.Reader
	number  int
	crowded bool
	secure  bool
	frozen  bool

	opened      time.Time
	loggedIn    bool
	transaction int // place in Notes.Mails; -1: none
	accepted    []string

	waited bool         // for the last command; else it was there before
	read   time.Time    // when the last command, or the dot behind it, was read
	before time.Time    // the same of the one before it
	hold   bool         // replies go with the next one, in one packet
	held   bytes.Buffer // that wait for it
}

// reply is what the relay says.
type reply struct {
	code     int
	enhanced string
	stage    Stage
	path     string // of RCPT
	text     string // before the serial, with a blank
	stray    bool
}

// run serves until the client leaves or the relay has had enough.
func (s *session) run() {
	s.use(s.conn)
	defer s.leave()
	if s.crowded {
		s.say(reply{code: 421, enhanced: "4.7.0", stage: Greeting})
		return
	}
	if !s.step(reply{code: 220, stage: Greeting}, "", nil) {
		return
	}
	for {
		if idle := s.relay.opts.Idle; idle > 0 {
			s.conn.SetReadDeadline(time.Now().Add(idle))
		}
		asked := time.Now()
		line, err := s.readLine()
		s.before, s.read = s.read, time.Now()
		s.waited = s.read.After(asked)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.say(reply{code: 421, enhanced: "4.4.2", stage: Hello, stray: true})
		}
		s.conn.SetReadDeadline(time.Time{})
		if err != nil || !s.command(line) {
			return
		}
	}
}

func (s *session) use(nc net.Conn) { s.nc, s.in = nc, bufio.NewReaderSize(nc, 2048) }

func (s *session) readLine() (string, error) {
	line, err := s.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// command answers one command; false ends the session.
func (s *session) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		s.leave() // RFC 5321 §4.1.4
		return s.step(reply{code: 250, stage: Hello}, "", s.extensions())
	case "STARTTLS":
		return s.startTLS()
	case "AUTH":
		return s.auth()
	case "MAIL":
		return s.mail(path(rest))
	case "RCPT":
		return s.rcpt(path(rest))
	case "DATA":
		return s.data()
	case "RSET":
		s.leave()
		return s.say(reply{code: 250, enhanced: "2.0.0", stage: Mail})
	case "NOOP":
		return s.say(reply{code: 250, enhanced: "2.0.0", stage: Hello})
	case "QUIT":
		s.say(reply{code: 221, enhanced: "2.0.0", stage: Hello})
		return false
	}
	return s.say(reply{code: 500, enhanced: "5.5.1", stage: Hello})
}

// path returns what stands between the angle brackets.
func path(rest string) string {
	_, after, _ := strings.Cut(rest, "<")
	inside, _, _ := strings.Cut(after, ">")
	return inside
}

func (s *session) extensions() []string {
	o := &s.relay.opts
	lines := []string{"sim", "ENHANCEDSTATUSCODES", "SIZE 1000000"}
	if o.Pipelining {
		lines = append(lines, "PIPELINING")
	}
	if o.EightBit {
		lines = append(lines, "8BITMIME")
	}
	if o.TLS != nil && !s.secure {
		lines = append(lines, "STARTTLS")
	}
	if o.Login && (o.TLS == nil || s.secure) {
		lines = append(lines, "AUTH PLAIN")
	}
	return lines
}

func (s *session) startTLS() bool {
	if s.relay.opts.TLS == nil || !s.say(reply{code: 220, stage: Hello}) {
		return false
	}
	c := tls.Server(s.nc, s.relay.opts.TLS)
	if c.Handshake() != nil {
		return false
	}
	s.use(c)
	s.secure, s.loggedIn = true, false
	return true
}

func (s *session) auth() bool {
	r := s.relay
	fault, c := r.decide(Auth, "")
	if r.locked() {
		fault = Refuse
	}
	login := Login{At: time.Now(), Conn: s.number, Instance: s.conn.Instance(), Accepted: fault == Faults || fault == Slow || fault == Extra, Refused: fault == Refuse}
	s.loggedIn = login.Accepted
	r.mu.Lock()
	n := len(r.notes.Logins)
	r.notes.Logins = append(r.notes.Logins, login)
	r.mu.Unlock()
	ok := s.misbehave(fault, c, reply{code: 235, enhanced: "2.7.0", stage: Auth}, "", nil)
	if fault != Freeze {
		r.mu.Lock()
		r.notes.Logins[n].Over = time.Now()
		r.mu.Unlock()
	}
	return ok
}

// leave ends the transaction, if there is one.
func (s *session) leave() {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.leaveLocked()
}

func (s *session) leaveLocked() {
	if s.transaction >= 0 && !s.frozen {
		s.relay.notes.Mails[s.transaction].Over = time.Now()
	}
	s.transaction, s.accepted = -1, nil
}

func (s *session) mail(reversePath string) bool {
	r := s.relay
	r.mu.Lock()
	s.leaveLocked()
	s.transaction = len(r.notes.Mails)
	r.notes.Mails = append(r.notes.Mails, Transaction{At: time.Now(), ReversePath: reversePath, Conn: s.number, Ahead: !s.waited, After: s.before, Opened: s.opened, Instance: s.conn.Instance()})
	r.mu.Unlock()
	r.log.Add(r.opts.Name, "MAIL", reversePath, s.number)
	if r.opts.Login && !s.loggedIn {
		s.leave()
		return s.say(reply{code: 530, enhanced: "5.7.0", stage: Mail})
	}
	fault, c := r.decide(Mail, reversePath)
	if !s.misbehave(fault, c, reply{code: 250, enhanced: "2.1.0", stage: Mail}, reversePath, nil) {
		return false
	}
	if !fault.agrees() {
		s.leave()
	}
	return true
}

// agrees says that the relay does what it was asked for.
func (f Fault) agrees() bool { return f == Faults || f == Slow || f == Extra }

func (s *session) rcpt(path string) bool {
	r := s.relay
	if s.transaction < 0 {
		return s.say(reply{code: 503, enhanced: "5.5.1", stage: Rcpt, path: path})
	}
	r.mu.Lock()
	t := &r.notes.Mails[s.transaction]
	t.Paths = append(t.Paths, path)
	r.mu.Unlock()
	if r.opts.MaxRecipients > 0 && len(s.accepted) >= r.opts.MaxRecipients {
		return s.say(reply{code: 452, enhanced: "4.5.3", stage: Rcpt, path: path})
	}
	fault, c := r.decide(Rcpt, path)
	if fault.agrees() {
		s.accepted = append(s.accepted, path)
	}
	return s.misbehave(fault, c, reply{code: 250, enhanced: "2.1.5", stage: Rcpt, path: path}, path, nil)
}

func (s *session) data() bool {
	if s.transaction < 0 || len(s.accepted) == 0 {
		return s.say(reply{code: 554, enhanced: "5.5.1", stage: Data})
	}
	fault, c := s.relay.decide(Data, s.accepted[0])
	ok := s.misbehave(fault, c, reply{code: 354, stage: Data}, s.accepted[0], nil)
	if !ok || !fault.agrees() {
		s.leave()
		return ok
	}
	content, ok := s.content()
	if ok || len(content) > 0 {
		s.noteContent()
	}
	if !ok {
		return false
	}
	return s.dot(content)
}

func (s *session) noteContent() {
	s.transactionAt(func(t *Transaction, _ time.Time) { t.Content = true })
}

// transactionAt notes what happens to the transaction now.
func (s *session) transactionAt(note func(t *Transaction, now time.Time)) {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	note(&s.relay.notes.Mails[s.transaction], time.Now())
}

// content reads up to the final dot, and returns false where that does not come.
func (s *session) content() ([]byte, bool) {
	var content []byte
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return append(content, line...), false
		}
		if len(content) == 0 {
			s.transactionAt(func(t *Transaction, now time.Time) { t.Begun = now })
		}
		if string(line) == ".\r\n" {
			s.read = time.Now()
			s.transactionAt(func(t *Transaction, now time.Time) { t.Ended = now })
			return content, true
		}
		content = append(content, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// dot decides on the content.
func (s *session) dot(content []byte) bool {
	r := s.relay
	s.judge(content)
	fault, c := r.decide(Dot, s.accepted[0])
	good := reply{code: 250, enhanced: "2.0.0", stage: Dot}
	taken := len(r.Notes().Takes)
	if fault.agrees() || fault >= LostBehind {
		if fault == Slow && !s.pause(c.Of("slow").Between(time.Second, 5*time.Minute)) {
			return false
		}
		s.take()
		r.log.Add(r.opts.Name, "takes", s.accepted[0], len(s.accepted))
	}
	switch fault {
	default:
	case LostBehind:
		return false
	case HungBehind:
		s.hang()
		return false
	case Late:
		if !s.pause(c.Of("late").Between(11*time.Minute, 13*time.Minute)) {
			return false
		}
		return s.tell(good, taken)
	case Slow, Faults:
		return s.tell(good, taken)
	case Extra:
		// In one packet: whether a packet that comes later answers a command cannot be seen.
		s.hold = true
		ok := s.tell(good, taken)
		s.hold = false
		return ok && s.say(reply{code: 250, enhanced: "2.0.0", stage: Dot, stray: true})
	}
	ok := s.misbehave(fault, c, good, s.accepted[0], nil)
	s.leave()
	return ok
}

// take notes that the relay is responsible for the message.
func (s *session) take() {
	r := s.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range s.accepted {
		r.notes.Takes = append(r.notes.Takes, Take{At: time.Now(), Path: path, Transaction: s.transaction, Said: -1})
	}
}

// tell says that the message was taken; the notes from the place on are of it.
func (s *session) tell(good reply, taken int) bool {
	r := s.relay
	ok := s.sayTo(good, func(serial int) {
		for i := range r.notes.Takes[taken:] {
			if t := &r.notes.Takes[taken+i]; t.Transaction == s.transaction {
				t.Said, t.Told = serial, true
			}
		}
	})
	s.leave()
	return ok
}

// judge looks whether the content is of that message and hides what it must.
func (s *session) judge(content []byte) {
	token := Token(s.accepted[0])
	subject, _, _ := strings.Cut(token, "r") // of what is sent to another address
	var wrong string
	switch {
	case bytes.Contains(content, []byte("bcc-m")):
		wrong = "a Bcc recipient stands in the content of " + token
	case !bytes.Contains(content, []byte("Subject: "+subject+"\r\n")):
		wrong = "the content for " + s.accepted[0] + " is of another message"
	case bytes.Contains(content, []byte("a line of")) && !bytes.Contains(content, []byte("\n.a line of")):
		wrong = "the content of " + token + " has lost dots"
	case !bytes.Contains(content, []byte("end of "+subject+"\r\n")):
		wrong = "the content of " + token + " was cut short"
	}
	for _, path := range s.accepted {
		if Token(path) != token {
			wrong = "recipients of two messages in one transaction: " + s.accepted[0] + ", " + path
		}
	}
	if wrong != "" {
		s.relay.mu.Lock()
		defer s.relay.mu.Unlock()
		s.relay.notes.Foreign = append(s.relay.notes.Foreign, wrong)
	}
}

// Token is the name of the message in an address, such as to-m17-0@example.org. One that is sent to another
// address is m17r30.
func Token(address string) string {
	_, rest, _ := strings.Cut(address, "-")
	token, _, _ := strings.Cut(rest, "-")
	return token
}

// step decides on a reply, and sends it.
func (s *session) step(good reply, about string, lines []string) bool {
	fault, c := s.relay.decide(good.stage, about)
	return s.misbehave(fault, c, good, about, lines)
}

// misbehave does what the fault says; good is the reply where there is none.
func (s *session) misbehave(fault Fault, c chance.Chance, good reply, about string, lines []string) bool {
	if fault != Faults {
		s.relay.log.Add(s.relay.opts.Name, fault.String(), about, int(good.stage))
	}
	bad := good
	switch fault {
	case Refuse:
		bad.code, bad.enhanced = refusal(good.stage, c)
		if stop := s.relay.stopped(good.stage); stop != nil {
			bad = stop.reply(good)
		}
		return s.say(bad) && good.stage != Greeting
	case Defer:
		bad.code, bad.enhanced = chance.Pick(c, 450, 451, 452), "4.2.0"
		return s.say(bad) && good.stage != Greeting
	case Less:
		bad.code, bad.enhanced = 421, "4.7.28"
		if good.stage >= Mail {
			bad.code, bad.enhanced = 432, "4.3.2"
			return s.say(bad)
		}
		s.say(bad)
		return false
	case Bye:
		bad.code, bad.enhanced = 421, "4.3.0"
		s.say(bad)
		return false
	case Hang:
		s.hang()
		return false
	case Freeze:
		s.conn.Freeze()
		s.frozen = true
		return false
	case Slow:
		return s.pause(c.Of("slow").Between(time.Second, 5*time.Minute)) && s.say(good, lines...)
	case Wrong:
		// None that would say yes: then the relay would have to take the mail.
		bad.code, bad.enhanced = chance.Pick(c, 354, 334, 503, 500, 199), ""
		if good.stage == Data {
			bad.code = chance.Pick(c, 250, 334, 503, 500, 199)
		}
		return s.say(bad)
	case Extra:
		stray := good
		stray.stray, stray.code = true, chance.Pick(c, 250, 450, 550)
		s.hold = true
		s.say(good, lines...)
		s.hold = false
		return s.say(stray)
	case Faults:
		return s.say(good, lines...)
	default:
		return false
	}
}

func refusal(stage Stage, c chance.Chance) (code int, enhanced string) {
	switch stage {
	default:
	case Auth:
		return 535, "5.7.8"
	case Greeting:
		return 554, "5.7.1"
	case Mail:
		return chance.Pick(c, 550, 553, 530, 501), "5.1.0"
	case Dot:
		return chance.Pick(c, 550, 554), "5.6.0"
	}
	return chance.Pick(c, 550, 553, 554), "5.1.1"
}

// say sends a reply; lines are those before its last one.
func (s *session) say(what reply, lines ...string) bool { return s.sayTo(what, nil, lines...) }

// sayTo does, and calls note with the number of the reply under the relay's mutex.
func (s *session) sayTo(what reply, note func(serial int), lines ...string) bool {
	r := s.relay
	r.mu.Lock()
	serial := len(r.notes.Said)
	said := Said{At: time.Now(), Stage: what.stage, Code: what.code, Quota: what.enhanced == "5.4.5", Path: what.path, Transaction: s.transaction, Stray: what.stray}
	if what.stage >= Data {
		said.Paths = s.accepted
	}
	r.notes.Said = append(r.notes.Said, said)
	if note != nil {
		note(serial)
	}
	r.mu.Unlock()
	r.log.Add(r.opts.Name, stageNames[what.stage], what.path, what.code)
	b := &s.held
	for _, line := range lines {
		fmt.Fprintf(b, "%d-%s\r\n", what.code, line)
	}
	enhanced := what.enhanced
	if enhanced != "" {
		enhanced += " "
	}
	fmt.Fprintf(b, "%d %s%s%s said\r\n", what.code, enhanced, what.text, r.serial(serial))
	if s.hold {
		return true
	}
	_, err := s.nc.Write(b.Bytes())
	b.Reset()
	return err == nil
}

// hang answers nothing until the client leaves.
func (s *session) hang() { _, _ = io.Copy(io.Discard, s.in) }

// pause waits; false means that the relay ends.
func (s *session) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.relay.over:
		return false
	}
}

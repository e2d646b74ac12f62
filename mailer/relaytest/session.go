package relaytest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"time"
)

// session is one connection to a client.
type session struct {
	relay  *Relay
	number int
	raw    net.Conn
	nc     net.Conn
	br     *bufio.Reader
	tls    *tls.ConnectionState

	crowded   bool // there are too many connections
	messages  int
	errors    int  // replies of 5yz
	nonmail   int  // commands
	reset     bool // by RSET since the last message
	greeted   bool // by EHLO since TLS and the last message
	loggedIn  bool
	loggedOut bool // by EHLO, see Options.EHLOEndsLogin
	mail      bool
	busy      bool // a transaction goes on
	message   Message
}

// tap records the octets that the client sends below TLS, as long as they are clear
// text.
type tap struct {
	net.Conn
	session *session
}

func (t tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if t.session.tls == nil {
		t.session.relay.mu.Lock()
		t.session.relay.clear.Write(p[:n])
		t.session.relay.mu.Unlock()
	}
	return n, err
}

func newSession(r *Relay, c net.Conn, number int) *session {
	s := &session{relay: r, number: number, raw: c}
	s.use(tap{c, s})
	return s
}

func (s *session) use(nc net.Conn) {
	s.nc = nc
	s.br = bufio.NewReaderSize(nc, 64<<10)
}

func (s *session) run() {
	defer s.free()
	if s.relay.opts.Implicit && !s.handshake() {
		return
	}
	if s.act("greeting", "220 relay.test ESMTP") == "" {
		return
	}
	for {
		line, ok := s.nextLine()
		if !ok || !s.command(line) {
			return
		}
		if most := s.relay.opts.MaxErrors; most > 0 && s.errors >= most {
			s.send("421 4.7.0 relay.test Error: too many errors", "\r\n")
			return
		}
	}
}

// nextLine waits for a command, up to Options.IdleTimeout.
func (s *session) nextLine() (string, bool) {
	patience := s.relay.opts.IdleTimeout
	if patience == 0 {
		return s.readLine()
	}
	s.raw.SetReadDeadline(time.Now().Add(patience))
	line, ok := s.readLine()
	s.raw.SetReadDeadline(time.Time{})
	if !ok {
		s.send("421 4.4.2 timeout", "\r\n")
	}
	return line, ok
}

func (s *session) readLine() (string, bool) {
	line, err := s.br.ReadString('\n')
	if err != nil {
		return "", false
	}
	line = strings.TrimRight(line, "\r\n")
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.relay.commands = append(s.relay.commands, Command{Line: line, TLS: s.tls != nil, Conn: s.number, At: time.Now()})
	return line, true
}

// command answers one line; false ends the session.
func (s *session) command(line string) bool {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	verb, _, _ = strings.Cut(verb, ":")
	switch verb {
	case "EHLO":
		if !s.nonmailCommand(&s.greeted) {
			return false
		}
		s.loggedOut = s.loggedIn && s.relay.opts.EHLOEndsLogin
		s.free()
		return s.act(line, s.ehlo()) != ""
	case "STARTTLS":
		reply := s.act(line, "220 2.0.0 go ahead")
		return reply != "" && (reply[0] != '2' || s.handshake())
	case "AUTH":
		return s.auth(line)
	case "MAIL":
		return s.mailFrom(line)
	case "RCPT":
		return s.rcptTo(line)
	case "DATA":
		return s.data(line)
	case "RSET", "HELO", "NOOP":
		again := new(true)
		if verb == "RSET" {
			again = &s.reset
		}
		if !s.nonmailCommand(again) {
			return false
		}
		s.free()
		return s.act(line, "250 2.0.0 ok") != ""
	case "QUIT":
		s.act(line, "221 2.0.0 bye")
		return false
	default:
		return s.act(line, "500 5.5.2 unknown command") != ""
	}
}

// nonmailCommand counts a command that is not part of a transaction, unless it is the
// first of its kind, and returns false where there were too many.
func (s *session) nonmailCommand(again *bool) bool {
	if *again {
		s.nonmail++
	}
	*again = true
	if most := s.relay.opts.MaxNonmail; most > 0 && s.nonmail > most {
		s.send("554 5.7.0 Too many nonmail commands", "\r\n")
		return false
	}
	return true
}

func (s *session) ehlo() string {
	extensions := s.relay.opts.Extensions
	if s.tls != nil {
		extensions = s.relay.opts.TLSExtensions
	}
	lines := append([]string{"relay.test"}, extensions...)
	return "250-" + strings.Join(lines[:len(lines)-1], "\n250-") + "\n250 " + lines[len(lines)-1]
}

func (s *session) handshake() bool {
	switch s.next("TLS") {
	case "drop":
		return false
	case "silence":
		s.silence()
		return false
	case "plain":
		s.br.Peek(1) // the ClientHello
		s.nc.Write([]byte("220 relay.test ESMTP\r\n"))
		s.silence()
		return false
	}
	config := s.relay.opts.Certificate.config(s.relay.opts.MaxTLS)
	if config.ClientCAs = s.relay.opts.ClientCAs; config.ClientCAs != nil {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	tc := tls.Server(s.nc, config)
	if err := tc.HandshakeContext(context.Background()); err != nil {
		return false
	}
	state := tc.ConnectionState()
	s.tls, s.greeted = &state, false
	s.use(tc)
	return true
}

func (s *session) mailFrom(line string) bool {
	if most := s.relay.opts.MaxMessages; most > 0 && s.messages == most {
		if full := s.relay.opts.SessionFull; full != "" {
			return s.send(full, "\r\n") != ""
		}
		s.send("421 4.7.0 enough for one connection", "\r\n")
		return false
	}
	if s.mail && s.relay.opts.StaysOpen {
		return s.send("503 5.5.1 nested MAIL command", "\r\n") != ""
	}
	if s.busy { // MAIL again
		s.free()
	}
	if refusal := s.relay.admit(); refusal != "" {
		return s.do(refusal, "") != ""
	}
	s.busy = true
	reply := s.act(line, "250 2.1.0 ok")
	s.relay.noteVerdict(reply, "")
	if reply != "" && reply[0] == '2' {
		path, params := splitPath(line)
		s.mail, s.message = true, Message{ReversePath: path, Params: params, TLS: s.tls != nil, Client: s.client()}
	}
	return reply != ""
}

// client returns the certificate that the client has shown, or nil.
func (s *session) client() *x509.Certificate {
	if s.tls == nil || len(s.tls.PeerCertificates) == 0 {
		return nil
	}
	return s.tls.PeerCertificates[0]
}

// free ends the transaction.
func (s *session) free() {
	if s.mail, s.message = false, (Message{}); s.busy {
		s.busy = false
		s.relay.leave()
	}
}

func (s *session) rcptTo(line string) bool {
	fallback := "250 2.1.5 ok"
	if !s.mail {
		fallback = "503 5.5.1 MAIL first"
	}
	if s.loggedOut {
		return s.send("554 5.7.1 relay access denied", "\r\n") != ""
	}
	reply := s.act(line, fallback)
	path, _ := splitPath(line)
	s.relay.noteVerdict(reply, path)
	if reply != "" && reply[0] == '2' {
		s.message.ForwardPaths = append(s.message.ForwardPaths, path)
	}
	return reply != ""
}

// splitPath takes the path and the parameters out of MAIL or RCPT.
func splitPath(line string) (path, params string) {
	_, rest, _ := strings.Cut(line, "<")
	end := strings.LastIndexByte(rest, '>')
	if end < 0 {
		return rest, ""
	}
	return rest[:end], strings.TrimSpace(rest[end+1:])
}

func (s *session) data(line string) bool {
	fallback := "354 go ahead"
	if len(s.message.ForwardPaths) == 0 {
		fallback = "503 5.5.1 no valid recipients"
	}
	action, atContent := s.next(line), "default"
	if strings.Contains(action, "354") || action == "default" && strings.HasPrefix(fallback, "354") {
		atContent = s.next("content")
	}
	if c, ok := s.raw.(interface{ CloseRead() error }); ok && atContent == "drop" {
		c.CloseRead() // at once, before the client sends more
	}
	reply := s.do(action, fallback)
	s.relay.noteVerdict(reply, s.message.ForwardPaths...)
	if !strings.HasPrefix(reply, "354") {
		return reply != ""
	}
	if atContent != "default" {
		s.do(atContent, "")
		return false
	}
	content, ok := s.content()
	if !ok {
		return false
	}
	s.reset, s.greeted = false, false
	const accepted = "250 2.0.0 queued"
	action = s.next(".")
	if kept := s.relay.opts.Kept; kept > 0 && len(content) > kept {
		content = bytes.Clone(content[:kept])
	}
	s.message.Data, s.message.Reply = content, action
	if action == "default" {
		s.message.Reply = accepted
	}
	// Record the message before the client can see the reply.
	s.relay.mu.Lock()
	s.relay.messages = append(s.relay.messages, s.message)
	s.messages++
	s.relay.mu.Unlock()
	time.Sleep(s.relay.delay())
	paths := s.message.ForwardPaths
	if !s.relay.opts.StaysOpen || action == "default" || strings.HasPrefix(action, "2") {
		s.free() // before the client can begin the next one
	}
	reply = s.do(action, accepted)
	s.relay.noteVerdict(reply, paths...)
	return reply != ""
}

// content reads up to the final dot and removes the stuffing.
func (s *session) content() ([]byte, bool) {
	var data []byte
	for {
		line, err := s.br.ReadBytes('\n')
		if err != nil {
			return nil, false
		}
		if string(line) == ".\r\n" {
			return data, true
		}
		data = append(data, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// next returns what the script says to line, or "default".
func (s *session) next(line string) string { return s.relay.next(line, s.crowded) }

// act does what the script says about line, or sends the default reply. It returns
// the reply that was sent, or the empty string when the session is over.
func (s *session) act(line, fallback string) string {
	return s.do(s.next(line), fallback)
}

func (s *session) do(action, fallback string) string {
	verb, reply, _ := strings.Cut(action, " ")
	switch verb {
	case "default":
		return s.send(fallback, "\r\n")
	case "wait":
		s.relay.wait()
		s.crowded = false
		return s.send(fallback, "\r\n")
	case "drop":
	case "reset":
		if tcp, ok := s.raw.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		s.raw.Close()
	case "silence":
		s.silence()
	case "stall":
		<-s.relay.closed
	case "part":
		s.nc.Write([]byte(reply))
	case "bye":
		s.send(reply, "\r\n")
	case "lf":
		return s.send(reply, "\n")
	case "after":
		pause, late, _ := strings.Cut(reply, " ")
		d, err := time.ParseDuration(pause)
		if err != nil {
			panic(err)
		}
		time.Sleep(d)
		return s.send(late, "\r\n")
	case "later":
		time.Sleep(time.Second)
		return s.do(reply, fallback)
	case "last":
		time.Sleep(time.Millisecond) // so that the rest of the flight arrives
		if s.br.Buffered() == 0 {
			return s.send(fallback, "\r\n")
		}
		if reply != "" {
			s.send(reply, "\r\n")
		}
	case "hold":
		s.br.Peek(1)
		return s.send(reply, "\r\n")
	case "split":
		return s.drip(reply, 0)
	case "drip":
		return s.drip(reply, time.Second)
	case "extra":
		own, more, _ := strings.Cut(reply, " | ")
		sent := s.do(own, fallback)
		time.Sleep(time.Millisecond)
		s.send(more, "\r\n")
		return sent
	case "stray":
		more, own, _ := strings.Cut(reply, " | ")
		s.send(more, "\r\n")
		time.Sleep(time.Millisecond)
		return s.do(own, fallback)
	case "unsaid":
		return reply
	case "inject":
		s.nc.Write([]byte(reply + "\r\n250 injected\r\n"))
		return reply
	case "endless":
		s.endless(reply)
	default:
		return s.send(action, "\r\n")
	}
	return ""
}

func (s *session) send(reply, end string) string {
	if strings.HasPrefix(reply, "5") {
		s.errors++
	}
	if _, err := s.nc.Write([]byte(strings.ReplaceAll(reply, "\n", end) + end)); err != nil {
		return ""
	}
	return reply
}

func (s *session) drip(reply string, pause time.Duration) string {
	for _, b := range []byte(strings.ReplaceAll(reply, "\n", "\r\n") + "\r\n") {
		if _, err := s.nc.Write([]byte{b}); err != nil {
			return ""
		}
		time.Sleep(pause)
	}
	return reply
}

func (s *session) endless(what string) {
	piece := bytes.Repeat([]byte("a"), 1<<10)
	if what == "reply" {
		piece = []byte("250-more\r\n")
	} else {
		s.nc.Write([]byte("250 "))
	}
	for {
		if _, err := s.nc.Write(piece); err != nil {
			return
		}
	}
}

// silence waits until the client is gone.
func (s *session) silence() {
	var p [1024]byte
	for {
		if _, err := s.raw.Read(p[:]); err != nil {
			return
		}
	}
}

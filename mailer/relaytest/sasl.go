package relaytest

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
)

// auth runs one AUTH command; false ends the session.
func (s *session) auth(line string) bool {
	if action := s.next(line); action != "default" {
		return s.scriptedAuth(line, action)
	}
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return s.send("501 5.5.4 mechanism?", "\r\n") != ""
	}
	x := &exchange{session: s, ok: true}
	if len(fields) > 2 {
		x.initial, _ = base64.StdEncoding.DecodeString(fields[2])
		x.hasInitial = true
	}
	c := Credential{Mechanism: strings.ToUpper(fields[1]), TLS: s.tls != nil}
	x.mechanism(&c)
	if !x.ok {
		return false
	}
	s.note(c)
	reply := "535 5.7.8 authentication failed"
	if s.loggedIn = c.Accepted; c.Accepted {
		reply = "235 2.7.0 welcome"
	}
	return s.send(reply, "\r\n") != ""
}

func (s *session) note(c Credential) {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.relay.credentials = append(s.relay.credentials, c)
}

// scriptedAuth records the login and does what the script says. After a 334, "AUTH+"
// answers the responses.
func (s *session) scriptedAuth(line, action string) bool {
	fields := strings.Fields(line)
	s.note(Credential{Mechanism: fields[1], Secret: strings.Join(fields[2:], " "), TLS: s.tls != nil})
	reply := s.do(action, "")
	for strings.HasPrefix(reply, "334") {
		if _, ok := s.readLine(); !ok {
			return false
		}
		reply = s.act("AUTH+", "235 2.7.0 welcome")
	}
	return reply != ""
}

// exchange is the relay's side of a SASL dialogue.
type exchange struct {
	session    *session
	initial    []byte
	hasInitial bool
	ok         bool   // the client is still there
	answer     string // to the error of a token
}

// ask returns the client's next response, or its initial one if that is unused.
func (x *exchange) ask(challenge string) []byte {
	if x.hasInitial {
		x.hasInitial = false
		return x.initial
	}
	s := x.session
	if !x.ok || s.send("334 "+base64.StdEncoding.EncodeToString([]byte(challenge)), "\r\n") == "" {
		x.ok = false
		return nil
	}
	line, ok := s.readLine()
	if !ok {
		x.ok = false
		return nil
	}
	response, _ := base64.StdEncoding.DecodeString(line)
	return response
}

func (x *exchange) mechanism(c *Credential) {
	password := x.session.relay.opts.Password
	switch {
	case c.Mechanism == "PLAIN":
		parts := bytes.Split(x.ask(""), []byte{0})
		if len(parts) == 3 {
			c.Username, c.Secret = string(parts[1]), string(parts[2])
		}
		c.Accepted = c.Secret == password
	case c.Mechanism == "LOGIN":
		c.Username = string(x.ask("Username:"))
		c.Secret = string(x.ask("Password:"))
		c.Accepted = c.Secret == password
	case c.Mechanism == "CRAM-MD5":
		x.cramMD5(c, password)
	case c.Mechanism == "XOAUTH2":
		x.bearer(c, password)
	case c.Mechanism == "OAUTHBEARER":
		x.bearer(c, password)
		if !c.Accepted && x.ok && x.answer != "\x01" {
			x.ok = false // RFC 7628 §3.2.3
		}
	case strings.HasPrefix(c.Mechanism, "SCRAM-SHA-256"):
		x.scram(c, sha256.New, password)
	case strings.HasPrefix(c.Mechanism, "SCRAM-SHA-1"):
		x.scram(c, sha1.New, password)
	}
}

func (x *exchange) cramMD5(c *Credential, password string) {
	const challenge = "<1896.697170952@relay.test>"
	user, digest, _ := strings.Cut(string(x.ask(challenge)), " ")
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(challenge))
	c.Username, c.Secret = user, digest
	c.Accepted = digest == fmt.Sprintf("%x", mac.Sum(nil))
}

// bearer is XOAUTH2 and OAUTHBEARER, which differ in the field of the user.
func (x *exchange) bearer(c *Credential, password string) {
	fields := strings.Split(string(x.ask("")), "\x01")
	if name, ok := strings.CutPrefix(fields[0], "n,a="); ok {
		name = strings.TrimSuffix(name, ",")
		c.Username = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	} else {
		c.Username = strings.TrimPrefix(fields[0], "user=")
	}
	for _, field := range fields {
		if token, ok := strings.CutPrefix(field, "auth=Bearer "); ok {
			c.Secret = token
		}
	}
	c.Accepted = c.Secret == password
	if accepts := x.session.relay.opts.Token; accepts != nil {
		c.Accepted = accepts(c.Username, c.Secret)
	}
	if !c.Accepted {
		x.answer = string(x.ask(`{"status":"401","schemes":"bearer","scope":"https://mail.test/"}`))
	}
}

// scram is RFC 5802 with the channel binding of RFC 9266.
func (x *exchange) scram(c *Credential, h func() hash.Hash, password string) {
	first := string(x.ask(""))
	gs2, bare := first, ""
	if at := strings.Index(first, ",,"); at >= 0 {
		gs2, bare = first[:at+2], first[at+2:]
	}
	user, nonce, _ := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	iterations := x.session.relay.opts.SCRAMIterations
	if iterations == 0 {
		iterations = 4096
	}
	salt := []byte("salt of the relay")
	serverFirst := fmt.Sprintf("r=%sserver,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString(salt), iterations)
	final := string(x.ask(serverFirst))
	without, proof, _ := strings.Cut(final, ",p=")
	if !x.ok || iterations > 100_000 {
		return
	}
	mac := func(key []byte, text string) []byte {
		m := hmac.New(h, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return
	}
	authMessage := bare + "," + serverFirst + "," + without
	stored := h()
	stored.Write(mac(salted, "Client Key"))
	signature := mac(stored.Sum(nil), authMessage)
	want := mac(salted, "Client Key")
	for i := range want {
		want[i] ^= signature[i]
	}
	binding := base64.StdEncoding.EncodeToString(append([]byte(gs2), x.channelBinding(gs2)...))
	c.Username, c.Secret = user, proof
	c.Accepted = proof == base64.StdEncoding.EncodeToString(want) &&
		strings.HasPrefix(without, "c="+binding+",r="+nonce+"server")
	if c.Accepted && !x.session.relay.opts.SCRAMUnproved {
		x.ask("v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), authMessage)))
	}
}

func (x *exchange) channelBinding(gs2 string) []byte {
	switch {
	case x.session.tls == nil:
		return nil
	case strings.HasPrefix(gs2, "p=tls-exporter"):
		material, _ := x.session.tls.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		return material
	case strings.HasPrefix(gs2, "p=tls-unique"):
		return x.session.tls.TLSUnique
	default:
		return nil
	}
}

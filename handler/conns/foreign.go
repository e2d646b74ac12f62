package conns

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// foreign is what a client speaks in place of what the port takes.
type foreign struct {
	speaks string // in the log
	status string // of the answer: code and reason
	text   string
	do     string // in the log
}

// nothing is what a browser speaks that opens a connection in reserve, too.
const nothing = "nothing"

const (
	useSendmail = `an app that can only send by SMTP uses the sendmail command: see "Your app changes this little" in mailsidecar's README`
	useHTTP     = "use http:// in the client's URL, or the port of MAILSIDECAR_TLS_ADDR"
	useHTTPS    = "use https:// in the client's URL, or the port of MAILSIDECAR_ADDR"
)

// The reason is the only text that many SMTP clients show: they take the first line for
// the greeting. 421 is for a request with another scheme than the server's (RFC 9110
// §15.5.20), and unlike 400 no reason for a client to give a message up.
var (
	smtpToHTTP = &foreign{
		speaks: "SMTP", status: "408 This port speaks HTTP, not SMTP: " + useSendmail,
		text: "This port of mailsidecar takes mail over HTTP, not over SMTP; " + useSendmail + ".", do: useSendmail,
	}
	smtpToHTTPS = &foreign{
		speaks: "SMTP", status: "408 This port speaks HTTPS, not SMTP: " + useSendmail,
		text: "This port of mailsidecar takes mail over HTTPS, not over SMTP; " + useSendmail + ".", do: useSendmail,
	}
	silentToHTTP = &foreign{
		speaks: nothing, status: "408 No request came. This port speaks HTTP, not SMTP: " + useSendmail,
		text: "No request came. An SMTP client waits for a greeting, and this port of mailsidecar takes mail over HTTP; " + useSendmail + ".",
		do:   "if it is an app that waits for a greeting of SMTP: " + useSendmail,
	}
	silentToHTTPS = &foreign{
		speaks: nothing, status: "408 No request came. This port speaks HTTPS, not SMTP: " + useSendmail,
		text: "No TLS handshake came. An SMTP client waits for a greeting, and this port of mailsidecar takes mail over HTTPS; " + useSendmail + ".",
		do:   "if it is an app that waits for a greeting of SMTP: " + useSendmail,
	}
	tlsToHTTP = &foreign{
		speaks: "TLS", status: "421 This port speaks HTTP, not HTTPS",
		text: "Client sent a TLS handshake to an HTTP server: " + useHTTP + ".", do: useHTTP,
	}
	httpToHTTPS = &foreign{
		speaks: "HTTP without TLS", status: "421 This port speaks HTTPS, not HTTP",
		text: "Client sent an HTTP request to an HTTPS server: " + useHTTPS + ".", do: useHTTPS,
	}
	// slowHeader is no foreign client: it was slow.
	slowHeader = &foreign{status: "408 Request Timeout", text: "The header of the request did not come to its end in time."}
	// largeHeader is answered as net/http does.
	largeHeader = &foreign{status: "431 Request Header Fields Too Large", text: "431 Request Header Fields Too Large"}
)

// answer is what is sent to the client.
func (f *foreign) answer() string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nMailsidecar: 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		f.status, len(f.text)+1, f.text)
}

// send writes the answer, and does not wait long for that.
func (f *foreign) send(w io.Writer, limit func(time.Time) error) {
	_ = limit(time.Now().Add(time.Second))
	_, _ = io.WriteString(w, f.answer())
}

// smtpVerbs are the commands with which an SMTP client may begin (RFC 5321 §4.1.1, LMTP,
// STARTTLS, AUTH and Postfix's XCLIENT). No method of HTTP has such a name.
var smtpVerbs = []string{"EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "AUTH", "STARTTLS", "XCLIENT"}

const longestVerb = len("STARTTLS")

// tlsHandshake is the first octet of a ClientHello (RFC 8446 §5.1).
const tlsHandshake = 0x16

// opening has the first octets of a connection until they tell what the client speaks.
type opening struct {
	octets [longestVerb + 1]byte
	n      int // of them came
	known  bool
}

// add takes in octets, and returns what the client speaks if that is not HTTP.
func (o *opening) add(p []byte) *foreign {
	if o.known || len(p) == 0 {
		return nil
	}
	o.n += copy(o.octets[o.n:], p)
	verb, ended := firstWord(o.octets[:o.n])
	speaksTLS := o.octets[0] == tlsHandshake
	o.known = ended || speaksTLS || o.n == len(o.octets)
	switch {
	case speaksTLS:
		return tlsToHTTP
	case ended && slices.Contains(smtpVerbs, verb):
		return smtpToHTTP
	}
	return nil
}

// firstWord is what is before the first blank or line end, in capitals. It reports whether
// there is one.
func firstWord(p []byte) (string, bool) {
	i := bytes.IndexAny(p, " \r\n")
	if i < 0 {
		return "", false
	}
	return strings.ToUpper(string(p[:i])), true
}

// speaksInClear is what a client speaks that begins so where a TLS record should; nil when
// that is not known.
func speaksInClear(header [5]byte) *foreign {
	text := strings.ToUpper(string(header[:]))
	switch text {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return httpToHTTPS
	}
	for _, verb := range smtpVerbs {
		if len(verb) >= len(text) && strings.HasPrefix(verb, text) || verb == strings.TrimRight(text, " \r\n") {
			return smtpToHTTPS
		}
	}
	return nil
}

// tally counts what is logged once a minute.
type tally struct {
	count int
	last  time.Time
}

// note logs, once a minute for each kind, that a client does not speak what the port takes.
func (s *Set) note(f *foreign, remote string) {
	if f.speaks == "" {
		return
	}
	s.mu.Lock()
	t := s.foreign[f]
	t.count++
	now := time.Now()
	due := now.Sub(t.last) >= time.Minute
	count := t.count
	if due {
		t = tally{last: now}
	}
	s.foreign[f] = t
	s.mu.Unlock()
	switch {
	case !due:
	case f.speaks == nothing:
		s.log.Info("no request came over a connection", "remote", remote, "times", count, "do", f.do)
	default:
		s.log.Warn("a client does not speak what this port takes", "speaks", f.speaks, "remote", remote, "times", count, "do", f.do)
	}
}

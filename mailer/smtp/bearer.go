package smtp

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/relays"

	"github.com/wneessen/go-mail/smtp"
)

const (
	// maxTokenError limits the JSON with which a relay says why it refuses a token, in
	// octets. Those that are known take under 200.
	maxTokenError = 4 << 10
	// maxTokenErrorText limits each word of it that is shown, in octets.
	maxTokenErrorText = 200
)

// bearer is the client of the mechanisms that log in with an OAuth2 token: XOAUTH2 and
// OAUTHBEARER (RFC 7628). Its one message has all. A challenge is an error, as JSON;
// the relay refuses the login once that is answered.
type bearer struct {
	mechanism string
	first     string
	failed    bool
	challenge []byte // the first one, which may be empty
}

var _ smtp.Auth = (*bearer)(nil)

// bearerMessage returns the message of the mechanism. Each of its fields ends with
// \x01, and so does the whole.
func bearerMessage(mechanism, user, token, host string, port int) string {
	if mechanism == "XOAUTH2" {
		return "user=" + user + "\x01auth=Bearer " + token + "\x01\x01"
	}
	// gs2-header, in which the user is a saslname (RFC 7628 §3.1, RFC 5801 §4).
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user)
	return "n,a=" + name + ",\x01host=" + host + "\x01port=" + strconv.Itoa(port) + "\x01auth=Bearer " + token + "\x01\x01"
}

func (b *bearer) Start(*smtp.ServerInfo) (string, []byte, error) {
	if strings.Count(b.first, "\x01") != strings.Count(bearerMessage(b.mechanism, "", "", "", 0), "\x01") {
		return "", nil, errors.New("the user name holds a control character")
	}
	return b.mechanism, []byte(b.first), nil
}

// Next answers an error: with nothing in XOAUTH2, with \x01 in OAUTHBEARER (RFC 7628
// §3.2.3).
func (b *bearer) Next(challenge []byte, more bool) ([]byte, error) {
	switch {
	case !more && b.failed:
		return nil, errors.New("the relay accepted a token after an error")
	case !more:
		return nil, nil
	case !b.failed:
		b.failed, b.challenge = true, challenge
	}
	if b.mechanism == "XOAUTH2" {
		return nil, nil
	}
	return []byte{1}, nil
}

// readTokenError reads what the relay says of a token. Text that is no such JSON says
// nothing.
func (x *authExchange) readTokenError(challenge []byte) *relays.TokenError {
	var said struct {
		Status  any    `json:"status"` // a text, but for some a number
		Schemes string `json:"schemes"`
		Scope   string `json:"scope"`
	}
	if len(challenge) > maxTokenError || json.Unmarshal(challenge, &said) != nil {
		return &relays.TokenError{}
	}
	status, _ := said.Status.(string)
	if number, ok := said.Status.(float64); ok {
		status = strconv.FormatFloat(number, 'f', -1, 64)
	}
	shown := func(s string) string { return mailer.Printable(x.redact(strings.TrimSpace(s)), maxTokenErrorText) }
	return &relays.TokenError{Status: shown(status), Schemes: shown(said.Schemes), Scope: shown(said.Scope)}
}

// notInToken reports whether no access token holds the character (RFC 6750 §2.1 is
// stricter): it would end the field or the line.
func notInToken(r rune) bool { return r <= ' ' || r > '~' }

package mailer

import (
	"net/url"
	"strings"
)

const (
	// leastSecret is the length from which a secret is looked for at all, in octets:
	// shorter ones would be found in any text.
	leastSecret = 4
	// leastPiece is that of a piece of a secret.
	leastPiece = 16
)

// Redact takes our secrets out of the words of others, who may repeat what they refuse:
// as it was sent, in the form of a URL's query, cut off, or broken into lines. A piece
// of a secret is found from 16 octets on.
func Redact(text string, secrets []string) string {
	hidden := make([]bool, len(text))
	for _, secret := range secrets {
		if len(secret) < leastSecret {
			continue
		}
		hide(hidden, text, secret)
		if escaped := url.QueryEscape(secret); escaped != secret {
			hide(hidden, text, escaped)
		}
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			b.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			b.WriteString("[redacted]")
		}
	}
	return b.String()
}

// hide marks where text holds the secret, or a piece of it.
func hide(hidden []bool, text, secret string) {
	size := min(len(secret), leastPiece)
	pieces := make(map[string]bool, len(secret)-size+1)
	for i := range len(secret) - size + 1 {
		pieces[secret[i:i+size]] = true
	}
	for i := range len(text) - size + 1 {
		if pieces[text[i:i+size]] {
			for n := range size {
				hidden[i+n] = true
			}
		}
	}
}

package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Pins are keys of relays: the SHA-256 of a public key (RFC 7469 §2.4), in base64 with
// sha256/ before it, with two slashes as curl has it, or in hexadecimal digits.
type Pins [][sha256.Size]byte

var _ envconfig.Decoder = (*Pins)(nil)

const pinRemedy = "write sha256/ and 44 characters of base64, or 64 hexadecimal digits; mailsidecar check --json shows the pin of a relay"

// Decode reads pins that are separated by commas, or semicolons as curl has them.
func (p *Pins) Decode(value string) error {
	*p = nil
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ';' }) {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		octets, what := decodePin(part)
		if what == "" && len(octets) != sha256.Size {
			what = "has not the length of a SHA-256"
		}
		if what != "" {
			return &invalid{"has an entry that " + what, pinRemedy}
		}
		*p = append(*p, [sha256.Size]byte(octets))
	}
	return requireListed(len(*p), value)
}

// decodePin returns the octets of a pin, or what is wrong with it. The length is not
// judged. Base64 may begin with a slash, too.
func decodePin(text string) (_ []byte, what string) {
	encoded, isBase64 := strings.CutPrefix(text, "sha256/")
	if !isBase64 {
		octets, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(text, "sha256:"), ":", ""))
		if err != nil {
			return nil, "is neither sha256/BASE64 nor hexadecimal"
		}
		return octets, ""
	}
	if len(encoded) > base64.StdEncoding.EncodedLen(sha256.Size) {
		encoded = strings.TrimPrefix(encoded, "/")
	}
	octets, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, "is no base64"
	}
	return octets, ""
}

func (p Pins) String() string {
	texts := make([]string, len(p))
	for i, pin := range p {
		texts[i] = "sha256/" + base64.StdEncoding.EncodeToString(pin[:])
	}
	return strings.Join(texts, ",")
}

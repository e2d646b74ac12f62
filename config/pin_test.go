package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"mailsidecar/credentials/credentialstest"
)

// TestPins: a pin may be written as curl, RFC 7469 and openssl write it.
func TestPins(t *testing.T) {
	const hexadecimal = "fbff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e"
	for text, want := range map[string]string{
		"sha256/+/8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=":  hexadecimal,
		"sha256//+/8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=": hexadecimal,
		"sha256//v8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=":  "fe" + hexadecimal[2:],
		hexadecimal:                   hexadecimal,
		strings.ToUpper(hexadecimal):  hexadecimal,
		"sha256:FF" + hexadecimal[2:]: "ff" + hexadecimal[2:],
	} {
		var pins, again Pins
		if err := pins.Decode(" " + text + " ,;" + hexadecimal); err != nil || len(pins) != 2 {
			t.Errorf("Decode(%q) = %v, %v", text, pins, err)
			continue
		}
		if err := again.Decode(pins.String()); err != nil || len(again) != 2 || again[0] != pins[0] {
			t.Errorf("Decode(%q) = %v, %v", pins, again, err)
		}
		var wanted Pins
		if err := wanted.Decode(want); err != nil || wanted[0] != pins[0] {
			t.Errorf("Decode(%q) = %v, want %v", text, pins, wanted)
		}
	}
}

// TestNothingListed: a list without an entry is no way to leave a restriction out.
func TestNothingListed(t *testing.T) {
	t.Setenv("SMTP_HOST", "relay.test")
	t.Setenv("SMTP_AUTH", "none")
	for _, name := range []string{"SMTP_TLS_PIN", "SMTP_SENDERS", "MAILSIDECAR_KEY_SENDERS", "MAILSIDECAR_KEY_RATES", "MAILSIDECAR_KEY_ROLES", "MAILSIDECAR_DKIM", "MAILSIDECAR_COMPAT"} {
		for _, value := range []string{",", " , , "} {
			t.Run(name+"="+value, func(t *testing.T) {
				t.Setenv("MAILSIDECAR_ADDR", "127.0.0.1:0")
				t.Setenv(name, value)
				if _, _, err := Load(); err == nil || !strings.Contains(err.Error(), name+" lists nothing") {
					t.Errorf("Load() = %v, want that nothing is listed", err)
				}
			})
		}
	}
}

// TestClientCertificate: what the files of our certificate lack is said at the start.
func TestClientCertificate(t *testing.T) {
	f := credentialstest.New(t)
	for _, tt := range []struct{ cert, key, want string }{
		{f.Certificate, f.Key, ""},
		{f.CertificateAndKey, "", ""},
		{f.OtherCertificate, "", "SMTP_TLS_CERT_FILE names " + f.OtherCertificate + ", which cannot be used: its key does not belong to the certificate, or one of the two is damaged"},
		{f.Certificate, f.EllipticCertificate, "SMTP_TLS_KEY_FILE names " + f.EllipticCertificate + ", which cannot be used: its key does not belong to the certificate, or one of the two is damaged"},
		{f.Certificate, "", "SMTP_TLS_CERT_FILE names " + f.Certificate + ", which cannot be used: it holds no private key in PEM form"},
		{f.Certificate, f.LockedKey, "SMTP_TLS_KEY_FILE names " + f.LockedKey + ", which cannot be used: its key has a passphrase"},
		{f.Certificate, "/nowhere.pem", "SMTP_TLS_KEY_FILE names /nowhere.pem, which cannot be used: "},
		{"/nowhere.pem", f.Key, "SMTP_TLS_CERT_FILE names /nowhere.pem, which cannot be used: "},
		{f.Key, f.Key, "SMTP_TLS_CERT_FILE names " + f.Key + ", which cannot be used: it holds no certificate"},
	} {
		t.Setenv("SMTP_HOST", "relay.test")
		t.Setenv("SMTP_AUTH", "none")
		t.Setenv("SMTP_TLS_CERT_FILE", tt.cert)
		t.Setenv("SMTP_TLS_KEY_FILE", tt.key)
		_, _, err := LoadRelays()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(strings.ReplaceAll(err.Error(), `"`, ""), tt.want) {
			t.Errorf("with %s and %s: %v, want %q", tt.cert, tt.key, err, tt.want)
		}
	}
}

// FuzzPins: what is taken for a pin is written as one, and is read back as the same keys. No
// value that names something is read as no pin at all.
func FuzzPins(f *testing.F) {
	f.Add("sha256/+/8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4=")
	f.Fuzz(func(t *testing.T, text string) {
		var pins, again Pins
		if err := pins.Decode(text); err != nil {
			if bad, ok := errors.AsType[*invalid](err); !ok || bad.remedy == "" {
				t.Errorf("Decode(%q) = %v, which does not say what to write", text, err)
			}
			return
		}
		if len(pins) == 0 && strings.TrimSpace(text) != "" {
			t.Errorf("Decode(%q) names no pin", text)
		}
		if err := again.Decode(pins.String()); err != nil || !slices.Equal(again, pins) {
			t.Errorf("Decode(%q) = %s, which is read as %s, %v", text, pins, again, err)
		}
		for _, entry := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' }) {
			if entry = strings.TrimSpace(entry); entry != "" && !slices.ContainsFunc(pins, func(pin [sha256.Size]byte) bool { return writes(entry, pin) }) {
				t.Errorf("Decode(%q) = %s, none of which is %q", text, pins, entry)
			}
		}
	})
}

// writes reports whether the text writes the pin in one of the forms that are taken.
func writes(text string, pin [sha256.Size]byte) bool {
	encoded := "sha256/" + base64.StdEncoding.EncodeToString(pin[:])
	digits := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(text, "sha256:"), ":", ""))
	text = strings.NewReplacer("\r", "", "\n", "").Replace(text) // base64 may be folded
	return text == encoded || text == strings.Replace(encoded, "/", "//", 1) || digits == hex.EncodeToString(pin[:])
}

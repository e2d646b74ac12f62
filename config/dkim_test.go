package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer/dkim/dkimtest"
)

// keyFile writes a key that its owner alone may read.
func keyFile(t *testing.T, name string, key []byte) string {
	t.Helper()
	path := write(t, name, string(key))
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDKIM(t *testing.T) {
	rsa, ed := keyFile(t, "rsa.pem", dkimtest.RSA(t)), keyFile(t, "ed.pem", dkimtest.Ed25519(t))
	c, warnings := mustLoad(t, good.with("MAILSIDECAR_DKIM=example.com:s1:"+rsa+", Example.com:s2:"+ed+",example.org:s1:"+ed))
	var names []string
	for _, e := range c.Service.DKIMKeys {
		names = append(names, e.Name()+" "+e.Key.Algorithm())
	}
	if want := []string{"s1._domainkey.example.com rsa-sha256", "s2._domainkey.example.com ed25519-sha256", "s1._domainkey.example.org ed25519-sha256"}; !slices.Equal(names, want) || len(warnings) > 0 {
		t.Errorf("the keys are %q, warnings %q, want %q", names, warnings, want)
	}
	if got, want := c.Service.DKIM.String(), "example.com:s1:"+rsa+",Example.com:s2:"+ed+",example.org:s1:"+ed; got != want {
		t.Errorf("it prints as %s, want %s", got, want)
	}
	seed := strings.TrimSpace(strings.Repeat("7 ", 32))
	if printed := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(printed, seed) || strings.Contains(printed, strings.Repeat("0x7, ", 8)) {
		t.Error("a key was printed")
	}
}

func TestDKIMProblems(t *testing.T) {
	rsa, ed := keyFile(t, "rsa.pem", dkimtest.RSA(t)), keyFile(t, "ed.pem", dkimtest.Ed25519(t))
	cert, none := write(t, "cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), write(t, "none.pem", "hunter2")
	setenv(t, good.with("MAILSIDECAR_DKIM=example.com:s1:"+rsa+",example.com:s1:"+ed+",example.org:s1:"+cert+",example.org:s1:"+none+",example.org:s1:hunter2,hunter2,example.net:s1", "SMTP_HOST="))
	_, _, err := Load()
	want := `configuration: 7 problems:
SMTP_HOST is not set; set it to the relay's host name, or set SMTP_PROVIDER
MAILSIDECAR_DKIM (entry 2) has the domain and the selector of another entry; give each key a selector of its own
MAILSIDECAR_DKIM (entry 3) names ` + cert + `, which cannot be used: it holds a certificate, and no private key; name the file with the private key
MAILSIDECAR_DKIM (entry 4) names ` + none + `, which cannot be used: it holds no key in PEM form; make a key with mailsidecar dkim new
MAILSIDECAR_DKIM (entry 5) names a file (not shown: it is no absolute path, and may be the secret itself), which cannot be used: no such file or directory; name a file that the server can read: make a key with mailsidecar dkim new
MAILSIDECAR_DKIM (entry 6) has no selector: that is of letters, digits and hyphens, with dots between them; write domain:selector:FILE, such as example.com:s202611:/etc/mailsidecar/example.com.s202611.pem
MAILSIDECAR_DKIM (entry 7) names no file; write domain:selector:FILE, such as example.com:s202611:/etc/mailsidecar/example.com.s202611.pem`
	if err == nil || err.Error() != want {
		t.Errorf("Load() = %v\nwant %s", err, want)
	}
	if text := (DKIM{"hunter2", "example.org:s1:hunter2", "hunter2:hunter2:/x"}).String(); strings.Count(text, "hunter2") > 2 {
		t.Errorf("it prints as %s", text)
	}
}

func TestDKIMLimits(t *testing.T) {
	ed := keyFile(t, "ed.pem", dkimtest.Ed25519(t))
	var same, many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("d%d.example:s:%s", i, ed))
	}
	for i := range 5 {
		same = append(same, fmt.Sprintf("example.com:s%d:%s", i, ed))
	}
	for value, want := range map[string]string{
		strings.Join(many, ","): "MAILSIDECAR_DKIM has 101 entries; set 100 at most",
		strings.Join(same, ","): "MAILSIDECAR_DKIM (entry 5) is one more than 4 of the same domain; take out the keys that are not used any more",
	} {
		setenv(t, good.with("MAILSIDECAR_DKIM="+value))
		if _, _, err := Load(); err == nil || err.Error() != "configuration: "+want {
			t.Errorf("Load() = %v, want %s", err, want)
		}
	}
	if c, _ := mustLoad(t, good.with("MAILSIDECAR_DKIM="+strings.Join(many[:100], ","))); len(c.Service.DKIMKeys) != 100 {
		t.Errorf("there are %d keys", len(c.Service.DKIMKeys))
	}
}

func TestDKIMWarnings(t *testing.T) {
	open, weak := write(t, "open.pem", string(dkimtest.Ed25519(t))), keyFile(t, "weak.pem", dkimtest.WeakRSA(t))
	if err := os.Chmod(open, 0o644); err != nil { // that is what is warned of
		t.Fatal(err)
	}
	_, warnings := mustLoad(t, good.with("MAILSIDECAR_DKIM=example.com:s1:"+open+",example.com:s2:"+weak))
	want := []string{
		"MAILSIDECAR_DKIM: every user of this machine may read the key of s1._domainkey.example.com: chmod 600 " + open,
		"MAILSIDECAR_DKIM: the RSA key of s2._domainkey.example.com has 1024 bits, and should have 2048: make a new one with mailsidecar dkim new",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings = %q, want %q", warnings, want)
	}
}

// TestDKIMUnsigned: a sender of the settings that no key signs for is told at the start and
// by a check, and nothing where one does.
func TestDKIMUnsigned(t *testing.T) {
	key := keyFile(t, "ed.pem", dkimtest.Ed25519(t))
	for _, tt := range []struct{ settings, want string }{
		{"MAILSIDECAR_FROM=shop@example.org", "MAILSIDECAR_FROM is shop@example.org, and MAILSIDECAR_DKIM has no key of that domain"},
		{"MAILSIDECAR_FROM=shop@example.com", ""},
		{"MAILSIDECAR_FROM=Shop<shop@News.Example.com>", ""},
		{"MAILSIDECAR_FROM=shop@example.org MAILSIDECAR_FORCE_FROM=shop@example.com", ""},
		{"MAILSIDECAR_FROM=shop@example.com MAILSIDECAR_FORCE_FROM=shop@example.org", "MAILSIDECAR_FORCE_FROM is shop@example.org"},
		{"SMTP_FORCE_FROM=shop@example.org MAILSIDECAR_FROM=shop@example.com", "SMTP_FORCE_FROM is shop@example.org"},
		{"SMTP_FORCE_FROM=shop@example.com MAILSIDECAR_FROM=shop@example.org", ""},
		{"", ""},
	} {
		t.Run(tt.settings, func(t *testing.T) {
			setenv(t, good.with(append(strings.Fields(tt.settings), "MAILSIDECAR_DKIM=example.com:s1:"+key)...))
			_, atStart, err := Load()
			_, atCheck, err2 := LoadCheck()
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			for _, warnings := range [][]string{atStart, atCheck} {
				warnings = slices.DeleteFunc(warnings, func(w string) bool { return !strings.Contains(w, "no key of that domain") })
				if got := strings.Join(warnings, "\n"); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
					t.Errorf("warnings are %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// TestLoadCheck: a check is told what is wrong with the keys that sign, and nothing of the
// settings that only the server needs.
func TestLoadCheck(t *testing.T) {
	setenv(t, good.with("MAILSIDECAR_DKIM=example.com:/x", "MAILSIDECAR_API_KEYS=", "MAILSIDECAR_LOG_LEVEL=loud"))
	_, _, err := LoadCheck()
	if want := "configuration: MAILSIDECAR_DKIM (entry 1) has no selector"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("LoadCheck() = %v, want %s", err, want)
	}
}

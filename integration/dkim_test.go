package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// python is Debian's, which has Debian's packages.
const python = "/usr/bin/python3"

// dkimFile is a finished message of TestDKIM, without From and To.
func dkimFile(text string) []byte {
	return []byte("From: Jürgen <shop@example.com>\nTo: ana@example.org\n" + strings.TrimPrefix(text, "\n"))
}

// dkimMessages are what signatures may stumble over.
func dkimMessages() map[string][]byte {
	return map[string][]byte{
		"8-bit":           dkimFile("Subject: Größe\n\nGrüße\n"),
		"empty body":      dkimFile("Subject: x\n\n"),
		"no body":         dkimFile("Subject: x\n"),
		"empty lines":     dkimFile("Subject: x\n\nHi\n\n \n\t\n\n"),
		"dots":            dkimFile("Subject: x\n\n.\n..\n.a\n\n.\n"),
		"blanks":          dkimFile("Subject:   a  b\t c  \n\nHi  there \t\n  x\t\n"),
		"folded":          dkimFile("Subject: a\n b\n\tc\nReferences:" + strings.Repeat("\n <0123456789@example.com>", 100) + "\n\nHi\n"),
		"long lines":      dkimFile("Subject: x\n\n" + strings.Repeat("0123456789 ", 300) + "\n"),
		"repeated fields": dkimFile("Subject: x\nX-A: 1\nX-A: 2\nList-Unsubscribe: <https://a.example>\nList-Unsubscribe: <https://b.example>\n\nHi\n"),
		"parts":           dkimFile("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\npreamble ü\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße \n--b\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\n\x00\x01\xff\n--b--\n"),
		"sealed":          dkimFile("MIME-Version: 1.0\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"\n\n--b\n\nHi\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n"),
		"international":   []byte("From: shop@example.com\nTo: ana@example.org\nCc: Jürgen <jürgen@example.org>\nSubject: Größe\n\nGrüße\n"),
		"subdomain":       []byte("From: a@news.example.com\nTo: ana@example.org\nSubject: x\n\nHi\n"),
	}
}

// TestDKIM: two programs of others, opendkim and dkimpy, find the signatures valid of what
// arrives at a relay: at the second attempt as at the first, with RSA and with Ed25519,
// and in the form that a relay without 8BITMIME and SMTPUTF8 gets.
func TestDKIM(t *testing.T) {
	t.Parallel()
	machine.Needs(t, "scripts/install-test-deps", "opendkim", python)
	if err := exec.Command(python, "-c", "import dkim, nacl").Run(); err != nil {
		machine.Lacks(t, python+" lacks dkim or nacl: run scripts/install-test-deps")
	}
	dir := machine.TempDir(t)
	setting, keys := newDKIMKeys(t, dir)
	for name, extensions := range map[string][]string{"all extensions": nil, "neither 8BITMIME nor SMTPUTF8": relaytest.Without("8BITMIME", "SMTPUTF8")} {
		t.Run(name, func(t *testing.T) {
			messages := dkimMessages()
			later := strings.Repeat("451 later then ", len(messages)+1) + "default"
			relay := relaytest.New(t, relaytest.Options{TLSExtensions: extensions}, relaytest.Script{".": later})
			s := serve(t, durable(t, relay).with(environment{"MAILSIDECAR_DKIM": setting}))
			var ids []string
			for name, message := range messages {
				a := s.post(t, "message/rfc822", message, http.Header{"Envelope-To": {"ana@example.org"}})
				if a.HTTPStatus != http.StatusAccepted {
					t.Fatalf("%s: %d %s", name, a.HTTPStatus, a.Body)
				}
				ids = append(ids, a.ID)
			}
			a := s.post(t, "application/json", []byte(`{"from":"Größe <shop@example.com>","to":"ana@example.org","bcc":"eve@example.net","subject":"Größe","text":"Grüße \n.\n\n","html":"<p>Grüße","attachments":[{"filename":"ü.bin","content":"AAECAw=="}]}`), nil)
			wantStatus(t, a, http.StatusAccepted)
			ids = append(ids, a.ID)
			machine.Await(t, "the first attempt at each message", func() bool { return len(relay.Messages()) >= len(ids) })
			for _, id := range ids {
				machine.Await(t, "the next attempt", func() bool {
					s.request(t, http.MethodPost, "/v1/messages/"+id+"/retry", nil, nil)
					return s.request(t, http.MethodGet, "/v1/messages/"+id, nil, nil).Status == "delivered"
				})
			}
			first := map[string][]byte{}
			for _, m := range relay.Messages() {
				id := messageIDOf(m.Data)
				if before := first[id]; before != nil && !bytes.Equal(before, m.Data) {
					t.Errorf("the second attempt has other octets:\n%s\n%s", before, m.Data)
				}
				first[id] = m.Data
			}
			if len(first) != len(ids) {
				t.Errorf("%d messages arrived, want %d", len(first), len(ids))
			}
			verifyDKIM(t, dir, keys, slices.Collect(maps.Values(first)))
		})
	}
}

// newDKIMKeys makes the keys of example.com in dir, and returns the setting, and a file with
// the records as opendkim reads it.
func newDKIMKeys(t *testing.T, dir string) (setting, keys string) {
	t.Helper()
	code, out := exitCode(t, command(t, environment{}, "dkim", "new", "example.com", "--selector", "s1", "--type", "both", "--out", dir, "--json"))
	var made struct {
		Records []struct{ Name, Value string }
		Setting string
	}
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		t.Fatalf("dkim new = %d, %v: %s", code, err, out)
	}
	var lines strings.Builder
	for _, r := range made.Records {
		fmt.Fprintf(&lines, "%s %s\n", r.Name, r.Value)
	}
	return made.Setting, writeFile(t, "keys", lines.String())
}

func messageIDOf(data []byte) string {
	_, rest, _ := bytes.Cut(data, []byte("\nMessage-ID: "))
	id, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(id)
}

// dkimpy verifies the signature of each file argv[2:] with the records in argv[1], and prints
// those which are valid.
const dkimpy = `
import dkim, sys
records = dict(line.rstrip('\n').split(' ', 1) for line in open(sys.argv[1]))
lookup = lambda name, timeout=5: records[name.decode().rstrip('.')].encode()
for path in sys.argv[2:]:
    try:
        if dkim.DKIM(open(path, 'rb').read()).verify(dnsfunc=lookup):
            print(path)
    except dkim.ValidationError:
        pass # such as another body
`

// verifyDKIM has both programs verify the two signatures of each message, and refuse
// messages that were changed.
func verifyDKIM(t *testing.T, dir, keys string, messages [][]byte) {
	t.Helper()
	var good, bad []string
	write := func(list *[]string, data []byte) {
		path := filepath.Join(dir, fmt.Sprintf("%d-%d.eml", len(good), len(bad)))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		*list = append(*list, path)
	}
	for _, data := range messages {
		each := eachSignature(data)
		if len(each) != 2 {
			t.Errorf("there are %d signatures in\n%s", len(each), data)
		}
		for _, one := range each {
			write(&good, one)
			write(&bad, bytes.Replace(one, []byte("ana@example.org"), []byte("eve@example.org"), 1))
			write(&bad, append(bytes.Clone(one), "x\r\n"...))
		}
	}
	all := append(slices.Clone(good), bad...)
	for name, valid := range map[string]string{"dkimpy": runDKIMPy(t, keys, all), "opendkim": runOpenDKIM(t, keys, all)} {
		for i, path := range all {
			if got := strings.Contains(valid, path); got != (i < len(good)) {
				data, _ := os.ReadFile(path)
				t.Errorf("%s takes for valid %v\n%s", name, got, data)
			}
		}
	}
}

func runDKIMPy(t *testing.T, keys string, paths []string) string {
	t.Helper()
	out, err := exec.Command(python, append([]string{"-c", dkimpy, keys}, paths...)...).Output()
	if err != nil {
		t.Errorf("dkimpy: %v", err)
	}
	return string(out)
}

// runOpenDKIM returns what it says of the files whose signature is valid.
func runOpenDKIM(t *testing.T, keys string, paths []string) string {
	t.Helper()
	config := writeFile(t, "opendkim.conf", "Mode v\nSyslog no\nTestPublicKeys "+keys+"\n")
	var valid strings.Builder
	for _, path := range paths {
		out, _ := exec.Command("opendkim", "-x", config, "-t", path).CombinedOutput() // a status of its own where it is not valid
		if strings.Contains(string(out), "verification (s=s1") && strings.Contains(string(out), "succeeded") {
			fmt.Fprintln(&valid, path)
		}
	}
	return valid.String()
}

// eachSignature returns the message with each of its signatures alone: opendkim is content
// with one that is valid.
func eachSignature(data []byte) [][]byte {
	var fields, all [][]byte
	for bytes.HasPrefix(data, []byte("DKIM-Signature:")) {
		n := regexp.MustCompile(`\r\n[^ ]`).FindIndex(data)[0] + len("\r\n")
		fields, data = append(fields, data[:n]), data[n:]
	}
	for _, field := range fields {
		all = append(all, slices.Concat(field, data))
	}
	return all
}

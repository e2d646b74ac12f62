package sendmail

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBareCR: a CR without LF begins no field and adds no recipient, on the command line
// and in an SMTP session, and CR CR LF is one line end. The body's octets stay as they
// are, for only the server knows which parts are text.
func TestBareCR(t *testing.T) {
	const rest = "Date: x\r\nMessage-ID: <1@x>\r\n"
	for _, tt := range []struct{ name, header, want string }{
		{"subject", "Subject: hi\rBcc: eve@example.net\nFrom: a@x\nTo: ana@example.org\n", "Subject: hi Bcc: eve@example.net\r\nFrom: a@x\r\nTo: ana@example.org\r\n"},
		{"end of the field", "Subject: hi\r\r\nFrom: a@x\r\r\r\nTo: ana@example.org\n", "Subject: hi\r\nFrom: a@x\r\nTo: ana@example.org\r\n"},
		{"first of a line", "Subject: hi\n\rBcc: eve@example.net\nFrom: a@x\nTo: ana@example.org\n", "Subject: hi\r\n Bcc: eve@example.net\r\nFrom: a@x\r\nTo: ana@example.org\r\n"},
		{"name of an author", "From: Eve\rBcc: eve@example.net <a@x>\nTo: ana@example.org\n", ""},
		{"author", "From: a@x\rBcc: eve@example.net\nTo: ana@example.org\n", ""},
		{"folded", "Subject: hi\n there\r\rBcc: eve@example.net\nFrom: a@x\nTo: ana@example.org\n", "Subject: hi\r\n there  Bcc: eve@example.net\r\nFrom: a@x\r\nTo: ana@example.org\r\n"},
		{"everything with CR CR LF", "From: a@x\r\r\nTo: ana@example.org\r\r\n", "From: a@x\r\nTo: ana@example.org\r\n"},
		{"two empty lines", "From: a@x\nTo: ana@example.org\n\r\r\n\r\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			message := tt.header + strings.ReplaceAll(rest, "\r\n", "\r\r\n") + "\r\r\none\rtwo\r\r\nthree\r\n"
			check := func(mode string, got outcome, server *recordingServer) {
				t.Helper()
				if len(server.requests) == 0 && (got.status == exitRefused || strings.Contains(got.stdout, "\r\n554 ")) && tt.want == "" {
					return
				}
				request := server.only(t)
				if to := request.header.Get("Envelope-To"); to != "ana@example.org" {
					t.Errorf("%s: Envelope-To = %q, want Ana alone", mode, to)
				}
				if tt.want != "" && request.body != tt.want+rest+"\r\none\rtwo\r\r\nthree\r\n" {
					t.Errorf("%s: body = %q, want %q", mode, request.body, tt.want)
				}
			}
			server := newRecordingServer(t, acceptedAnswer)
			check("-t", runWith(t, message, "-t", "-i"), server)
			server = newRecordingServer(t, acceptedAnswer)
			check("-bs", runWith(t, "EHLO a\r\nMAIL FROM:<a@x.org>\r\nRCPT TO:<ana@example.org>\r\nDATA\r\n"+message+".\r\nQUIT\r\n", "-bs"), server)
		})
	}
}

// TestBareCRInRecipients: what a visitor puts behind a CR into a field with recipients
// reaches no one.
func TestBareCRInRecipients(t *testing.T) {
	for _, smuggled := range []string{
		"me@x.test\rBcc: eve@example.net", "me@x.test\rBcc: <eve@example.net>", "me@x.test\rBcc: eve@example.net, eve@example.net", "\rBcc: eve@example.net",
		"Me <me@x.test>\rBcc: Eve <eve@example.net>", "me@x.test\r\rBcc:eve@example.net", "me@x.test\rBcc : eve@example.net", "\"me\rBcc: eve@example.net",
		"me@x.test\rBcc:\r\n eve@example.net", "<me@x.test\rBcc: eve@example.net>", "me@x.test (\rBcc: eve@example.net)", "(\rBcc: eve@example.net)",
	} {
		for _, field := range []string{"To", "Cc", "Bcc", "Subject", "X-Name"} {
			server := newRecordingServer(t, acceptedAnswer)
			got := runWith(t, "From: a@x.test\n"+field+": "+smuggled+"\n\nx\n", "-t", "ana@example.org")
			if got.status != 0 {
				t.Fatalf("run = %+v, want status 0", got)
			}
			if to := server.only(t).header.Get("Envelope-To"); strings.Contains(to, "eve@") {
				t.Errorf("%s: %q reaches %q", field, smuggled, to)
			}
		}
	}
}

func TestOnlyBareCR(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, "From: a@x\rTo: ana@example.org\r\rHi.\r", "-t", "-i")
	if got.status != exitRefused || !strings.Contains(got.stderr, "its line ends are bare CR") || len(server.requests) > 0 {
		t.Errorf("run = %+v, want status 65 and the reason", got)
	}
}

// TestRepeatedFields: fields that may stand once do. Recipients are joined, of the
// others the first counts, and what is signed is passed on.
func TestRepeatedFields(t *testing.T) {
	const tail = "Date: x\r\nMessage-ID: <1@x>\r\n"
	for _, tt := range []struct{ in, want, to string }{
		{"To: a@x.test\nFrom: s@x.test\nTo: b@x.test\nCC: c@x.test\nCc: d@x.test\n" + tail, "To: a@x.test,\r\n b@x.test\r\nFrom: s@x.test\r\nCC: c@x.test,\r\n d@x.test\r\n" + tail, "a@x.test, b@x.test, c@x.test, d@x.test, "},
		{"To:\nFrom: s@x.test\nTo: b@x.test\nTo:\n" + tail, "To: b@x.test\r\nFrom: s@x.test\r\n" + tail, "b@x.test, "},
		{"From: s@x.test\nFrom: t@x.test\nSubject: one\nsubject: two\nContent-Type: text/html\nContent-Type: text/plain\n" + tail + tail + "Reply-To: a@x.test\nReply-To: b@x.test\nX-A: 1\nX-A: 2\n", "From: s@x.test\r\nSubject: one\r\nContent-Type: text/html\r\n" + tail + "Reply-To: a@x.test\r\nX-A: 1\r\nX-A: 2\r\n", ""},
		{"From: s@x.test\nTo: a@x.test\nTo: b@x.test\nDKIM-Signature: h=to\n" + tail, "From: s@x.test\r\nTo: a@x.test\r\nTo: b@x.test\r\nDKIM-Signature: h=to\r\n" + tail, "a@x.test, b@x.test, "},
		{"From: Shop, Ltd <s@x.test>\nTo: a@x.test\nTo: b@x.test\nContent-Type: multipart/signed; boundary=x\n" + tail, "From: Shop, Ltd <s@x.test>\r\nTo: a@x.test\r\nTo: b@x.test\r\nContent-Type: multipart/signed; boundary=x\r\n" + tail, "a@x.test, b@x.test, "},
	} {
		server := newRecordingServer(t, acceptedAnswer)
		if got := runWith(t, tt.in+"\nx\n", "-t", "ana@example.org"); got != (outcome{}) {
			t.Fatalf("run(%q) = %+v, want status 0 and silence", tt.in, got)
		}
		request := server.only(t)
		if request.body != tt.want+"\r\nx\n" {
			t.Errorf("%q became %q, want %q", tt.in, request.body, tt.want)
		}
		if to := request.header.Get("Envelope-To"); to != tt.to+"ana@example.org" {
			t.Errorf("%q goes to %q, want %q and Ana", tt.in, to, tt.to)
		}
	}
}

func TestSignedWithBareCR(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, "From: s@x.test\nSubject: a\rb\nDKIM-Signature: h=subject\n\nx\n", "ana@example.org")
	if got.status != exitRefused || !strings.Contains(got.stderr, "Subject") || len(server.requests) > 0 {
		t.Errorf("run = %+v, want status 65 and the field", got)
	}
}

// TestMessageID: a new Message-ID has the author's domain.
func TestMessageID(t *testing.T) {
	for from, want := range map[string]string{"Shop <info@my.test>": "@my.test>", "root": "@example.com>", "a@b.test, c@d.test": "@b.test>", "a@[192.0.2.1]": "@[192.0.2.1]>", "a@müller.test": "@example.com>"} {
		server := newRecordingServer(t, acceptedAnswer)
		runWith(t, "From: "+from+"\nDate: x\n\nx\n", "ana@example.org")
		if id := fieldValue(server.only(t).body, "Message-ID"); !strings.HasSuffix(id, want) {
			t.Errorf("Message-ID of a message from %q = %q, want one with %s", from, id, want)
		}
	}
}

// TestWrongRecipients: one address that cannot be one does not keep the message from the
// others, and is named.
func TestWrongRecipients(t *testing.T) {
	wrong := func(indexes ...int) string {
		var fields []string
		for _, i := range indexes {
			fields = append(fields, fmt.Sprintf(`{"field":"Envelope-To[%d]","message":"the domain is not valid"}`, i))
		}
		return `422 {"code":"invalid_message","title":"The message is not valid","errors":[` + strings.Join(fields, ",") + `]}`
	}
	const three = "To: a@x.test, b@-.test, c@x.test\nFrom: s@x.test\n\nx\n"
	for _, tt := range []struct {
		name    string
		answers []string
		stdin   string
		status  int
		to      []string // of each request
		stderr  []string // a part of each line
	}{
		{"one", []string{wrong(1), acceptedAnswer}, three, 0, []string{"a@x.test, b@-.test, c@x.test", "a@x.test, c@x.test"}, []string{`"b@-.test" is not a valid recipient address: the domain is not valid`}},
		{"two rounds", []string{wrong(1), wrong(0), acceptedAnswer}, three, 0, []string{"a@x.test, b@-.test, c@x.test", "a@x.test, c@x.test", "c@x.test"}, []string{"b@-.test", "a@x.test"}},
		{"all", []string{wrong(0, 1, 2)}, three, exitRefused, []string{"a@x.test, b@-.test, c@x.test"}, []string{"a@x.test"}},
		{"the only one", []string{`422 {"code":"invalid_message","errors":[{"field":"Envelope-To","message":"the domain is not valid"}]}`}, "To: b@-.test\nFrom: s@x.test\n\nx\n", exitRefused, []string{"b@-.test"}, []string{`"b@-.test" is not a valid recipient address: the domain is not valid`}},
		{"one of several by an older server", []string{`422 {"code":"invalid_message","title":"Not valid","errors":[{"field":"Envelope-To","message":"x"}]}`}, three, exitRefused, []string{"a@x.test, b@-.test, c@x.test"}, []string{"Not valid (HTTP 422)"}},
		{"again and again", []string{wrong(7)}, three, exitRefused, []string{"a@x.test, b@-.test, c@x.test"}, []string{"The message is not valid (HTTP 422)"}},
		{"another field, too", []string{`422 {"code":"invalid_message","title":"Not valid","errors":[{"field":"Envelope-To[0]","message":"x"},{"field":"from","message":"y"}]}`}, three, exitRefused, []string{"a@x.test, b@-.test, c@x.test"}, []string{"Not valid"}},
		{"found here", []string{acceptedAnswer}, "To: a@x.test, Ana at x, b\x01@x.test, b\xf6@x.test\nFrom: s@x.test\n\nx\n", 0, []string{"a@x.test"}, []string{`"Ana at x" is not a valid recipient address`, `"b @x.test" is not a valid`, "x.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, tt.answers...)
			got := runWith(t, tt.stdin, "-t")
			var to []string
			for _, r := range server.requests {
				to = append(to, r.header.Get("Envelope-To"))
			}
			if got.status != tt.status || !slices.Equal(to, tt.to) {
				t.Errorf("run = %+v with the envelopes %q, want status %d with %q", got, to, tt.status, tt.to)
			}
			lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
			if len(lines) != len(tt.stderr) {
				t.Fatalf("stderr = %q, want %d lines", got.stderr, len(tt.stderr))
			}
			for i, want := range tt.stderr {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d = %q, want %q", i, lines[i], want)
				}
			}
		})
	}
	t.Run("-bs", func(t *testing.T) {
		newRecordingServer(t, wrong(0), acceptedAnswer)
		got := runWith(t, "EHLO a\r\nMAIL FROM:<s@x.test>\r\nRCPT TO:<b@-.test>\r\nRCPT TO:<a@x.test>\r\nDATA\r\nFrom: s@x.test\r\n\r\nx\r\n.\r\nQUIT\r\n", "-bs")
		if !strings.Contains(got.stdout, "\r\n250 2.0.0 queued as 01J; refused: \"b@-.test\" is not a valid recipient address: the domain is not valid\r\n") {
			t.Errorf("run = %+v, want 250 and the refused recipient", got)
		}
	})
}

// TestSenderOfThisMachine: a sender that no relay can know is left out of the envelope,
// or becomes MAILSIDECAR_FROM.
func TestSenderOfThisMachine(t *testing.T) {
	for _, tt := range []struct{ from, sender, want string }{
		{"app@example.com", "root@web_1", "app@example.com"},
		{"", "root@web_1", ""},
		{"app@example.com", "Shop, Ltd. <s@x.test>", "s@x.test"},
		{"app@example.com", "s@x.test", "s@x.test"},
	} {
		server := newRecordingServer(t, acceptedAnswer)
		t.Setenv("MAILSIDECAR_FROM", tt.from)
		if got := runWith(t, "From: s@x.test\n\nx\n", "-f", tt.sender, "ana@example.org"); got != (outcome{}) {
			t.Fatalf("run = %+v, want status 0 and silence", got)
		}
		if got := server.only(t).header.Get("Envelope-From"); got != tt.want {
			t.Errorf("Envelope-From with -f %q = %q, want %q", tt.sender, got, tt.want)
		}
	}
	newRecordingServer(t, acceptedAnswer)
	t.Setenv("MAILSIDECAR_FROM", "")
	if got := runWith(t, "From: root@web_1\n\nx\n", "ana@example.org"); got.status != exitRefused || !strings.Contains(got.stderr, "MAILSIDECAR_FROM") {
		t.Errorf("run = %+v, want status 65 and the setting", got)
	}
}

// unreadableFile returns the path of a file that no one can read: a directory.
func unreadableFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sendmail.conf")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	old := configFile
	configFile = file
	t.Cleanup(func() { configFile = old })
	return file
}

// TestUnreadableSettings: a settings file that is there and cannot be read is named, with
// the reason, where it is missed.
func TestUnreadableSettings(t *testing.T) {
	newRecordingServer(t, `401 {"code":"unauthorized"}`)
	file := unreadableFile(t)
	if got := runWith(t, simpleMessage, "-t"); got.status != exitNoPerm || !strings.Contains(got.stderr, file) {
		t.Errorf("run with a wrong key = %+v, want status 77 and the file", got)
	}
	newRecordingServer(t, acceptedAnswer)
	if got := runWith(t, simpleMessage, "-t"); got != (outcome{}) {
		t.Errorf("run with all settings in the environment = %+v, want status 0 and silence", got)
	}
	t.Setenv("MAILSIDECAR_URL", "")
	if got := runWith(t, simpleMessage, "-t"); got.status != exitConfig || !strings.Contains(got.stderr, file) || !strings.Contains(got.stderr, "MAILSIDECAR_URL") {
		t.Errorf("run without an address = %+v, want status 78, the file and the variable", got)
	}
}

// TestSMTPNotConfigured: a program that speaks SMTP is told in SMTP.
func TestSMTPNotConfigured(t *testing.T) {
	for name, value := range map[string]string{"MAILSIDECAR_URL": "", "MAILSIDECAR_WAIT": "long", "MAILSIDECAR_FROM": "nobody here", "MAILSIDECAR_API_KEY": "a\nb"} {
		newRecordingServer(t, acceptedAnswer)
		t.Setenv(name, value)
		got := runWith(t, "EHLO a\r\n", "-bs")
		if got.status != exitConfig || !strings.HasPrefix(got.stdout, "421 4.3.5 ") || !strings.Contains(got.stdout, name) || strings.Count(got.stdout, "\r\n") != 1 || got.stderr != "" {
			t.Errorf("run with %s=%q = %+v, want 421, the variable and status 78", name, value, got)
		}
	}
}

// TestKey: the line end that echo and editors leave behind a key is not part of it; one
// inside is an error that names the setting, and not the key.
func TestKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for key, want := range map[string]string{"secret": "Bearer secret", " secret\r\n": "Bearer secret", "sec\nret": "", "secrét": "", "\n": ""} {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"MAILSIDECAR_API_KEY", "MAILSIDECAR_API_KEY_FILE"} {
			server := newRecordingServer(t, acceptedAnswer)
			t.Setenv("MAILSIDECAR_API_KEY", "")
			value := key
			if name == "MAILSIDECAR_API_KEY_FILE" {
				value = file
			}
			t.Setenv(name, value)
			got := runWith(t, simpleMessage, "-t")
			switch {
			case want != "":
				if got != (outcome{}) || server.only(t).header.Get("Authorization") != want {
					t.Errorf("run with %s %q = %+v, %q, want %q", name, key, got, server.requests, want)
				}
			case name == "MAILSIDECAR_API_KEY" && key == "\n": // counts as not set
			case got.status != exitConfig || !strings.Contains(got.stderr, name+": ") || strings.Contains(got.stderr, "ret"):
				t.Errorf("run with %s %q = %+v, want status 78, the setting and no key", name, key, got)
			}
		}
	}
}

// TestWait: MAILSIDECAR_WAIT is written as the server's own settings are.
func TestWait(t *testing.T) {
	for value, want := range map[string]int{"": 3, "0": 0, "0s": 0, "5": 5, "5s": 5, "1m": 60, "1500ms": 2, "200ms": 1, "2h": 60, "1d": 60, "1d12h": 60, "0d": 0, "0d5s": 5, "99999h": 60} {
		if got, err := waitSeconds(value); err != nil || got != want {
			t.Errorf("waitSeconds(%q) = %d, %v, want %d", value, got, err, want)
		}
	}
	for _, value := range []string{"long", "-1", "-1s", "1x", "d", "1dx", "99999999d", "5 s"} {
		if got, err := waitSeconds(value); err == nil {
			t.Errorf("waitSeconds(%q) = %d, want an error", value, got)
		}
	}
}

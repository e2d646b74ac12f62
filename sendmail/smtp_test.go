package sendmail

import (
	"bufio"
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

func nowForTest() time.Time { return time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC) }

func newReader(b []byte) *bufio.Reader { return bufio.NewReaderSize(bytes.NewReader(b), 16) }

const smtpMessage = "From: shop@example.com\r\nTo: ana@example.org\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nHi.\r\n"

// replies returns the replies of a session, one a line, without the first.
func replies(stdout string) []string {
	lines := strings.Split(strings.TrimSuffix(stdout, "\r\n"), "\r\n")
	return lines[1:]
}

func TestSMTP(t *testing.T) {
	const (
		rejected = `422 {"code":"rejected","detail":"No such user","reply_code":550,"enhanced_code":"5.1.1","stage":"rcpt","recipients":[{"email":"ana@example.org","state":"bounced","reply_code":550,"enhanced_code":"5.1.1","text":"No such user"}]}`
		open     = "EHLO app\r\nMAIL FROM:<b@example.com> BODY=8BITMIME SIZE=10\r\nRCPT TO:<ana@example.org>\r\n"
		opened   = `250-example.com 250-8BITMIME 250-ENHANCEDSTATUSCODES 250 SIZE 250 2.1.0 OK 250 2.1.5 OK `
	)
	for _, tt := range []struct {
		name    string
		answers []string
		input   string
		want    string // of the replies after the greeting, a regular expression
		posts   int
	}{
		{"one message", []string{acceptedAnswer}, open + "DATA\r\n" + smtpMessage + ".\r\nQUIT\r\n", opened + `354 .* 250 2.0.0 queued as 01J 221 2.0.0 Bye`, 1},
		{"two messages", []string{acceptedAnswer}, open + "DATA\r\n" + smtpMessage + ".\r\nMAIL FROM:<>\r\nRCPT TO: ana@example.org\r\ndata\r\n" + smtpMessage + ".\r\n", opened + `354 .* 250 2.0.0 queued as 01J 250 2.1.0 OK 250 2.1.5 OK 354 .* 250 2.0.0 queued as 01J`, 2},
		{"relay refuses", []string{rejected}, open + "DATA\r\n" + smtpMessage + ".\r\nQUIT\r\n", opened + `354 .* 550 5.1.1 <ana@example.org>: No such user \(HTTP 422\) 221 .*`, 1},
		{"wrong key", []string{`401 {"code":"unauthorized"}`}, open + "DATA\r\n" + smtpMessage + ".\r\n", opened + `354 .* 451 4.3.5 the API key is missing or wrong: set MAILSIDECAR_API_KEY .* \(HTTP 401\)`, 1},
		{"too large for the server", []string{`413 {"code":"message_too_large","detail":"The message is too large."}`}, open + "DATA\r\n" + smtpMessage + ".\r\n", opened + `354 .* 552 5.3.4 The message is too large. \(HTTP 413\)`, 1},
		{
			"out of order",
			[]string{acceptedAnswer},
			"MAIL FROM:<a@x>\r\nEHLO\r\nHELO app\r\nRCPT TO:<a@x>\r\nDATA\r\nMAIL TO:<a@x>\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\nDATA\r\nRCPT TO:<>\r\nRCPT TO:<a b@x>\r\nRSET\r\nRCPT TO:<a@x>\r\nNOOP\r\nVRFY a\r\nSTARTTLS\r\n",
			`503 .* 501 .* 250 example.com 503 .* 503 .* 501 .* 250 .* 503 .* 503 .* 501 .* 501 .* 250 .* 503 .* 250 .* 252 .* 500 .*`, 0,
		},
		{"a bare LF ends no message of a session with CRLF", []string{acceptedAnswer}, open + "DATA\r\n" + smtpMessage + "x\n.\nMAIL FROM:<evil@x>\n\r.\r\n.\r\n", opened + `354 .* 250 2.0.0 queued as 01J`, 1},
		{"bare LF throughout", []string{acceptedAnswer}, strings.ReplaceAll(open+"DATA\r\n"+smtpMessage+".\r\nQUIT\r\n", "\r\n", "\n"), opened + `354 .* 250 2.0.0 queued as 01J 221 .*`, 1},
		{
			"half an address, or one with a wrong character, is never completed",
			[]string{acceptedAnswer},
			"EHLO app\r\nMAIL FROM:<b@>\r\nMAIL FROM:<b@example.com>\r\nRCPT TO:<eve@>\r\nRCPT TO:<@x>\r\nRCPT TO:<eve@@>\r\nRCPT TO:<@>\r\nRCPT TO:<ana@example.org>\r\nDATA\r\n" + smtpMessage + ".\r\n",
			`250-example.com 250-8BITMIME 250-ENHANCEDSTATUSCODES 250 SIZE 501 5.1.7 The sender's address is not valid 250 2.1.0 OK 501 .* 501 .* 501 .* 501 .* 250 2.1.5 OK 354 .* 250 2.0.0 queued as 01J`, 1,
		},
		{"nothing", []string{acceptedAnswer}, "", ``, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, tt.answers...)
			got := runWith(t, tt.input, "-bs", "-i")
			if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "220 ") {
				t.Errorf("run = %+v, want status 0, silence on stderr and a greeting", got)
			}
			if all := strings.Join(replies(got.stdout), " "); !regexp.MustCompile(`^` + tt.want + `$`).MatchString(all) {
				t.Errorf("replies = %q, want %q", all, tt.want)
			}
			if len(server.requests) != tt.posts {
				t.Errorf("requests = %d, want %d", len(server.requests), tt.posts)
			}
			if tt.posts == 0 {
				return
			}
			if got := server.requests[0]; got.header.Get("Envelope-From") != "b@example.com" || got.header.Get("Envelope-To") != "ana@example.org" {
				t.Errorf("envelope = %q, want b@example.com to ana@example.org", got.header)
			}
		})
	}
}

func TestSMTPContent(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	long := strings.Repeat("x", 4095) // the line end lies across the end of the read buffer
	text := smtpMessage + "..\r\n..two\r\n" + long + "\r\n"
	runWith(t, "EHLO a\r\nMAIL FROM:<b@x.org>\r\nRCPT TO:<a@x.org>\r\nDATA\r\n"+text+".\r\nQUIT\r\n", "-bs")
	if got, want := server.only(t).body, smtpMessage+".\r\n.two\r\n"+long+"\r\n"; got != want {
		t.Errorf("body = %q, want %q", got, want)
	}
}

func TestSMTPBrokenOff(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, "EHLO a\r\nMAIL FROM:<b@x.org>\r\nRCPT TO:<a@x.org>\r\nDATA\r\n"+smtpMessage, "-bs")
	if got.status != 69 || !strings.Contains(got.stderr, "ended inside a message") || len(server.requests) != 0 {
		t.Errorf("run = %+v with %d requests, want status 69 and nothing sent", got, len(server.requests))
	}
}

func FuzzSMTP(f *testing.F) {
	f.Add([]byte("EHLO a\r\nMAIL FROM:<b@x>\r\nRCPT TO:<a@x>\r\nDATA\r\n" + smtpMessage + ".\r\nQUIT\r\n"))
	f.Add([]byte("helo a\nMAIL FROM: \nrcpt to:<\nRSET\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		// A client without a server: posting fails, which every session survives.
		client, err := api.New("http://127.0.0.1:0", "", "test", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		s := &sender{settings: settings{domain: "example.com"}, client: client, now: nowForTest}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out bytes.Buffer
		_ = s.serveSMTP(ctx, newReader(in), &out)
		for _, line := range strings.Split(strings.TrimSuffix(out.String(), "\r\n"), "\r\n") {
			if !regexp.MustCompile(`^[2-5][0-9][0-9][ -][^\r\n]*$`).MatchString(line) {
				t.Errorf("reply %q", line)
			}
		}
	})
}

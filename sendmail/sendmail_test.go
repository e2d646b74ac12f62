package sendmail

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mailsidecar/api"
)

// recordingServer answers every submission as it is told, and keeps them.
type recordingServer struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []string // "422 {...}", used in turn, the last again and again
	requests []recordedRequest
}

type recordedRequest struct {
	method, path string
	header       http.Header
	body         string
}

const acceptedAnswer = `202 {"id":"01J","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`

// newRecordingServer starts a server and points the settings at it.
func newRecordingServer(t *testing.T, answers ...string) *recordingServer {
	t.Helper()
	s := &recordingServer{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	for _, name := range []string{"MAILSIDECAR_API_KEY_FILE", "MAILSIDECAR_WAIT", "MAILSIDECAR_TLS_CA_FILE", "NAME"} {
		t.Setenv(name, "")
	}
	t.Setenv("MAILSIDECAR_URL", s.URL+"/")
	t.Setenv("MAILSIDECAR_API_KEY", "secret")
	t.Setenv("MAILSIDECAR_FROM", "app@example.com")
	return s
}

func (s *recordingServer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.answers[min(len(s.requests), len(s.answers)-1)]
	s.requests = append(s.requests, recordedRequest{r.Method, r.URL.RequestURI(), r.Header, string(body)})
	var status int
	var text string
	if _, err := fmt.Sscan(answer, &status); err != nil {
		panic(err)
	}
	_, text, _ = strings.Cut(answer, " ")
	if after, rest, ok := strings.Cut(text, "|"); ok {
		w.Header().Set("Retry-After", after)
		text = rest
	}
	w.Header().Set(api.HeaderOwn, "1")
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

// only returns the one request that was made.
func (s *recordingServer) only(t *testing.T) recordedRequest {
	t.Helper()
	if len(s.requests) != 1 {
		t.Fatalf("requests = %d, want 1", len(s.requests))
	}
	return s.requests[0]
}

// outcome is what one run of the command came to.
type outcome struct {
	status         int
	stdout, stderr string
}

func runWith(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	status := Program{In: strings.NewReader(stdin), Out: &out, Err: &errs, Version: "test"}.Run(t.Context(), args)
	return outcome{status, out.String(), errs.String()}
}

const simpleMessage = "To: ana@example.org\nSubject: Hello\nFrom: shop@example.com\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.com>\n\nHi.\n"

func TestPosts(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, simpleMessage, "-t", "-i", "-fbounce@example.com")
	if got != (outcome{}) {
		t.Fatalf("run = %+v, want status 0 and silence", got)
	}
	request := server.only(t)
	if request.method+" "+request.path != "POST /v1/messages" {
		t.Errorf("request = %s %s, want POST /v1/messages", request.method, request.path)
	}
	for name, want := range map[string]string{
		"Content-Type": "message/rfc822", "Authorization": "Bearer secret", "Envelope-From": "bounce@example.com",
		"Envelope-To": "ana@example.org", "Prefer": "wait=3",
	} {
		if got := request.header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got, want := withCRLF(request.body), withCRLF(simpleMessage); got != want {
		t.Errorf("body = %q, want %q", got, want)
	}
}

// withCRLF gives each line CRLF as its end, as the server does.
func withCRLF(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

// longAddress has more than 64 octets before the @, as VERP and SRS make them.
var longAddress = "bounce+" + strings.Repeat("x", 80) + "=example.org@example.com"

func TestEnvelope(t *testing.T) {
	const head = "From: shop@example.com\nDate: x\nMessage-ID: <1@x>\n"
	for _, tt := range []struct {
		name     string
		args     []string
		stdin    string
		from, to string
	}{
		{"arguments only", []string{"ana@example.org", "bo@example.org"}, head + "To: cy@example.org\n\nx\n", "", "ana@example.org, bo@example.org"},
		{
			"-t with folds, groups and Bcc",
			[]string{"-t"},
			head + "To: Ana <ana@example.org>,\n Team: bo@example.org;\nCc: \"Doe, John\" <cy@example.org>\nBcc: dee@example.org\n\nx\n", "",
			"ana@example.org, bo@example.org, cy@example.org, dee@example.org",
		},
		{"-t and arguments", []string{"-t", "--", "dee@example.org"}, head + "To: ana@example.org\n\nx\n", "", "ana@example.org, dee@example.org"},
		{"each recipient once", []string{"-ti", "ana@example.org"}, head + "To: ana@example.org, ana@example.org\n\nx\n", "", "ana@example.org"},
		{"Resent fields alone", []string{"-t"}, head + "To: ana@example.org\nResent-To: bo@example.org\n\nx\n", "", "bo@example.org"},
		{
			"dots, long local parts and IDN as arguments",
			[]string{"-f", "bounce..1@docomo.test", "a..b@docomo.test", ".a@docomo.test", "a.@docomo.test", longAddress, "x@müller.test"},
			head + "\nx\n", "bounce..1@docomo.test", "a..b@docomo.test, .a@docomo.test, a.@docomo.test, " + longAddress + ", x@müller.test",
		},
		{
			"dots, long local parts and IDN in fields",
			[]string{"-t"},
			head + "To: a..b@docomo.test, Taro <.a@docomo.test>\nCc: a.@docomo.test\nBcc: " + longAddress + ", x@müller.test\n\nx\n",
			"", "a..b@docomo.test, .a@docomo.test, a.@docomo.test, " + longAddress + ", x@müller.test",
		},
		{"local recipient", []string{"root"}, head + "\nx\n", "", "root@example.com"},
		{"null reverse-path", []string{"-f", "<>", "ana@example.org"}, head + "\nx\n", "<>", "ana@example.org"},
		{"empty reverse-path", []string{"-f", "", "ana@example.org"}, head + "\nx\n", "<>", "ana@example.org"},
		{"local sender", []string{"-f", "root", "ana@example.org"}, head + "\nx\n", "app@example.com", "ana@example.org"},
		{"-r, behind the recipient", []string{"ana@example.org", "-r", "<b@example.com>"}, head + "\nx\n", "b@example.com", "ana@example.org"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, acceptedAnswer)
			if got := runWith(t, tt.stdin, tt.args...); got != (outcome{}) {
				t.Fatalf("run = %+v, want status 0 and silence", got)
			}
			request := server.only(t)
			if got := request.header.Get("Envelope-From"); got != tt.from {
				t.Errorf("Envelope-From = %q, want %q", got, tt.from)
			}
			if got := request.header.Get("Envelope-To"); got != tt.to {
				t.Errorf("Envelope-To = %q, want %q", got, tt.to)
			}
			if strings.Contains(request.body, "dee@") {
				t.Errorf("body has the Bcc recipient: %q", request.body)
			}
		})
	}
}

// TestMessage checks the message rules by what reaches the server.
func TestMessage(t *testing.T) {
	const rest = "Date: x\r\nMessage-ID: <1@x>\r\n"
	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		want  string
	}{
		{
			"mixed line ends, as PHP's mail() writes them",
			[]string{"-i"},
			"To: a@x\r\nFrom: b@x\nDate: x\r\r\nMessage-ID: <1@x>\r\n\r\none\ntwo\rthree\r\n",
			"To: a@x\r\nFrom: b@x\r\n" + rest + "\r\none\ntwo\rthree\r\n",
		},
		{"a lone dot ends", nil, "From: b@x\nDate: x\nMessage-ID: <1@x>\n\none\n..two\n.three\n.\nfour\n", "From: b@x\r\n" + rest + "\r\none\n.two\nthree\n"},
		{"a lone dot is text with -i", []string{"-i"}, "From: b@x\nDate: x\nMessage-ID: <1@x>\n\none\n.\n..two", "From: b@x\r\n" + rest + "\r\none\n.\n..two"},
		{"a lone dot is text with -oi", []string{"-oi"}, "From: b@x\nDate: x\nMessage-ID: <1@x>\n\n.\n", "From: b@x\r\n" + rest + "\r\n.\n"},
		{
			"Bcc and Return-Path out, unknown fields and their order kept", nil,
			"X-Two: 2\nReturn-Path: <r@x>\nX-One: 1\nBcc: secret@x,\n also@x\nFrom: b@x\nDate: x\nMessage-ID: <1@x>\n\n",
			"X-Two: 2\r\nX-One: 1\r\nFrom: b@x\r\n" + rest + "\r\n",
		},
		{"header ends without an empty line", nil, "From: b@x\nDate: x\nMessage-ID: <1@x>\nno field here\nX: 1\n", "From: b@x\r\n" + rest + "\r\nno field here\nX: 1\n"},
		{"mailbox line in front", nil, "From b@x Sun Nov 22\nFrom: b@x\nDate: x\nMessage-ID: <1@x>\n\nx", "From: b@x\r\n" + rest + "\r\nx"},
		{"raw UTF-8 stays for the server to encode", nil, "From: Jörg <b@x>\nSubject: Grüße\nDate: x\nMessage-ID: <1@x>\n\nx", "From: Jörg <b@x>\r\nSubject: Grüße\r\n" + rest + "\r\nx"},
		{
			"dots that need quotes in a field", nil, "From: b..c@docomo.test\nTo: Taro <a.@docomo.test>, \".d\"@docomo.test\nDate: x\nMessage-ID: <1@x>\n\nx",
			"From: <\"b..c\"@docomo.test>\r\nTo: \"Taro\" <\"a.\"@docomo.test>,\r\n <\".d\"@docomo.test>\r\n" + rest + "\r\nx",
		},
		{"From of cron", nil, "From: root (Cron Daemon)\nDate: x\nMessage-ID: <1@x>\n\nx", "From: \"Cron Daemon\" <app@example.com>\r\n" + rest + "\r\nx"},
		{"From without domain", nil, "From: www-data\nDate: x\nMessage-ID: <1@x>\n\nx", "From: \"www-data\" <app@example.com>\r\n" + rest + "\r\nx"},
		{"no From, -f and -F", []string{"-f", "bo@example.com", "-FBo Ö"}, "Date: x\nMessage-ID: <1@x>\n\nx", rest + "From: =?utf-8?q?Bo_=C3=96?= <bo@example.com>\r\n\r\nx"},
		{"From with nothing in it", []string{"-fbo@example.com"}, "From:\nDate: x\nMessage-ID: <1@x>\n\nx", rest + "From: <bo@example.com>\r\n\r\nx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, acceptedAnswer)
			if got := runWith(t, tt.stdin, append(tt.args, "ana@example.org")...); got != (outcome{}) {
				t.Fatalf("run = %+v, want status 0 and silence", got)
			}
			if got := server.only(t).body; got != tt.want {
				t.Errorf("body = %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCompletes checks what is added to a message without a header.
func TestCompletes(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, "just text: here\nSubject: not a field\n", "-FBackup", "ana@example.org")
	if got != (outcome{}) {
		t.Fatalf("run = %+v, want status 0 and silence", got)
	}
	request := server.only(t)
	header, body, _ := strings.Cut(request.body, "\r\n\r\n")
	if want := "just text: here\nSubject: not a field\n"; body != want {
		t.Errorf("body = %q, want %q", body, want)
	}
	for _, want := range []string{`From: "Backup" <app@example.com>`, "Date: ", "Message-ID: <"} {
		if !strings.Contains(header, want) {
			t.Errorf("header = %q, want %q in it", header, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		stdin  string
		status int
		stderr string
	}{
		{"no recipients", nil, simpleMessage, 64, "no recipient addresses found"},
		{"-t without any", []string{"-t"}, "Subject: x\n\nx\n", 64, "no recipient addresses found"},
		{"-t with an empty To, as mail() writes it", []string{"-t"}, "To: \r\nSubject: x\r\n\r\nx\r\n", 64, "no recipient addresses found"},
		{"unknown option", []string{"-Z", "a@x.org"}, simpleMessage, 64, "unknown option -Z"},
		{"long option", []string{"--read-envelope-from"}, simpleMessage, 64, "unknown option --"},
		{"missing argument", []string{"-f"}, simpleMessage, 64, "option -f needs an argument"},
		{"daemon", []string{"-bd"}, "", 64, "-bd is not available"},
		{"verify", []string{"-bv", "a@x.org"}, "", 64, "-bv is not available"},
		{"-D", []string{"-D", "a@x.org"}, "", 64, "unknown option -D"},
		{"empty input", []string{"a@x.org"}, "", 65, "the message is empty"},
		{"blank input", []string{"-i", "a@x.org"}, "\r\n\r\n", 65, "the message is empty"},
		{"control character in a recipient", []string{"a\x01@x.org"}, simpleMessage, 65, "is not a valid recipient address"},
		{"blank in a recipient", []string{"ana smith@x.org"}, simpleMessage, 65, "is not a valid recipient address"},
		{"command in the sender", []string{"-f", "a@x.org>\r\nRCPT TO:<b@x.org", "a@x.org"}, simpleMessage, 64, "-f: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, acceptedAnswer)
			got := runWith(t, tt.stdin, tt.args...)
			if got.status != tt.status || !strings.Contains(got.stderr, tt.stderr) || got.stdout != "" {
				t.Errorf("sendmail(%q) = %+v, want status %d and %q", tt.args, got, tt.status, tt.stderr)
			}
			if strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "mailsidecar sendmail: ") {
				t.Errorf("stderr = %q, want one line with the command's name", got.stderr)
			}
			if len(server.requests) > 0 {
				t.Errorf("%d requests were made, want none", len(server.requests))
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	const rejected = `422 {"code":"rejected","title":"The relay refused the message","detail":"No such user here","reply_code":550,"enhanced_code":"5.1.1","stage":"%s",` +
		`"recipients":[{"email":"ana@example.org","state":"bounced","reply_code":550,"enhanced_code":"5.1.1","text":"No such user here"}]}`
	for _, tt := range []struct {
		name    string
		answers []string
		status  int
		stderr  string
		posts   int
	}{
		{"delivered", []string{`200 {"id":"1","status":"delivered","recipients":[{"email":"a@x","state":"delivered"}]}`}, 0, "", 1},
		{"deferred is accepted", []string{`202 {"id":"1","status":"deferred","recipients":[{"email":"a@x","state":"deferred","reply_code":451}]}`}, 0, "", 1},
		{
			"some refused",
			[]string{`200 {"id":"1","status":"partial","recipients":[{"email":"a@x","state":"delivered"},{"email":"b@x","state":"bounced","reply_code":550,"enhanced_code":"5.1.1","text":"no such user"}]}`},
			0, "mailsidecar sendmail: 550 5.1.1 <b@x>: no such user\n", 1,
		},
		{"recipient refused", []string{fmt.Sprintf(rejected, "rcpt")}, 67, "mailsidecar sendmail: 550 5.1.1 <ana@example.org>: No such user here (HTTP 422)\n", 1},
		{"content refused", []string{fmt.Sprintf(rejected, "content")}, 65, "mailsidecar sendmail: 550 5.1.1 <ana@example.org>: No such user here (HTTP 422)\n", 1},
		{"relay deferred, nothing stored", []string{`502 {"code":"relay_deferred","detail":"451 4.7.1 greylisted","reply_code":451,"enhanced_code":"4.7.1","retryable":true}`}, 69, "mailsidecar sendmail: 451 4.7.1 greylisted (HTTP 502)\n", 1},
		{"wrong key", []string{`401 {"code":"unauthorized","title":"An API key is required"}`}, 77, "mailsidecar sendmail: the API key is missing or wrong: set MAILSIDECAR_API_KEY to the secret, without the name, of one of the server's MAILSIDECAR_API_KEYS (HTTP 401)\n", 1},
		{"sender not allowed", []string{`403 {"code":"sender_not_allowed","detail":"Not from here."}`}, 77, "mailsidecar sendmail: Not from here. (HTTP 403)\n", 1},
		{"too large", []string{`413 {"code":"message_too_large","detail":"The message is too large."}`}, 65, "mailsidecar sendmail: The message is too large. (HTTP 413)\n", 1},
		{"queue full", []string{`503 60|{"code":"queue_full","detail":"The queue is full."}`}, 69, "mailsidecar sendmail: The queue is full. (HTTP 503)\n", 1},
		{"asked to repeat", []string{`503 0|{"code":"busy","detail":"Busy."}`, acceptedAnswer}, 0, "", 2},
		{"asked to repeat forever", []string{`503 0|{"code":"busy","detail":"Busy."}`}, 69, "mailsidecar sendmail: Busy. (HTTP 503)\n", 2},
		{"no queue to keep keys", []string{`422 {"code":"queue_required","detail":"x"}`, `200 {"id":"1","status":"delivered","recipients":[{"email":"a@x","state":"delivered"}]}`}, 0, "", 2},
		{"control characters in the answer", []string{`422 {"code":"invalid_message","detail":"a\r\nb\u001b[31m"}`}, 65, "mailsidecar sendmail: a  b [31m (HTTP 422)\n", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newRecordingServer(t, tt.answers...)
			got := runWith(t, simpleMessage, "-t")
			if want := (outcome{status: tt.status, stderr: tt.stderr}); got != want {
				t.Errorf("run = %+v, want %+v", got, want)
			}
			if len(server.requests) != tt.posts {
				t.Fatalf("requests = %d, want %d", len(server.requests), tt.posts)
			}
			if last := server.requests[tt.posts-1]; strings.Contains(tt.answers[0], "queue_required") && last.header.Get("Idempotency-Key") != "" {
				t.Error("the repeat still has the idempotency key")
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	newRecordingServer(t, acceptedAnswer)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	t.Setenv("MAILSIDECAR_URL", "http://"+dead.Addr().String())
	got := runWith(t, simpleMessage, "-t")
	if got.status != 69 || !strings.Contains(got.stderr, dead.Addr().String()) || strings.Contains(got.stderr, "secret") {
		t.Errorf("run = %+v, want status 69, the address and no key", got)
	}
}

func TestIgnoresProxies(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	if got := runWith(t, simpleMessage, "-t"); got.status != 0 {
		t.Errorf("run = %+v, want status 0", got)
	}
	server.only(t)
}

// TestTouchesNoFile gives the options that write or read files in other sendmails,
// as a visitor of a careless PHP program would (CVE-2016-10033).
func TestTouchesNoFile(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	dir := t.TempDir()
	t.Chdir(dir)
	args := []string{"-t", "-i", "-fa@x.org", "-X", dir + "/log.php", "-X" + dir + "/log2.php", "-C" + dir + "/cf", "-OQueueDirectory=" + dir, "-oQ" + dir, "-L", dir + "/tag", "-A", dir + "/a"}
	if got := runWith(t, simpleMessage, args...); got != (outcome{}) {
		t.Errorf("run = %+v, want status 0 and silence", got)
	}
	server.only(t)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("files = %v, %v, want none", entries, err)
	}
}

// TestCommandLines runs what known programs run.
func TestCommandLines(t *testing.T) {
	for _, line := range []string{
		"-t -i",
		"-t -i -fbounce@example.com",
		"-oi -fbounce@example.com -t",
		"-oi -f bounce@example.com -t -r bounce@example.com",
		"-i -fbounce@example.com -- ana@example.org bo@example.org",
		"-FCronDaemon -i -B8BITMIME -oem root",
		"-FCronDaemon -i -odi -oem -oi -t -f root",
		"-FAnacron -odi root",
		"-oem -oi -B8BITMIME -f a@example.com -N never -R hdrs -- ana@example.org",
		"-oem -oi -V id -N failure,delay ana@example.org",
		"-i -f a@example.com ana@example.org",
		"-G -U -n -m -v -x -c -p ESMTP -h 2 -L tag -e m -bm ana@example.org",
	} {
		t.Run(line, func(t *testing.T) {
			server := newRecordingServer(t, acceptedAnswer)
			if got := runWith(t, simpleMessage, strings.Fields(line)...); got != (outcome{}) {
				t.Errorf("run = %+v, want status 0 and silence", got)
			}
			server.only(t)
		})
	}
}

func TestDoesNothing(t *testing.T) {
	t.Setenv("MAILSIDECAR_URL", "")
	for _, args := range [][]string{{"-bi"}, {"-I"}, {"-q"}, {"-q30m"}, {"-qf"}} {
		if got := runWith(t, "", args...); got != (outcome{}) {
			t.Errorf("sendmail(%q) = %+v, want status 0 and silence", args, got)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		argv, want []string
		named      bool
	}{
		{nil, nil, false},
		{[]string{"/usr/local/bin/mailsidecar", "serve"}, []string{"serve"}, false},
		{[]string{"/usr/sbin/sendmail", "-t"}, []string{"-t"}, true},
		{[]string{"mailq"}, []string{"-bp"}, true},
		{[]string{"newaliases", "-v"}, []string{"-bi"}, true},
	} {
		if got, named := CommandLine(tt.argv); !slices.Equal(got, tt.want) || named != tt.named {
			t.Errorf("CommandLine(%q) = %q, %t, want %q, %t", tt.argv, got, named, tt.want, tt.named)
		}
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("from-file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  map[string]string
		file string
		want settings
		err  string
	}{
		{name: "nothing", err: "MAILSIDECAR_URL is set neither"},
		{name: "environment", env: map[string]string{"MAILSIDECAR_URL": "http://a:1", "MAILSIDECAR_API_KEY": "k"}, want: settings{url: "http://a:1", key: "k", wait: 3}},
		{name: "file", file: "# comment\n\nMAILSIDECAR_URL = \"http://a:1\"\nexport MAILSIDECAR_WAIT='0'\n", want: settings{url: "http://a:1"}},
		{name: "environment before file", env: map[string]string{"MAILSIDECAR_URL": "http://b:1"}, file: "MAILSIDECAR_URL=http://a:1\r\nMAILSIDECAR_API_KEY=k\r\n", want: settings{url: "http://b:1", key: "k", wait: 3}},
		{name: "key file", env: map[string]string{"MAILSIDECAR_API_KEY_FILE": key}, file: "MAILSIDECAR_URL=http://a:1", want: settings{url: "http://a:1", key: "from-file", wait: 3}},
		{name: "key file missing", env: map[string]string{"MAILSIDECAR_API_KEY_FILE": key + "x"}, file: "MAILSIDECAR_URL=http://a:1", err: "MAILSIDECAR_API_KEY_FILE: "},
		{name: "wait as a duration, and too long", file: "MAILSIDECAR_URL=http://a:1\nMAILSIDECAR_WAIT=5m", want: settings{url: "http://a:1", wait: 60}},
		{name: "wait is no number", file: "MAILSIDECAR_URL=http://a:1\nMAILSIDECAR_WAIT=long", err: "MAILSIDECAR_WAIT: "},
		{name: "from with a name", file: "MAILSIDECAR_URL=http://a:1\nMAILSIDECAR_FROM=Shop <shop@example.com>", want: settings{url: "http://a:1", wait: 3, from: "shop@example.com"}},
		{name: "from is no address", file: "MAILSIDECAR_URL=http://a:1\nMAILSIDECAR_FROM=root", err: "MAILSIDECAR_FROM: "},
		{name: "a line that is none", file: "MAILSIDECAR_API_KEY secret", err: "sendmail.conf:1: expected NAME=VALUE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"URL", "API_KEY", "API_KEY_FILE", "WAIT", "FROM", "TLS_CA_FILE"} {
				t.Setenv("MAILSIDECAR_"+name, tt.env["MAILSIDECAR_"+name])
			}
			file := filepath.Join(dir, "sendmail.conf")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := loadSettings(file)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") || exitStatus(err) != exitConfig {
					t.Fatalf("error = %v, want %q without a secret, status 78", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.domain, got.user = "", ""
			if got != tt.want {
				t.Errorf("settings = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestNotConfigured(t *testing.T) {
	t.Setenv("MAILSIDECAR_URL", "")
	if got := runWith(t, simpleMessage, "-t"); got.status != 78 || !strings.Contains(got.stderr, "MAILSIDECAR_URL") {
		t.Errorf("run = %+v, want status 78 and the variable's name", got)
	}
}

func TestQueue(t *testing.T) {
	newRecordingServer(t, `200 {"messages":[]}`)
	if got := runWith(t, "", "-bp"); got != (outcome{stdout: "Mail queue is empty\n"}) {
		t.Errorf("run = %+v, want an empty queue", got)
	}
	newRecordingServer(t, `422 {"code":"queue_required","detail":"x"}`)
	if got := runWith(t, "", "-bp"); got != (outcome{stdout: "Mail queue is empty\n"}) {
		t.Errorf("run without a queue = %+v, want an empty queue", got)
	}
	server := newRecordingServer(t, `200 {"messages":[]}`, `200 {"messages":[{"id":"01J","status":"deferred","size":1200,"recipients":[{"email":"a@x","state":"deferred","reply_code":451,"text":"busy"}]}]}`, `200 {"messages":[]}`)
	got := runWith(t, "", "-bp")
	if got.status != 0 || !strings.Contains(got.stdout, "01J") || !strings.Contains(got.stdout, "a@x (deferred) 451 busy") {
		t.Errorf("run = %+v, want the message and its recipient", got)
	}
	if server.requests[1].path != "/v1/messages?limit=100&status=deferred" {
		t.Errorf("second request = %s, want the deferred ones", server.requests[1].path)
	}
	newRecordingServer(t, `401 {"code":"unauthorized"}`)
	if got := runWith(t, "", "-bp"); got.status != 77 {
		t.Errorf("run with a wrong key = %+v, want status 77", got)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(simpleMessage), false)
	f.Add([]byte("To: a@x\r\nFrom: b@x\n\rBcc: c@x\r\r\n.\n.."), true)
	f.Add([]byte(" fold first\n:\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, ignoreDots bool) {
		s := &sender{
			options:  options{fromHeader: true, ignoreDots: ignoreDots},
			settings: settings{domain: "example.com", user: "app"},
			now:      nowForTest,
		}
		data, err := readMessage(newReader(in), ignoreDots)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := s.prepare(data)
		if err != nil {
			return
		}
		for _, path := range msg.forwardPaths {
			if !validAddress(path) {
				t.Errorf("forward-path %q", path)
			}
		}
		header, _, _ := bytes.Cut(msg.data, []byte("\r\n\r\n"))
		if bytes.IndexByte(in, '\n') < 0 && bytes.IndexByte(in, '\r') >= 0 {
			t.Errorf("a message without line ends became %q", msg.data)
		}
		if bytes.ContainsAny(bytes.ReplaceAll(header, []byte("\r\n"), nil), "\r\n") {
			t.Errorf("bare CR or LF in the header section %q", header)
		}
		again := parseMessage(msg.data)
		if len(again.recipients()) > 0 && again.value("Bcc") != "" {
			t.Errorf("Bcc left in %q", msg.data)
		}
		for _, name := range []string{"From", "Date", "Message-ID"} {
			if again.value(name) == "" {
				t.Errorf("no %s in %q", name, msg.data)
			}
		}
	})
}

func FuzzParseSendmailOptions(f *testing.F) {
	f.Add("-t -i -fbounce@x")
	f.Add("-f -- -X")
	f.Fuzz(func(_ *testing.T, line string) {
		_, _ = parseOptions(strings.Split(line, " "))
	})
}

// TestExample reads the file that the documents tell to copy.
func TestExample(t *testing.T) {
	for _, name := range []string{"URL", "API_KEY", "WAIT", "FROM", "TLS_CA_FILE"} {
		t.Setenv("MAILSIDECAR_"+name, "")
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MAILSIDECAR_API_KEY_FILE", key) // the example's is the container's
	got, err := loadSettings("../examples/php/sendmail.conf")
	if err != nil {
		t.Fatal(err)
	}
	got.user = ""
	if want := (settings{url: "http://mailsidecar:8587", key: "k", wait: 3, from: "app@example.com", domain: "example.com"}); got != want {
		t.Errorf("settings = %+v, want %+v", got, want)
	}
}

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The key that the clients use. SendGrid's complains about any that begins
// otherwise.
const (
	sdkKeyName = "shop"
	sdkKey     = "SG.a-key-for-tests.0123456789abcdef"
)

// TestNodeSDKs sends with the providers' own clients for Node, and checks the
// messages at the relay and the answers as the clients read them.
func TestNodeSDKs(t *testing.T) {
	t.Parallel()
	machine.Needs(t, "scripts/install-sdks", "node", "sdk/node_modules/postmark")
	testSDKs(t, "node", func(ctx context.Context, url string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "node", "send.mjs", url, sdkKeyName, sdkKey)
		cmd.Dir = "sdk"
		return cmd
	}, slices.Concat(fullMails("sendgrid", "postmark", "resend", "mailgun", "mailersend", "brevo", "ses", "ses-nodemailer"), []arrival{
		{to: "sendgrid-many-1", subject: "Hello Ana", text: "Dear Ana, $& {{other}}"},
		{to: "sendgrid-many-2", subject: "Hello {{name}} $1", text: "Dear {{name}} $1, $& {{other}}"},
		{to: "postmark-batch-1"},
		{to: "postmark-batch-3"},
		{to: "resend-again"},
		{to: "resend-permissive"},
		{to: "resend-batch-1"},
		{to: "resend-batch-2"},
		{to: "mailgun-many-1", subject: "Hello Ana", text: "Dear Ana, %recipient.other%"},
		{to: "mailgun-many-2", subject: "Hello Bob", text: "Dear Bob, %recipient.other%"},
		{to: "mailgun-mime", envelope: []string{"mailgun-mime", "mailgun-mime-bcc"}, subject: "Finished", text: "Ready made.\r\n"},
		{to: "mailersend-many-1", subject: "Hello Ana", text: "Dear Ana, {{ other }}"},
		{to: "mailersend-many-2", subject: "Hello Bob", text: "Dear Bob, {{ other }}"},
		{to: "mailersend-bulk-1"},
		{to: "mailersend-bulk-2"},
		{to: "brevo-many-1", subject: "Hello Ana", text: "Dear Ana"},
		{to: "brevo-many-2", subject: "Hello Bob", text: "Dear Bob"},
	}))
}

// TestGoSDKs does the same with the clients for Go, a module of its own.
func TestGoSDKs(t *testing.T) {
	t.Parallel()
	program := filepath.Join(scratch, "sdk-go")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = "sdk/go"
	if out, err := build.CombinedOutput(); err != nil {
		machine.Lacks(t, fmt.Sprintf("the clients cannot be built: %v\n%s", err, out))
	}
	testSDKs(t, "go", func(ctx context.Context, url string) *exec.Cmd {
		return exec.CommandContext(ctx, program, url, sdkKeyName, sdkKey)
	}, slices.Concat(fullMails("sendgrid", "sendgrid-gzip", "postmark", "resend", "mailgun", "mailersend", "ses"), []arrival{
		{to: "mailgun-mime", envelope: []string{"mailgun-mime", "mailgun-mime-bcc"}, subject: "Finished", text: "Ready made.\r\n"},
	}))
}

// TestPythonSDKs does the same with Debian's packages for Python: Anymail for Django
// with each of its backends, boto3 and requests.
func TestPythonSDKs(t *testing.T) {
	t.Parallel()
	packages := filepath.Join("..", ".tools", "python", "packages")
	machine.Needs(t, "scripts/install-sdks", "python3", packages)
	anymail := []string{"sendgrid", "postmark", "resend", "mailgun", "mailersend", "brevo", "amazon-ses"}
	var full []string
	var want []arrival
	for _, backend := range anymail {
		full = append(full, "anymail-"+backend)
		want = append(want, arrival{to: "anymail-" + backend + "-plain"})
	}
	for backend, other := range map[string]string{
		"sendgrid-many": "{{other}}", "mailgun-many": "%recipient.other%", "mailersend-many": "{{ other }}",
		"mailersend-bulk": "{{ other }}", "brevo-many": "all",
	} {
		want = append(want,
			arrival{to: "anymail-" + backend + "-1", subject: "Hello Ana", text: "Dear Ana, " + other},
			arrival{to: "anymail-" + backend + "-2", subject: "Hello Bob", text: "Dear Bob, " + other})
	}
	for _, name := range []string{"mailgun-apart", "postmark-many", "resend-many"} {
		want = append(want, arrival{to: "anymail-" + name + "-1"}, arrival{to: "anymail-" + name + "-2"})
	}
	testSDKs(t, "python", pythonSDKs("python3", "debian.py", packages), slices.Concat(fullMails(append(full, "mailgun")...), want, []arrival{
		{to: "ses", full: true, envelope: []string{"ses", "ses-cc", "ses-bcc"}, html: sdkHTML + "\r\n"},
		{to: "mailgun-mime", envelope: []string{"mailgun-mime", "mailgun-mime-bcc"}, subject: "Finished", text: "Ready made.\r\n"},
		{to: "ses-simple"},
	}))
}

// TestPyPISDKs does the same with the providers' own clients for Python. Debian does
// not package them, and a test run does not install them: see
// sdk/python/requirements.txt.
func TestPyPISDKs(t *testing.T) {
	t.Parallel()
	python := filepath.Join("..", ".tools", "pypi", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Skipf("%v (integration/sdk/python/requirements.txt says how to install it)", err)
	}
	testSDKs(t, "pypi", pythonSDKs(python, "pypi.py", ""), slices.Concat(fullMails("sendgrid", "postmarker", "postmark", "resend", "mailgun", "mailersend", "brevo", "sib", "ses"), []arrival{
		{to: "sendgrid-many-1", subject: "Hello Ana", text: "Dear Ana, -other-"},
		{to: "sendgrid-many-2", subject: "Hello Bob", text: "Dear Bob, -other-"},
		{to: "postmarker-batch-1"},
		{to: "resend-again"},
		{to: "resend-permissive"},
		{to: "resend-batch-1"},
		{to: "resend-batch-2"},
		{to: "mailersend-many-1", subject: "Hello Ana", text: "Dear Ana, {{ other }}"},
		{to: "mailersend-many-2", subject: "Hello Bob", text: "Dear Bob, {{ other }}"},
		{to: "mailersend-bulk-1"},
		{to: "mailersend-bulk-2"},
		{to: "brevo-many-1", subject: "Hello Ana", text: "Dear Ana"},
		{to: "brevo-many-2", subject: "Hello Bob", text: "Dear Bob"},
	}))
}

// pythonSDKs runs a program of sdk/python with an interpreter, which finds
// packages there.
func pythonSDKs(python, program, packages string) func(ctx context.Context, url string) *exec.Cmd {
	return func(ctx context.Context, url string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, python, filepath.Join("sdk", "python", program), url, sdkKeyName, sdkKey)
		cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
		return cmd
	}
}

// arrival is a message that must come to the relay, once. A recipient is named
// by its local part.
type arrival struct {
	to       string
	envelope []string // all recipients; nil means to alone
	subject  string   // empty: the one that most scenarios send
	text     string   // likewise
	html     string   // likewise, where the message is full
	full     bool     // has everything that a message may have
}

// fullMails are the messages with everything in them.
func fullMails(names ...string) []arrival {
	var all []arrival
	for _, name := range names {
		a := arrival{to: name, full: true, envelope: []string{name, name + "-cc", name + "-bcc"}}
		switch name {
		case "postmark", "mailgun":
			a.envelope = []string{name, name + "-2", name + "-cc", name + "-bcc"}
		case "brevo":
			a.subject = sdkSubject + " 1042"
		}
		all = append(all, a)
	}
	return all
}

// What the scenarios send.
const (
	sdkSubject = "Ihre Bestellung № 1042 — grüße"
	sdkText    = "Dear Ana,\r\n\r\n.a leading dot, a trailing blank \r\nund Umlaute: äöü €\r\n"
	sdkHTML    = `<p>Grüße</p><img src="cid:logo.png">`
)

func sdkFiles() map[string][]byte {
	pdf, png := make([]byte, 3000), make([]byte, 200)
	for i := range pdf {
		pdf[i] = byte(i * 7)
	}
	for i := range png {
		png[i] = byte(255 - i)
	}
	return map[string][]byte{"Rechnung März.pdf": pdf, "logo.png": png}
}

// testSDKs runs a program that sends with several clients. Its output must be the
// golden file of that name.
func testSDKs(t *testing.T, name string, program func(ctx context.Context, url string) *exec.Cmd, want []arrival) {
	t.Helper()
	relay := relaytest.New(t, relaytest.Options{}, nil)
	s := serve(t, environment{
		"SMTP_HOST": "localhost", "SMTP_PORTS": strconv.Itoa(relay.Listen(t)),
		"SMTP_USERNAME": "shop", "SMTP_PASSWORD": "secret",
		"SMTP_TLS_CA_FILE":     writeFile(t, "ca.pem", string(relaytest.AuthorityPEM())),
		"MAILSIDECAR_API_KEYS": sdkKeyName + ":" + sdkKey,
		"MAILSIDECAR_DATA_DIR": t.TempDir(),
	})
	cmd := program(t.Context(), s.url)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	answers, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	compareGolden(t, filepath.Join("sdk", "answers-"+name+".json"), maskAnswers(t, answers))
	checkArrivals(t, relay, want)
	s.findAnswered(t, answers)
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the answers differ from %s (-update rewrites it); got\n%s", path, got)
	}
}

var (
	uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	times = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`)
)

// maskAnswers puts words in the place of values that differ from run to run, and
// leaves out the transport's headers.
func maskAnswers(t *testing.T, answers []byte) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(answers, &all); err != nil {
		t.Fatalf("answers: %v\n%s", err, answers)
	}
	dropTransport(all)
	masked, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	masked = uuids.ReplaceAll(masked, []byte("UUID"))
	masked = ports.ReplaceAll(masked, []byte("HOST"))
	return append(times.ReplaceAll(masked, []byte("TIME")), '\n')
}

func dropTransport(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "headers")
		delete(v, "$metadata")
		for _, member := range v {
			dropTransport(member)
		}
	case []any:
		for _, item := range v {
			dropTransport(item)
		}
	}
}

// checkArrivals checks that the relay got exactly the messages in want.
func checkArrivals(t *testing.T, relay *relaytest.Relay, want []arrival) {
	t.Helper()
	machine.Wait(func() bool { return len(relay.Messages()) >= len(want) })
	got := map[string]relaytest.Message{}
	for _, m := range relay.Messages() {
		name := strings.TrimSuffix(m.ForwardPaths[0], "@example.org")
		if _, twice := got[name]; twice {
			t.Errorf("%s arrived twice", name)
		}
		got[name] = m
	}
	for _, a := range want {
		m, ok := got[a.to]
		if delete(got, a.to); !ok {
			t.Errorf("%s did not arrive", a.to)
			continue
		}
		t.Run(a.to, func(t *testing.T) { a.check(t, m) })
	}
	for name := range got {
		t.Errorf("%s arrived, and should not", name)
	}
}

func (a arrival) check(t *testing.T, m relaytest.Message) {
	envelope := a.envelope
	if envelope == nil {
		envelope = []string{a.to}
	}
	for i := range envelope {
		envelope[i] += "@example.org"
	}
	if !slices.Equal(m.ForwardPaths, envelope) || m.ReversePath != "shop@example.com" {
		t.Errorf("envelope = %s to %v, want shop@example.com to %v", m.ReversePath, m.ForwardPaths, envelope)
	}
	got := readMail(t, m.Data)
	want := mailParts{header: got.header, text: orDefault(a.text, sdkText), files: map[string][]byte{}}
	if subject := got.headerText(t, "Subject"); subject != orDefault(a.subject, sdkSubject) {
		t.Errorf("Subject = %q, want %q", subject, orDefault(a.subject, sdkSubject))
	}
	if !strings.HasSuffix(want.text, "\r\n") {
		want.text += "\r\n" // a text ends in a line end, whatever was sent
	}
	if a.full {
		want.html, want.files, want.inline = orDefault(a.html, sdkHTML), sdkFiles(), "logo.png"
		a.checkHeader(t, got)
	}
	if got.text != want.text || got.html != want.html || got.inline != want.inline {
		t.Errorf("text, HTML, inline = %q, %q, %q, want %q, %q, %q", got.text, got.html, got.inline, want.text, want.html, want.inline)
	}
	for name, content := range want.files {
		if !bytes.Equal(got.files[name], content) {
			t.Errorf("file %s has %d octets, not the %d that were sent", name, len(got.files[name]), len(content))
		}
	}
	if len(got.files) != len(want.files) {
		t.Errorf("%d files, want %d", len(got.files), len(want.files))
	}
}

func (a arrival) checkHeader(t *testing.T, got mailParts) {
	from, err := mail.ParseAddress(got.header.Get("From"))
	if err != nil || from.Name != "Müller & Söhne, Köln" || from.Address != "shop@example.com" {
		t.Errorf("From = %v, %v", from, err)
	}
	to, err := mail.ParseAddressList(got.header.Get("To"))
	if err != nil || to[0].Name != "Ana Gómez" && a.to != "resend" {
		t.Errorf("To = %v, %v", to, err)
	}
	if cc := got.header.Get("Cc"); !strings.Contains(cc, a.to+"-cc@example.org") {
		t.Errorf("Cc = %q", cc)
	}
	if replyTo := got.header.Get("Reply-To"); !strings.Contains(replyTo, "help@example.com") {
		t.Errorf("Reply-To = %q", replyTo)
	}
	if id := got.header.Get("X-Order-Id"); id != "4711" && a.to != "mailersend" {
		t.Errorf("X-Order-Id = %q", id)
	}
	for name, values := range got.header {
		if name == "Bcc" || strings.Contains(strings.Join(values, " "), "-bcc@") {
			t.Errorf("%s: %v tells of the Bcc recipient", name, values)
		}
	}
}

// mailParts is a message taken apart.
type mailParts struct {
	header     mail.Header
	text, html string
	files      map[string][]byte
	inline     string // Content-ID of the file that has one
}

func (m mailParts) headerText(t *testing.T, name string) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(m.header.Get(name))
	if err != nil {
		t.Error(err)
	}
	return text
}

func readMail(t *testing.T, data []byte) mailParts {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	parts := mailParts{header: m.Header, files: map[string][]byte{}}
	parts.read(t, m.Header.Get, m.Body)
	return parts
}

func (m *mailParts) read(t *testing.T, header func(string) string, body io.Reader) {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(orDefault(header("Content-Type"), "text/plain"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(mediaType, "multipart/") {
		for r := multipart.NewReader(body, params["boundary"]); ; {
			part, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.read(t, part.Header.Get, part)
		}
	}
	content := decode(t, header("Content-Transfer-Encoding"), body)
	disposition, file, _ := mime.ParseMediaType(header("Content-Disposition"))
	name, err := new(mime.WordDecoder).DecodeHeader(file["filename"])
	switch {
	case err != nil:
		t.Fatal(err)
	case name != "":
		m.files[name] = content
		if disposition == "inline" {
			m.inline = strings.Trim(header("Content-Id"), "<>")
		}
	case mediaType == "text/html":
		m.html = string(content)
	default:
		m.text = string(content)
	}
}

func orDefault(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}

// findAnswered looks up every id that the clients were given.
func (s *sidecar) findAnswered(t *testing.T, answers []byte) {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(answers, &all); err != nil {
		t.Fatal(err)
	}
	for name, answer := range all {
		if strings.HasSuffix(name, "-test") || strings.HasSuffix(name, "-sandbox") {
			continue
		}
		dropped := maskFree(t, answer)
		for _, id := range uuids.FindAllString(dropped, -1) {
			target := "/v1/messages/" + id
			switch {
			case strings.Contains(dropped, id+"@example.com"):
				target = "/v1/messages?message_id=" + url.QueryEscape("<"+id+"@example.com>")
			case id[14] == '4': // Anymail makes it, and gives it to SendGrid as custom_args
				target = "/v1/messages?tag=anymail_id:" + id
			case strings.Contains(dropped, "bulk_email_id"), strings.Contains(dropped, "bulk:"+id):
				target = "/v1/messages?tag=bulk_email_id:" + id
			}
			if status, body := s.look(t, target); status != http.StatusOK || !strings.Contains(body, `"id"`) {
				t.Errorf("%s: GET %s = %d %s", name, target, status, body)
			}
		}
	}
}

// maskFree is an answer without the transport's ids.
func maskFree(t *testing.T, answer json.RawMessage) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatal(err)
	}
	dropTransport(v)
	return fmt.Sprint(v)
}

func (s *sidecar) look(t *testing.T, target string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+sdkKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

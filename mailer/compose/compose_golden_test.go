package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden messages")

const goldenDir = "../../testdata/messages"

// goldenMessage is a request body as the files have it. Its header fields are
// read in the order of their names.
type goldenMessage struct {
	From        mailer.Address    `json:"from"`
	To          []mailer.Address  `json:"to"`
	Cc          []mailer.Address  `json:"cc"`
	Bcc         []mailer.Address  `json:"bcc"`
	ReplyTo     []mailer.Address  `json:"reply_to"`
	Subject     string            `json:"subject"`
	Text        string            `json:"text"`
	HTML        string            `json:"html"`
	Headers     map[string]string `json:"headers"`
	ReturnPath  string            `json:"return_path"`
	Attachments []struct {
		Filename    string `json:"filename"`
		Content     []byte `json:"content"`
		ContentType string `json:"content_type"`
		ContentID   string `json:"content_id"`
	} `json:"attachments"`
}

func (g goldenMessage) message() mailer.Message {
	m := mailer.Message{
		From: g.From, To: g.To, Cc: g.Cc, Bcc: g.Bcc, ReplyTo: g.ReplyTo, Subject: g.Subject,
		Text: g.Text, HTML: g.HTML, ReturnPath: g.ReturnPath,
	}
	for name, value := range g.Headers {
		m.Header = append(m.Header, mailer.Field{Name: name, Value: value})
	}
	slices.SortFunc(m.Header, func(a, b mailer.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range g.Attachments {
		m.Attachments = append(m.Attachments, mailer.Attachment{Filename: a.Filename, ContentType: a.ContentType, ContentID: a.ContentID, Content: a.Content})
	}
	return m
}

func TestComposeGolden(t *testing.T) {
	files, err := filepath.Glob(goldenDir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden messages: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var g goldenMessage
			if err := json.Unmarshal(text, &g); err != nil {
				t.Fatal(err)
			}
			c, err := composeAny(g.message())
			if err != nil {
				t.Fatal(err)
			}
			checkContent(t, c.Content)
			if cap(c.Content.Data)-len(c.Content.Data) > 2 {
				t.Errorf("%d octets in a buffer of %d: the size is not exact", len(c.Content.Data), cap(c.Content.Data))
			}
			compareGolden(t, strings.TrimSuffix(file, ".json")+".eml", stableBoundaries(c.Content.Data))
			compareWithParsed(t, g.message(), c)
		})
	}
}

// compareGolden compares data with a file, or writes it there.
func compareGolden(t *testing.T, file string, data []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(data), "\n")); diff != "" {
		t.Errorf("differs from %s:\n%s", file, diff)
	}
}

var boundaryParam = regexp.MustCompile(`boundary=([0-9a-f]{60})\r\n`)

// stableBoundaries names the random boundaries by their order.
func stableBoundaries(data []byte) []byte {
	for i, m := range boundaryParam.FindAllSubmatch(data, -1) {
		data = bytes.ReplaceAll(data, m[1], fmt.Appendf(nil, "boundary-%d", i+1))
	}
	return data
}

// checkContent checks everything that Content promises.
func checkContent(t *testing.T, c mailer.Content) {
	t.Helper()
	if err := checkLines(c.Data); err != nil {
		t.Errorf("Data: %v", err)
	}
	header, body := splitContent(c.Data)
	if c.EightBit != hasEightBit(body) {
		t.Errorf("EightBit = %v, want %v", c.EightBit, !c.EightBit)
	}
	if c.UTF8Header != hasEightBit(header) {
		t.Errorf("UTF8Header = %v, want %v", c.UTF8Header, !c.UTF8Header)
	}
}

// compareWithParsed reads the composed message with another parser and compares
// what it finds with what was asked for.
func compareWithParsed(t *testing.T, m mailer.Message, c Composed) {
	t.Helper()
	e, err := message.Read(bytes.NewReader(c.Content.Data))
	if err != nil {
		t.Fatal(err)
	}
	h := mail.Header{Header: e.Header}
	compareAddresses(t, h, "From", []mailer.Address{m.From})
	compareAddresses(t, h, "To", m.To)
	compareAddresses(t, h, "Cc", m.Cc)
	compareAddresses(t, h, "Reply-To", m.ReplyTo)
	if h.Has("Bcc") || h.Has("User-Agent") || h.Has("X-Mailer") {
		t.Errorf("a field stands there that must not:\n%s", c.Content.Data)
	}
	want := append([]mailer.Field{{Name: "Subject", Value: m.Subject}}, m.Header...)
	for _, f := range want {
		if got, err := h.Text(f.Name); err != nil || got != decoded(f.Value) {
			t.Errorf("%s = %q, %v, want %q", f.Name, got, err, decoded(f.Value))
		}
	}
	compareParts(t, m, e)
}

// decoded is what a reader makes of a value that may be encoded already.
func decoded(value string) string {
	if text, err := new(mime.WordDecoder).DecodeHeader(value); err == nil && isPrintable(value) {
		return text
	}
	return value
}

func compareAddresses(t *testing.T, h mail.Header, name string, want []mailer.Address) {
	t.Helper()
	var got []string
	list, err := h.AddressList(name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, a := range list {
		got = append(got, a.Name+" <"+a.Address+">")
	}
	var wanted []string
	for _, a := range want {
		canonical, err := a.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		email := canonical.Email
		at := strings.LastIndexByte(email, '@')
		wanted = append(wanted, decoded(a.Name)+" <"+mailer.Unquote(email[:at])+email[at:]+">")
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("%s differs:\n%s", name, diff)
	}
}

// crlfText is s with every line end as CRLF, as it reaches a reader.
func crlfText(s string) string { return string(appendCRLF(nil, []byte(s))) }

// parsedPart is a leaf as a reader sees it.
type parsedPart struct{ Type, Name, Disposition, Filename, ContentID, Body string }

func compareParts(t *testing.T, m mailer.Message, e *message.Entity) {
	t.Helper()
	got := parsedParts(t, e)
	var want []parsedPart
	if m.Text != "" {
		want = append(want, parsedPart{Type: "text/plain", Body: crlfText(m.Text)})
	}
	if m.HTML != "" {
		want = append(want, parsedPart{Type: "text/html", Body: crlfText(m.HTML)})
	}
	if len(want) == 1 && len(m.Attachments) == 0 {
		// The message itself ends with a line end.
		got[0].Body, want[0].Body = strings.TrimSuffix(got[0].Body, "\r\n"), strings.TrimSuffix(want[0].Body, "\r\n")
	}
	inline, attached := splitInline(m)
	for i, a := range slices.Concat(inline, attached) {
		mediaType, _ := attachmentType(a)
		p := parsedPart{mediaType, a.Filename, "inline", a.Filename, "", string(a.Content)}
		if i >= len(inline) {
			p.Disposition = "attachment"
		}
		if a.ContentID != "" {
			p.ContentID = "<" + a.ContentID + ">"
		}
		want = append(want, p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parts differ:\n%s", diff)
	}
}

func parsedParts(t *testing.T, e *message.Entity) []parsedPart {
	t.Helper()
	if mr := e.MultipartReader(); mr != nil {
		var all []parsedPart
		for {
			part, err := mr.NextPart()
			if errors.Is(err, io.EOF) {
				return all
			}
			if err != nil && part == nil {
				t.Fatal(err)
			}
			all = append(all, parsedParts(t, part)...)
		}
	}
	body, err := io.ReadAll(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	mediaType, typeParams, _ := e.Header.ContentType()
	disposition, params, _ := e.Header.ContentDisposition()
	return []parsedPart{{
		mediaType, typeParams["name"], disposition, params["filename"], e.Header.Get("Content-Id"), string(body),
	}}
}

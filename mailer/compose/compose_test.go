package compose

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

func sampleMessage() mailer.Message {
	return mailer.Message{
		From: mailer.Address{Name: "Shop", Email: "shop@example.com"}, To: []mailer.Address{{Name: "Ana", Email: "ana@example.org"}},
		Subject: "Hello", Text: "Hi",
	}
}

func TestComposeEnvelope(t *testing.T) {
	m := sampleMessage()
	m.To = []mailer.Address{{Name: "Ana", Email: "ana@example.org"}, {Name: "", Email: "Ana@example.org"}, {Name: "A", Email: "ana@EXAMPLE.org"}}
	m.Cc = []mailer.Address{{Name: "", Email: "ana@example.org"}, {Name: "", Email: "j@bücher.example"}}
	m.Bcc = []mailer.Address{{Name: "", Email: "hidden@example.net"}, {Name: "", Email: "j@xn--bcher-kva.example"}}
	c, err := composeAny(m)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ana@example.org", "Ana@example.org", "j@xn--bcher-kva.example", "hidden@example.net"}
	if c.Envelope.ReversePath != "shop@example.com" || !slices.Equal(c.Envelope.ForwardPaths, want) {
		t.Errorf("Envelope = %+v, want forward-paths %v", c.Envelope, want)
	}
	if strings.Contains(string(c.Content.Data), "hidden@") {
		t.Errorf("Data names a Bcc recipient:\n%s", c.Content.Data)
	}
	for returnPath, want := range map[string]string{"<>": "", "bounce@example.com": "bounce@example.com"} {
		m.ReturnPath = returnPath
		if c, err := composeAny(m); err != nil || c.Envelope.ReversePath != want {
			t.Errorf("ReversePath for %q = %q, %v, want %q", returnPath, c.Envelope.ReversePath, err, want)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	tests := []struct {
		name      string
		change    func(*mailer.Message)
		fields    string // the paths of the problems
		malformed bool
	}{
		{"empty", func(m *mailer.Message) { *m = mailer.Message{} }, "from to text", false},
		{"no body", func(m *mailer.Message) { m.Text = "" }, "text", false},
		{"bad recipients", func(m *mailer.Message) {
			m.To = []mailer.Address{{Name: "", Email: "a@b"}, {Name: "", Email: "x"}}
			m.Cc = []mailer.Address{{Name: "", Email: "@"}}
		}, "to[1] cc[0]", false},
		{"line break in subject", func(m *mailer.Message) { m.Subject = "a\r\nBcc: x@y" }, "subject", true},
		{"line break in name", func(m *mailer.Message) { m.From.Name = "a\nb" }, "from.name", true},
		{"NUL in reply-to", func(m *mailer.Message) { m.ReplyTo = []mailer.Address{{Name: "a\x00", Email: "a@b"}} }, "reply_to[0].name", true},
		{"invalid UTF-8", func(m *mailer.Message) { m.Subject, m.Text, m.HTML = "\xff", "\xff", "\xff" }, "subject text html", true},
		{"return path", func(m *mailer.Message) { m.ReturnPath = "x" }, "return_path", false},
		{"address with line break", func(m *mailer.Message) { m.ReturnPath = "x@y\r\nz" }, "return_path", true},
		{"name with colon", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "X:Y", Value: ""}} }, "headers.X:Y", true},
		{"name with line break", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "X\r\nBcc", Value: "a@b"}} }, `headers.X\r\nBcc`, true},
		{"empty name", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "", Value: "a"}} }, "headers.", true},
		{"value with line break", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "X-Order", Value: "1\r\n 2"}} }, "headers.X-Order", true},
		{"long name", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: strings.Repeat("x", 77), Value: "a"}} }, "headers." + strings.Repeat("x", 76), true},
		{"reserved", func(m *mailer.Message) {
			m.Header = []mailer.Field{{Name: "bcc", Value: "a@b"}, {Name: "CONTENT-type", Value: "x/y"}, {Name: "Resent-To", Value: "a@b"}, {Name: "Sender", Value: "a@b"}}
		}, "headers.bcc headers.CONTENT-type headers.Resent-To headers.Sender", false},
		{"twice", func(m *mailer.Message) {
			m.Header = []mailer.Field{{Name: "References", Value: "<a@b>"}, {Name: "references", Value: "<a@b>"}}
		}, "headers.references", false},
		{"date", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "Date", Value: "yesterday"}} }, "headers.Date", false},
		{"message id", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "Message-ID", Value: "a@b"}} }, "headers.Message-ID", false},
		{"message id with blank", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "Message-ID", Value: "<a b@c>"}} }, "headers.Message-ID", false},
		{"long reference", func(m *mailer.Message) {
			m.Header = []mailer.Field{{Name: "References", Value: strings.Repeat("x", 998)}}
		}, "headers.References", false},
		{"list address", func(m *mailer.Message) { m.Header = []mailer.Field{{Name: "List-Unsubscribe", Value: "<mailto:ü@b>"}} }, "headers.List-Unsubscribe", false},
		{"attachment", func(m *mailer.Message) {
			m.Attachments = []mailer.Attachment{
				{},
				{Filename: "a\nb", ContentType: "x"},
				{Filename: "a", ContentType: "text/plain\r\nX: y", ContentID: "<a>"},
				{ContentID: "a"},
				{ContentID: "a"},
				{Filename: strings.Repeat("x", 1025)},
			}
		}, "attachments[0].filename attachments[1].filename attachments[1].content_type attachments[2].content_type" +
			" attachments[2].content_id attachments[4].content_id attachments[5].filename", true},
	}
	for _, tt := range tests {
		m := sampleMessage()
		tt.change(&m)
		c, err := composeAny(m)
		var invalid *mailer.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: Compose = %s, %v, want an InvalidError", tt.name, c.Content.Data, err)
			continue
		}
		var fields []string
		for _, f := range invalid.Fields {
			fields = append(fields, f.Position.String())
		}
		if got := strings.Join(fields, " "); got != tt.fields || invalid.Malformed != tt.malformed {
			t.Errorf("%s: problems at %q, malformed %v, want %q, %v", tt.name, got, invalid.Malformed, tt.fields, tt.malformed)
		}
	}
}

// composeAny composes a message of any size.
func composeAny(m mailer.Message) (Composed, error) {
	return Compose(context.Background(), m, Options{})
}

package mailer

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func sampleMessage() Message {
	return Message{
		From: Address{"Shop", "shop@example.com"}, To: []Address{{"Ana", "ana@example.org"}},
		Subject: "Hello", Text: "Hi",
	}
}

func TestComposeEnvelope(t *testing.T) {
	m := sampleMessage()
	m.To = []Address{{"Ana", "ana@example.org"}, {"", "Ana@example.org"}, {"A", "ana@EXAMPLE.org"}}
	m.Cc = []Address{{"", "ana@example.org"}, {"", "j@bücher.example"}}
	m.Bcc = []Address{{"", "hidden@example.net"}, {"", "j@xn--bcher-kva.example"}}
	c, err := Compose(m)
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
		if c, err := Compose(m); err != nil || c.Envelope.ReversePath != want {
			t.Errorf("ReversePath for %q = %q, %v, want %q", returnPath, c.Envelope.ReversePath, err, want)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	tests := []struct {
		name      string
		change    func(*Message)
		fields    string // the paths of the problems
		malformed bool
	}{
		{"empty", func(m *Message) { *m = Message{} }, "from to text", false},
		{"no body", func(m *Message) { m.Text = "" }, "text", false},
		{"bad recipients", func(m *Message) { m.To = []Address{{"", "a@b"}, {"", "x"}}; m.Cc = []Address{{"", "@"}} }, "to[1] cc[0]", false},
		{"line break in subject", func(m *Message) { m.Subject = "a\r\nBcc: x@y" }, "subject", true},
		{"line break in name", func(m *Message) { m.From.Name = "a\nb" }, "from", true},
		{"NUL in reply-to", func(m *Message) { m.ReplyTo = []Address{{"a\x00", "a@b"}} }, "reply_to[0]", true},
		{"invalid UTF-8", func(m *Message) { m.Subject, m.Text, m.HTML = "\xff", "\xff", "\xff" }, "subject text html", true},
		{"return path", func(m *Message) { m.ReturnPath = "x" }, "return_path", false},
		{"address with line break", func(m *Message) { m.ReturnPath = "x@y\r\nz" }, "return_path", true},
		{"name with colon", func(m *Message) { m.Header = []Field{{"X:Y", ""}} }, "headers.X:Y", true},
		{"name with line break", func(m *Message) { m.Header = []Field{{"X\r\nBcc", "a@b"}} }, `headers.X\r\nBcc`, true},
		{"empty name", func(m *Message) { m.Header = []Field{{"", "a"}} }, "headers.", true},
		{"value with line break", func(m *Message) { m.Header = []Field{{"X-Order", "1\r\n 2"}} }, "headers.X-Order", true},
		{"long name", func(m *Message) { m.Header = []Field{{strings.Repeat("x", 77), "a"}} }, "headers." + strings.Repeat("x", 76), true},
		{"reserved", func(m *Message) {
			m.Header = []Field{{"bcc", "a@b"}, {"CONTENT-type", "x/y"}, {"Resent-To", "a@b"}, {"Sender", "a@b"}}
		}, "headers.bcc headers.CONTENT-type headers.Resent-To headers.Sender", false},
		{"twice", func(m *Message) { m.Header = []Field{{"References", "<a@b>"}, {"references", "<a@b>"}} }, "headers.references", false},
		{"date", func(m *Message) { m.Header = []Field{{"Date", "yesterday"}} }, "headers.Date", false},
		{"message id", func(m *Message) { m.Header = []Field{{"Message-ID", "a@b"}} }, "headers.Message-ID", false},
		{"message id with blank", func(m *Message) { m.Header = []Field{{"Message-ID", "<a b@c>"}} }, "headers.Message-ID", false},
		{"long reference", func(m *Message) { m.Header = []Field{{"References", strings.Repeat("x", 901)}} }, "headers.References", false},
		{"list address", func(m *Message) { m.Header = []Field{{"List-Unsubscribe", "<mailto:ü@b>"}} }, "headers.List-Unsubscribe", false},
		{"attachment", func(m *Message) {
			m.Attachments = []Attachment{
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
		c, err := Compose(m)
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: Compose = %s, %v, want an InvalidError", tt.name, c.Content.Data, err)
			continue
		}
		var fields []string
		for _, f := range invalid.Fields {
			fields = append(fields, f.Field)
		}
		if got := strings.Join(fields, " "); got != tt.fields || invalid.Malformed != tt.malformed {
			t.Errorf("%s: problems at %q, malformed %v, want %q, %v", tt.name, got, invalid.Malformed, tt.fields, tt.malformed)
		}
	}
}

package compose

import (
	"bytes"
	"errors"
	"mime"
	"strings"
	"testing"

	"github.com/emersion/go-message"

	"mailsidecar/mailer"
)

const invitation = "BEGIN:VCALENDAR\r\nPRODID:-//Shop//EN\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1@shop.test\r\nSUMMARY:Größe – " +
	"Anprobe\r\nDESCRIPTION:METHOD:CANCEL\r\n folded\r\nDTSTART:20260202T150000Z\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

// TestComposeCalendar: an invitation is the last alternative, with the calendar's method
// in its type, whatever else the message has; and readers find its octets.
func TestComposeCalendar(t *testing.T) {
	file, picture := mailer.Attachment{Filename: "invite.ics", Content: []byte(invitation)}, mailer.Attachment{Filename: "a.png", ContentID: "a", Content: []byte("x")}
	for name, tt := range map[string]struct {
		m     mailer.Message
		types string
	}{
		"alone":                 {mailer.Message{}, "text/calendar"},
		"text":                  {mailer.Message{Text: "x"}, "multipart/alternative(text/plain text/calendar)"},
		"HTML":                  {mailer.Message{HTML: "x"}, "multipart/alternative(text/html text/calendar)"},
		"both":                  {mailer.Message{Text: "x", HTML: "x"}, "multipart/alternative(text/plain text/html text/calendar)"},
		"file":                  {mailer.Message{Attachments: []mailer.Attachment{file}}, "multipart/mixed(text/calendar text/calendar)"},
		"text and file":         {mailer.Message{Text: "x", Attachments: []mailer.Attachment{file}}, "multipart/mixed(multipart/alternative(text/plain text/calendar) text/calendar)"},
		"all with both of them": {mailer.Message{Text: "x", HTML: "x", Attachments: []mailer.Attachment{file, picture}}, "multipart/mixed(multipart/related(multipart/alternative(text/plain text/html text/calendar) image/png) text/calendar)"},
	} {
		for _, method := range []string{"", "REQUEST", "request"} {
			m := tt.m
			m.From, m.To, m.Calendar = mailer.Address{Email: "a@x.test"}, []mailer.Address{{Email: "b@x.test"}}, mailer.Calendar{Content: strings.ReplaceAll(invitation, "\r\n", "\n"), Method: method}
			c, err := Compose(t.Context(), m, Options{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			checkContent(t, c.Content)
			e, err := message.Read(bytes.NewReader(c.Content.Data))
			if err != nil {
				t.Fatal(err)
			}
			var calendars []string
			if got := structure(t, e, &calendars); got != tt.types {
				t.Errorf("%s is %s, want %s", name, got, tt.types)
			}
			if len(calendars) == 0 || calendars[0] != "REQUEST utf-8 "+invitation {
				t.Errorf("%s: calendar = %q, want the one given with its method", name, calendars)
			}
		}
	}
}

// structure returns the media types of an entity and those in it, and collects methods,
// charsets and contents of calendars.
func structure(t *testing.T, e *message.Entity, calendars *[]string) string {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(e.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := e.MultipartReader()
	if parts == nil {
		if mediaType == "text/calendar" {
			var b bytes.Buffer
			if _, err := b.ReadFrom(e.Body); err != nil {
				t.Fatal(err)
			}
			*calendars = append(*calendars, params["method"]+" "+strings.ToLower(params["charset"])+" "+b.String())
		}
		return mediaType
	}
	var types []string
	for {
		part, err := parts.NextPart()
		if err != nil {
			return mediaType + "(" + strings.Join(types, " ") + ")"
		}
		types = append(types, structure(t, part, calendars))
	}
}

// TestCalendarMethod: the method is that of the calendar, not of what is in it.
func TestCalendarMethod(t *testing.T) {
	with := func(lines string) string {
		return "BEGIN:VCALENDAR\r\n" + lines + "\r\nEND:VCALENDAR\r\n"
	}
	for _, tt := range []struct {
		content, given string
		want, field    string
	}{
		{invitation, "", "REQUEST", ""},
		{invitation, "Request", "REQUEST", ""},
		{invitation, "CANCEL", "", "calendar.method"},
		{"\uFEFF" + strings.ToLower(invitation), "", "REQUEST", ""},
		{with("ME\r\n THOD:CAN\r\n\tCEL"), "", "CANCEL", ""},
		{with("METHOD;X-A=b: REPLY "), "REPLY", "REPLY", ""},
		{with("VERSION:2.0"), "", "", ""},
		{with("VERSION:2.0"), "PUBLISH", "PUBLISH", ""},
		{with("BEGIN:VEVENT\nMETHOD:CANCEL\nEND:VEVENT"), "", "", ""},
		{with("METHOD:a; b=c"), "", "", "calendar.content"},
		{with("METHOD:" + strings.Repeat("x", 50)), "", "", "calendar.content"},
		{with("VERSION:2.0"), "REQUEST\r\nBcc: eve@x.test", "", "calendar.method"},
		{with("VERSION:2.0"), `a"; name="x`, "", "calendar.method"},
		{"", "REQUEST", "", "calendar.content"},
		{"hello", "", "", "calendar.content"},
		{"BEGIN:VEVENT\r\nEND:VEVENT\r\n", "", "", "calendar.content"},
		{"BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\n", "", "", "calendar.content"},
		{with("\xff"), "", "", "calendar.content"},
		{with("SUMMARY:a\x00b"), "", "", "calendar.content"},
		{with("METHOD:REQUEST\r\nMETHOD:CANCEL"), "", "", "calendar.content"},
		{with("METHOD:REQUEST\r\nVERSION:2.0\r\nmethod;X-A=b:REQUEST"), "", "", "calendar.content"},
		{with("METHOD:\r\nMETHOD:CANCEL"), "", "", "calendar.content"},
		{with("METHOD:REQUEST") + with("METHOD:CANCEL"), "", "", "calendar.content"},
		{with("METHOD:REQUEST") + with("METHOD:REQUEST"), "", "REQUEST", ""},
		{with("METHOD:REQUEST\r\nBEGIN:VEVENT\r\nMETHOD:CANCEL\r\nEND:VEVENT"), "", "REQUEST", ""},
	} {
		m := mailer.Message{
			From: mailer.Address{Email: "a@x.test"}, To: []mailer.Address{{Email: "b@x.test"}}, Text: "x",
			Calendar: mailer.Calendar{Content: tt.content, Method: tt.given},
		}
		c, err := Compose(t.Context(), m, Options{})
		var invalid *mailer.InvalidError
		switch {
		case tt.field != "":
			if !errors.As(err, &invalid) || invalid.Fields[0].Position.String() != tt.field {
				t.Errorf("%q as %q: %v, want a problem of %s", tt.content, tt.given, err, tt.field)
			}
		case err != nil:
			t.Errorf("%q as %q: %v", tt.content, tt.given, err)
		default:
			want := "Content-Type: text/calendar; charset=UTF-8\r\n"
			if tt.want != "" {
				want = "Content-Type: text/calendar; method=" + tt.want + "; charset=UTF-8\r\n"
			}
			if !bytes.Contains(c.Content.Data, []byte(want)) {
				t.Errorf("%q as %q became %q, want %q", tt.content, tt.given, c.Content.Data, want)
			}
		}
	}
}

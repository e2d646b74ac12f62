package compose

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

var relaysFrom = mailer.Address{Name: "Relay", Email: "shop@example.com"}

// finishedMessages are headers of finished messages with whatever may stand for a sender.
var finishedMessages = []string{
	"From: www-data@web.test\r\n",
	"From: Ana <ana@web.test>\r\n",
	"From: \"My Shop, Ltd.\" <ana@web.test>\r\n",
	"From: \"Ana \\\"A\\\" B\" <ana@web.test>\r\n",
	"From: =?UTF-8?Q?J=C3=BCrgen?= <ana@web.test>\r\n",
	"From: J\xfcrgen <ana@web.test>\r\n",
	"From: Jürgen <jürgen@web.test>\r\n",
	"From:\r\n Ana\r\n <ana@web.test>\r\n",
	"From: " + strings.Repeat("a", 980) + " <x@web.test>\r\n",
	"From: " + strings.Repeat("aaaa ", 1000) + " <x@web.test>\r\n",
	"From: Ana <ana@web.test>, Bob <bob@web.test>\r\n",
	"From: The team: ana@web.test, bob@web.test;\r\nSender: ana@web.test\r\n",
	"From: ana@web.test (Ana)\r\n",
	"From: ana@web.test\r\nReply-To: bob@web.test\r\n",
	"From: ana@web.test\r\nReply-To: \r\n",
	"Sender: www-data@web.test\r\nFrom: ana@web.test\r\n",
	"Sender: Shop@Example.com\r\nFrom: ana@web.test\r\n",
	"From: Our Shop <Shop@example.com>\r\n",
	"From: Our Shop <Shop@example.com>\r\nSender: www-data@web.test\r\n",
	"Resent-From: bob@web.test\r\nResent-To: c@web.test\r\nFrom: ana@web.test\r\n",
}

// TestConvertFromAsForced: a relay's From makes of a stored message what a server's makes
// of it at the door, for every kind of sender.
func TestConvertFromAsForced(t *testing.T) {
	const rest = "To: d@web.test\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\n\r\nx\r\n"
	for _, header := range finishedMessages {
		raw := []byte(header + rest)
		stored, err := Finish(t.Context(), raw, FinishOptions{})
		if err != nil {
			t.Fatalf("Finish(%q): %v", header, err)
		}
		want, err := Finish(t.Context(), raw, FinishOptions{ForceFrom: relaysFrom})
		if err != nil {
			t.Fatalf("Finish(%q) with ForceFrom: %v", header, err)
		}
		got, err := Convert(t.Context(), stored.Content, Form{From: relaysFrom}, nil)
		if err != nil || !slices.Equal(fieldsOf(got.Data), fieldsOf(want.Content.Data)) {
			t.Errorf("Convert(%q) = %v\n%s\nwant\n%s", header, err, got.Data, want.Content.Data)
		}
		checkContent(t, got)
		again, err := Convert(t.Context(), got, Form{From: relaysFrom}, nil)
		if err != nil || &again.Data[0] != &got.Data[0] {
			t.Errorf("Convert(%q) = %q, %v, want it unchanged", got.Data, again.Data, err)
		}
	}
}

// fieldsOf returns the unfolded fields of the header section, sorted: the order of what
// Compose writes is its own.
func fieldsOf(data []byte) []string {
	header, _ := splitContent(data)
	fields := strings.Split(strings.TrimSuffix(strings.NewReplacer("\r\n ", " ", "\r\n\t", " ").Replace(string(header)), "\r\n"), "\r\n")
	for i, field := range fields {
		fields[i] = strings.Join(strings.Fields(field), " ")
	}
	slices.Sort(fields)
	return fields
}

// TestConvertFromComposed does the same for messages in parts.
func TestConvertFromComposed(t *testing.T) {
	ana, bob := mailer.Address{Name: "Jürgen Ä.", Email: "ana@web.test"}, mailer.Address{Email: "bob@web.test"}
	for name, m := range map[string]mailer.Message{
		"name":     {From: ana},
		"no name":  {From: bob},
		"reply-to": {From: ana, ReplyTo: []mailer.Address{bob}},
		"same":     {From: mailer.Address{Name: "Ana", Email: "SHOP@example.com"}},
		"sender":   {From: ana, Sender: bob},
		"own":      {From: ana, Sender: relaysFrom},
	} {
		m.To, m.Text = []mailer.Address{bob}, "x"
		m.Header = []mailer.Field{{Name: "Message-ID", Value: "<a@b>"}, {Name: "Date", Value: "Mon, 2 Nov 2026 10:00:00 +0000"}}
		stored, err := composeAny(m)
		if err != nil {
			t.Fatal(err)
		}
		m.ForceFrom = relaysFrom
		want, err := composeAny(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Convert(t.Context(), stored.Content, Form{From: relaysFrom}, nil)
		if err != nil || name != "same" && !slices.Equal(fieldsOf(got.Data), fieldsOf(want.Content.Data)) {
			t.Errorf("%s: Convert() = %v\n%s\nwant\n%s", name, err, got.Data, want.Content.Data)
		}
		if name == "same" && &got.Data[0] != &stored.Content.Data[0] {
			t.Errorf("%s: Convert() = %s, want it unchanged", name, got.Data)
		}
	}
}

// TestConvertFromMissing: stored messages have one From. Of what else there may be, the
// form has one.
func TestConvertFromMissing(t *testing.T) {
	for header, want := range map[string]string{
		"To: d@web.test\r\n":                             "To: d@web.test\r\nFrom: Relay <shop@example.com>\r\n",
		"From: Ana <a@web.test>\r\nFrom: b@web.test\r\n": "From: Ana <shop@example.com>\r\nReply-To: Ana <a@web.test>\r\n",
		"From: shop@example.com\r\nFrom: b@web.test\r\n": "From: Relay <shop@example.com>\r\nReply-To: shop@example.com\r\n",
		"From: nobody\r\n":                               "From: Relay <shop@example.com>\r\nReply-To: nobody\r\n",
	} {
		c := mailer.Content{Data: []byte(header + "\r\nx\r\n")}
		got, err := Convert(t.Context(), c, Form{From: relaysFrom}, nil)
		if err != nil || string(got.Data) != want+"\r\nx\r\n" {
			t.Errorf("Convert(%q) = %q, %v, want %q", header, got.Data, err, want)
		}
	}
}

// TestConvertFromSigned: the signature of another keeps the message as it is; one of the
// body alone does not.
func TestConvertFromSigned(t *testing.T) {
	for header, refused := range map[string]bool{
		"DKIM-Signature: v=1; h=to; b=x\r\nFrom: ana@web.test\r\n":                                               true,
		"DKIM-Signature: v=1; h=from; b=x\r\nFrom: shop@example.com\r\nSender: ana@web.test\r\n":                 true,
		"DKIM-Signature: v=1; h=from; b=x\r\nFrom: Shop@example.com\r\n":                                         false,
		"From: ana@web.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n":              false,
		"From: ana@web.test\r\nMIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=signed\r\n": false,
	} {
		c := mailer.Content{Data: []byte(header + "\r\n--b\r\n\r\nx\r\n--b--\r\n")}
		_, err := Convert(t.Context(), c, Form{From: relaysFrom}, nil)
		failure, _ := errors.AsType[*mailer.Failure](err)
		if !refused && err != nil {
			t.Errorf("Convert(%q) = %v", header, err)
		}
		if refused && (failure == nil || failure.Class != mailer.ClassPermanent || failure.Reply.Enhanced != "5.6.2" || !strings.Contains(failure.Text, "SMTP_FORCE_FROM")) {
			t.Errorf("Convert(%q) = %v, want a refusal with 5.6.2", header, err)
		}
	}
}

// TestConvertInOrder: all conversions at once make the octets that they make one after the
// other.
func TestConvertInOrder(t *testing.T) {
	files, err := filepath.Glob(goldenDir + "/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden messages: %v", err)
	}
	messages := map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		messages[filepath.Base(file)] = raw
	}
	for _, header := range finishedMessages {
		messages[header] = []byte(header + "To: ü@web.test\r\nSubject: x\r\n\r\ngrüße\r\n")
	}
	for name, raw := range messages {
		c, err := Finish(t.Context(), raw, FinishOptions{To: []mailer.Address{{Email: "x@example.org"}}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkInOrder(t, name, c.Content)
	}
}

// checkInOrder compares Convert with its steps.
func checkInOrder(t *testing.T, what string, c mailer.Content) {
	t.Helper()
	for _, f := range []Form{
		{From: relaysFrom},
		{From: relaysFrom, ASCIIHeader: true},
		{From: relaysFrom, SevenBit: true},
		{ASCIIHeader: true, SevenBit: true},
		{From: relaysFrom, ASCIIHeader: true, SevenBit: true},
	} {
		want, wantErr := inSteps(t.Context(), c, f)
		got, err := Convert(t.Context(), c, f, nil)
		if (err == nil) != (wantErr == nil) && !isTooMuch(err) {
			t.Errorf("%s: Convert(%+v) = %v, step by step %v", what, f, err, wantErr)
		}
		if err != nil || wantErr != nil {
			continue
		}
		if !bytes.Equal(got.Data, want.Data) || got.UTF8Header != want.UTF8Header || got.EightBit != want.EightBit {
			t.Errorf("%s: Convert(%q, %+v) =\n%q, step by step\n%q", what, c.Data, f, got.Data, want.Data)
		}
		checkContent(t, got)
		checkGrowth(t, "Convert", c.Data, got)
		if got.EightBit && f.SevenBit || got.UTF8Header && f.ASCIIHeader {
			t.Errorf("%s: Convert(%q, %+v) = %q", what, c.Data, f, got.Data)
		}
	}
}

// isTooMuch reports whether the limits of all conversions together were met, which are
// lower than those of each.
func isTooMuch(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "four times") || strings.Contains(err.Error(), "so large"))
}

func inSteps(ctx context.Context, c mailer.Content, f Form) (mailer.Content, error) {
	c, err := Convert(ctx, c, Form{From: f.From}, nil)
	if err == nil && f.ASCIIHeader {
		c, err = ASCIIHeader(ctx, c, nil)
	}
	if err == nil && f.SevenBit {
		c, err = SevenBit(ctx, c, nil)
	}
	return c, err
}

// TestConvertSigns: what was changed is signed, once, as it goes out; what was not is not.
func TestConvertSigns(t *testing.T) {
	const signature = "DKIM-Signature: v=1;\r\n b=x\r\n"
	c := mailer.Content{Data: []byte("From: ana@web.test\r\n\r\nx\r\n"), MessageID: "<a@b>"}
	plain, err := Convert(t.Context(), c, Form{From: relaysFrom}, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat(signature, signatureRoom/len(signature)+1)
	failing := errors.New("no key")
	for name, tc := range map[string]struct {
		form   Form
		fields string
		err    error
		want   string
	}{
		"changed":   {Form{From: relaysFrom}, signature, nil, signature + string(plain.Data)},
		"long":      {Form{From: relaysFrom}, long, nil, long + string(plain.Data)},
		"no key":    {Form{From: relaysFrom}, "", nil, string(plain.Data)},
		"unchanged": {Form{From: mailer.Address{Email: "ana@web.test"}, SevenBit: true}, signature, failing, string(c.Data)},
		"error":     {Form{From: relaysFrom}, signature, failing, ""},
		"no field":  {Form{From: relaysFrom}, "DKIM-Signature: v=1", nil, ""},
		"not ASCII": {Form{From: relaysFrom}, "DKIM-Signature: ü\r\n", nil, ""},
	} {
		calls := 0
		tc.form.Sign = func(_ context.Context, signed mailer.Content) ([]byte, error) {
			if calls++; !bytes.Equal(signed.Data, plain.Data) || signed.MessageID != c.MessageID {
				t.Errorf("%s: Sign(%q)", name, signed.Data)
			}
			return []byte(tc.fields), tc.err
		}
		got, err := Convert(t.Context(), c, tc.form, nil)
		if _, isSign := errors.AsType[*SignError](err); string(got.Data) != tc.want || (err != nil) != (tc.want == "") || isSign != (err != nil) {
			t.Errorf("%s: Convert() = %q, %v, want %q", name, got.Data, err, tc.want)
		}
		if wantCalls := 1; name != "unchanged" && calls != wantCalls || name == "unchanged" && calls > 0 {
			t.Errorf("%s: signed %d times", name, calls)
		}
	}
}

package compose

import (
	"errors"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// headerSection is the header of a content.
func headerSection(c Composed) string {
	header, _ := splitContent(c.Content.Data)
	return string(header)
}

// TestForceFrom: whatever a finished message has for a sender, the forced one takes its
// place, and replies go where they would have gone.
func TestForceFrom(t *testing.T) {
	force := mailer.Address{Name: "Relay", Email: "shop@example.com"}
	for name, tc := range map[string]struct {
		header  string
		options FinishOptions
		want    []string // lines of the header
		without []string // names of fields
		path    string   // the reverse-path
	}{
		"address":       {"From: www-data@web.test\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>", "Reply-To: www-data@web.test"}, nil, "shop@example.com"},
		"name":          {"From: Ana <ana@web.test>\r\n", FinishOptions{}, []string{"From: Ana <shop@example.com>", "Reply-To: Ana <ana@web.test>"}, nil, "shop@example.com"},
		"comma":         {"From: \"My Shop, Ltd.\" <ana@web.test>\n", FinishOptions{}, []string{`From: "My Shop, Ltd." <shop@example.com>`, `Reply-To: "My Shop, Ltd." <ana@web.test>`}, nil, "shop@example.com"},
		"encoded-word":  {"From: =?UTF-8?Q?J=C3=BCrgen?= <ana@web.test>\r\n", FinishOptions{}, []string{"From: =?utf-8?q?J=C3=BCrgen?= <shop@example.com>", "Reply-To: =?UTF-8?Q?J=C3=BCrgen?= <ana@web.test>"}, nil, "shop@example.com"},
		"raw":           {"From: J\xfcrgen <ana@web.test>\r\n", FinishOptions{}, []string{"From: =?utf-8?q?J=C3=BCrgen?= <shop@example.com>", "Reply-To: =?iso-8859-1?q?J=FCrgen?= <ana@web.test>"}, nil, "shop@example.com"},
		"folded":        {"From:\r\n Ana\r\n <ana@web.test>\r\n", FinishOptions{}, []string{"From: Ana <shop@example.com>", " <ana@web.test>"}, nil, "shop@example.com"},
		"long":          {"From: " + strings.Repeat("a", 980) + " <x@web.test>\r\n", FinishOptions{}, []string{"Reply-To:", " <x@web.test>"}, nil, "shop@example.com"},
		"very long":     {"From: " + strings.Repeat("aaaa ", 1000) + " <x@web.test>\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>", "Reply-To: x@web.test"}, nil, "shop@example.com"},
		"two authors":   {"From: Ana <ana@web.test>, Bob <bob@web.test>\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>", "Reply-To: Ana <ana@web.test>, Bob <bob@web.test>"}, nil, "shop@example.com"},
		"reply-to":      {"From: ana@web.test\r\nReply-To: bob@web.test\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>", "Reply-To: bob@web.test"}, nil, "shop@example.com"},
		"empty":         {"From: ana@web.test\r\nReply-To: \r\n", FinishOptions{}, []string{"Reply-To: ana@web.test"}, nil, "shop@example.com"},
		"sender":        {"Sender: www-data@web.test\r\nFrom: ana@web.test\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>"}, []string{"Sender"}, "shop@example.com"},
		"own sender":    {"Sender: Shop@Example.com\r\nFrom: ana@web.test\r\n", FinishOptions{}, []string{"Sender: Shop@Example.com"}, nil, "shop@example.com"},
		"same":          {"From: Our Shop <Shop@example.com>\r\n", FinishOptions{}, []string{"From: Our Shop <Shop@example.com>"}, []string{"Reply-To"}, "shop@example.com"},
		"same, signed":  {"DKIM-Signature: v=1; h=from; b=x\r\nFrom: shop@example.com\r\n", FinishOptions{}, []string{"From: shop@example.com"}, []string{"Reply-To"}, "shop@example.com"},
		"envelope":      {"From: ana@web.test\r\n", FinishOptions{From: mailer.Address{Email: "bounces@web.test"}}, []string{"From: Relay <shop@example.com>"}, nil, "shop@example.com"},
		"null":          {"From: ana@web.test\r\n", FinishOptions{NullFrom: true}, []string{"From: Relay <shop@example.com>"}, nil, ""},
		"resent":        {"Resent-From: bob@web.test\r\nResent-To: c@web.test\r\nFrom: ana@web.test\r\n", FinishOptions{}, []string{"Resent-From: bob@web.test", "From: Relay <shop@example.com>"}, nil, "shop@example.com"},
		"signed within": {"From: ana@web.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n", FinishOptions{}, []string{"From: Relay <shop@example.com>"}, nil, "shop@example.com"},
	} {
		tc.options.ForceFrom = force
		got, err := Finish(t.Context(), []byte(tc.header+"To: d@web.test\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"), tc.options)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		header := "\r\n" + headerSection(got)
		for _, line := range tc.want {
			if !strings.Contains(header, "\r\n"+line) {
				t.Errorf("%s: the header is\n%s\nwant %s", name, header, line)
			}
		}
		for _, field := range tc.without {
			if strings.Contains(header, "\r\n"+field+":") {
				t.Errorf("%s: the header is\n%s\nwant no %s", name, header, field)
			}
		}
		if strings.Count(header, "\r\nFrom:") != 1 || strings.Count(header, "\r\nReply-To:") > 1 {
			t.Errorf("%s: the header is\n%s", name, header)
		}
		if got.Envelope.ReversePath != tc.path || got.Sender != force.Email || got.Authors[0] == force.Email && !strings.HasPrefix(name, "same") {
			t.Errorf("%s: envelope %v, sender %s, authors %v", name, got.Envelope, got.Sender, got.Authors)
		}
		if !strings.HasSuffix(got.Content.MessageID, "@example.com>") {
			t.Errorf("%s: Message-ID %s", name, got.Content.MessageID)
		}
	}
}

// TestForceFromSigned: what would break a signature is refused, with the setting.
func TestForceFromSigned(t *testing.T) {
	for _, header := range []string{
		"DKIM-Signature: v=1; h=from:to; b=x\r\nFrom: ana@web.test\r\n",
		"DKIM-Signature: v=1; h=to; b=x\r\nFrom: ana@web.test\r\nReply-To: bob@web.test\r\n",
		"DKIM-Signature: v=1; h=from:sender; b=x\r\nFrom: shop@example.com\r\nSender: ana@web.test\r\n",
	} {
		_, err := Finish(t.Context(), []byte(header+"To: d@web.test\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\n\r\nx\r\n"),
			FinishOptions{ForceFrom: mailer.Address{Email: "shop@example.com"}})
		failure, ok := errors.AsType[*mailer.Failure](err)
		if !ok || failure.Class != mailer.ClassPermanent || !strings.Contains(failure.Text, "MAILSIDECAR_FORCE_FROM") {
			t.Errorf("Finish(%q) = %v, want a refusal", header, err)
		}
	}
}

// TestForceFromComposed does the same for a message in parts.
func TestForceFromComposed(t *testing.T) {
	force := mailer.Address{Name: "Relay", Email: "shop@example.com"}
	ana, bob := mailer.Address{Name: "Ana", Email: "ana@web.test"}, mailer.Address{Email: "bob@web.test"}
	for name, tc := range map[string]struct {
		message mailer.Message
		want    []string
		without []string
		path    string
	}{
		"name":        {mailer.Message{From: ana}, []string{"From: Ana <shop@example.com>", "Reply-To: Ana <ana@web.test>"}, []string{"Sender"}, "shop@example.com"},
		"no name":     {mailer.Message{From: bob}, []string{"From: Relay <shop@example.com>", "Reply-To: bob@web.test"}, nil, "shop@example.com"},
		"reply-to":    {mailer.Message{From: ana, ReplyTo: []mailer.Address{bob}}, []string{"Reply-To: bob@web.test"}, nil, "shop@example.com"},
		"same":        {mailer.Message{From: mailer.Address{Name: "Ana", Email: "SHOP@example.com"}}, []string{"From: Ana <shop@example.com>"}, []string{"Reply-To"}, "shop@example.com"},
		"sender":      {mailer.Message{From: ana, Sender: bob}, nil, []string{"Sender"}, "shop@example.com"},
		"own sender":  {mailer.Message{From: ana, Sender: force}, []string{"Sender: Relay <shop@example.com>"}, nil, "shop@example.com"},
		"return path": {mailer.Message{From: ana, ReturnPath: "bounces@web.test"}, nil, nil, "shop@example.com"},
		"null":        {mailer.Message{From: ana, ReturnPath: "<>"}, nil, nil, ""},
	} {
		tc.message.To, tc.message.Text, tc.message.ForceFrom = []mailer.Address{bob}, "x", force
		got, err := composeAny(tc.message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		header := "\r\n" + headerSection(got)
		for _, line := range tc.want {
			if !strings.Contains(header, "\r\n"+line+"\r\n") {
				t.Errorf("%s: the header is\n%s\nwant %s", name, header, line)
			}
		}
		for _, field := range tc.without {
			if strings.Contains(header, "\r\n"+field+":") {
				t.Errorf("%s: the header is\n%s\nwant no %s", name, header, field)
			}
		}
		if got.Envelope.ReversePath != tc.path || got.Sender != force.Email || !strings.EqualFold(got.Authors[0], tc.message.From.Email) || !strings.HasSuffix(got.Content.MessageID, "@example.com>") {
			t.Errorf("%s: envelope %v, sender %s, authors %v, id %s", name, got.Envelope, got.Sender, got.Authors, got.Content.MessageID)
		}
	}
}

package relays

import (
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// TestFindReply has the forms in which people have a reply.
func TestFindReply(t *testing.T) {
	const want = "550 5.7.1 Daily SMTP relay limit exceeded for customer."
	for _, tt := range []struct {
		text, reply, stage string
		guessed            bool
	}{
		{want, want, "content", true},
		{"  " + want + "\n", want, "content", true},
		{"550-5.7.1 Daily SMTP relay limit exceeded\n550 5.7.1 for customer.", want, "content", true},
		{"550-5.7.1 Daily SMTP relay limit exceeded\r\n550 5.7.1 for customer.\r\n", want, "content", true},
		{"550-5.7.1 Daily SMTP relay limit exceeded 550 5.7.1 for customer.", want, "content", true},
		{`550-5.7.1 Daily SMTP relay limit exceeded\r\n550 5.7.1 for customer.\r\n`, want, "content", true},
		{"Nov 30 07:19:22 mx postfix/smtp[550]: 4Wy9: to=<a@example.org>, relay=smtp-relay.gmail.com[192.0.2.1]:587, delay=3.3, dsn=5.7.1, status=bounced (host smtp-relay.gmail.com[192.0.2.1] said: 550-5.7.1 Daily SMTP relay limit exceeded 550 5.7.1 for customer. (in reply to end of DATA command))", want, "content", false},
		{"host mx.example.com[192.0.2.1] said: 550 5.1.1 <a@example.org>: Recipient address rejected: User unknown (in reply to RCPT TO command)", "550 5.1.1 <a@example.org>: Recipient address rejected: User unknown", "rcpt", false},
		{"SMTP error from remote mail server after RCPT TO:<a@example.org>: 550 5.1.1 no such user", "550 5.1.1 no such user", "rcpt", false},
		{"SMTP error: 554 5.7.1 no", "554 5.7.1 no", "content", true},
		{"Error: Mail command failed: 501 mail from address must be same as authorization user", "501 mail from address must be same as authorization user", "mail", false},
		{"smtplib.SMTPAuthenticationError: (535, b'5.7.8 Username and Password not accepted. x - gsmtp')", "535 5.7.8 Username and Password not accepted. x - gsmtp", "auth", false},
		{"SMTPDataError: (550, b'5.4.5 Daily user sending quota exceeded. x - gsmtp')", "550 5.4.5 Daily user sending quota exceeded. x - gsmtp", "content", false},
		{`Expected response code 250 but got code "550", with message "550 5.4.6 Unusual sending activity detected."`, "550 5.4.6 Unusual sending activity detected.", "content", true},
		{`time=2026-11-30T07:19:22Z level=INFO msg=bounced id=x forward_path=a@example.org relay=main attempt=1 code=550 enhanced_code=5.7.1 text="Daily SMTP relay limit exceeded for customer." class=permanent stage=content`, want, "content", false},
		{`{"time":"2026-11-30T07:19:22Z","level":"INFO","msg":"bounced","code":550,"enhanced_code":"5.7.1","text":"Daily SMTP relay limit exceeded for customer.","stage":"content"}`, want, "content", false},
		{`{"id":"x","status":"failed","recipients":[{"email":"a@example.org","state":"bounced","reply_code":550,"enhanced_code":"5.7.1","text":"Daily SMTP relay limit exceeded for customer.","stage":"rcpt"}]}`, want, "rcpt", false},
		{"421", "421", "mail", true},
		{"454 4.7.0 Too many login attempts, please try again later.", "454 4.7.0 Too many login attempts, please try again later.", "auth", true},
		{"454 Throttling failure: Maximum sending rate exceeded.", "454 Throttling failure: Maximum sending rate exceeded.", "content", true},
		{"254 4.7.1 Suppression for user a to b", "254 4.7.1 Suppression for user a to b", "rcpt", true},
		{"SMTP Error: data not accepted.SMTP server error: DATA END command failed Detail: Message rejected: Email address is not verified. SMTP code: 554 Additional SMTP info:", "554 Message rejected: Email address is not verified.", "content", false},
		{"SMTP Error: data not accepted.SMTP server error: DATA END command failed Detail: 5.7.1 Spam message rejected SMTP code: 550", "550 5.7.1 Spam message rejected", "content", false},
		{"SMTP server error: RCPT TO command failed Detail: User unknown SMTP code: 550 Additional SMTP info: 5.1.1", "550 5.1.1 User unknown", "rcpt", false},
		{"SMTP server error: DATA command failed Detail: no SMTP code: 554", "554 no", "data", false},
		{"The following From address failed: shop@example.org : MAIL FROM command failed,Sender address rejected: not owned by user,553,5.7.1", "553 5.7.1 Sender address rejected: not owned by user", "mail", false},
		{"550 5.1.1 no account (x@yahoo.com)", "550 5.1.1 no account (x@yahoo.com)", "rcpt", true},
		{"x (host mx.example.org said: 550 5.1.1 no account (x@yahoo.com))", "550 5.1.1 no account (x@yahoo.com)", "rcpt", true},
		{"503 AUTH command used when not advertised", "503 AUTH command used when not advertised", "auth", true},
		{"550 Unrouteable address", "550 Unrouteable address", "rcpt", true},
		{"07:19:22 550 Unrouteable address", "550 Unrouteable address", "rcpt", true},
		{"rcpt: 452 4.2.2 The mailbox is full", "452 4.2.2 The mailbox is full", "rcpt", false},
	} {
		p, ok := FindReply(tt.text)
		if !ok || p.Reply.String() != tt.reply || p.Stage.String() != tt.stage || p.Guessed != tt.guessed {
			t.Errorf("FindReply(%s) = %q at %s (guessed %v), %v, want %q at %s (guessed %v)", tt.text, p.Reply, p.Stage, p.Guessed, ok, tt.reply, tt.stage, tt.guessed)
		}
	}
	for _, text := range []string{
		"", "hello", "250 2.0.0 Ok", "connect to mx.example.com[192.0.2.1]:25: Connection timed out", "port 443 is closed",
		"2025-10-05 19:22:44 started", "took 450ms", "{}", `{"code":"rejected"}`, `{"code":550`, "id 1550 x", "[550]", "5.5.0 x",
		"order 550 was placed", "invoice 4500 for 421 euro", "4500 421 euro", "SMTP Error: Could not authenticate.", "Detail: x SMTP code: 0", "x command failed,550",
	} {
		if p, ok := FindReply(text); ok {
			t.Errorf("FindReply(%s) = %q, want none", text, p.Reply)
		}
	}
}

// TestFindNoCount: a number of things is no reply, and a reply that begins with a noun is
// one.
func TestFindNoCount(t *testing.T) {
	for text, want := range map[string]bool{
		"550 orders": false, "550 orders were placed": false, " 421 items in the cart": false, "500 users": false,
		"550 access denied": true, "550 relays are not allowed": true, "550 addresses rejected": true, "550 blocked": true, "550": true,
		"550 5.7.1 orders": true, "550 messages exceed the limit": true, "550 administrative prohibition": true, "said: 550 orders": true,
	} {
		if p, ok := FindReply(text); ok != want {
			t.Errorf("FindReply(%q) = %q, %v, want %v", text, p.Reply, ok, want)
		}
	}
	for _, row := range readCorpus(t) {
		if _, ok := FindReply(row.reply.String()); !ok {
			t.Errorf("replies.tsv:%d: FindReply(%s) finds none", row.line, row.reply)
		}
	}
}

// FuzzFindReply: any text is read without a panic, and what is found is a refusal of
// limited length, at a stage of the dialogue.
func FuzzFindReply(f *testing.F) {
	for _, row := range readCorpus(f) {
		f.Add("said: " + row.reply.String() + " (in reply to RCPT TO command)")
	}
	f.Add(`{"recipients":[{"code":550,"text":"x"}]}`)
	f.Add(`code=550 text="x`)
	f.Add("550-5.7.1 a\n550 5.7.1 b")
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := FindReply(text)
		if ok && (!isRefusal(p.Reply.Code) || len(p.Reply.Text) > maxText+3 || p.Stage == mailer.StageCompose) {
			t.Errorf("FindReply(%q) = %+v", text, p)
		}
	})
}

// TestFindRelay: the host of a relay in the line tells whose rules count.
func TestFindRelay(t *testing.T) {
	for line, want := range map[string]string{
		"to=<a@example.org>, relay=smtp.ionos.de[192.0.2.1]:587, status=bounced (host smtp.ionos.de[192.0.2.1] said: 550 no)": "smtp.ionos.de",
		`{"relay":"smtp.ionos.de","code":550,"text":"no"}`:                                                                    "smtp.ionos.de",
		"host SMTP.gmail.com. said: 550 no":                                                                                   "smtp.gmail.com",
		"relay=mx.example.org[192.0.2.1] said: 550 no":                                                                        "",
	} {
		if p, ok := FindReply(line); !ok || p.Host != want {
			t.Errorf("FindReply(%s) is of %q, %v, want %q", line, p.Host, ok, want)
		}
	}
}

// TestJudgedWords: what is said of an address is not taken for something else.
func TestJudgedWords(t *testing.T) {
	for _, tt := range []struct{ reply, verdict, cause string }{
		{"550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces.", "permanent", "no such recipient"},
		{"550 The email account that you tried to reach has typos or unnecessary spaces: not found", "permanent", "no such recipient"},
		{"552 The recipient's mailbox has not enough disk space", "permanent", "full"},
		{"452 4.2.2 recipient mailbox: out of space", "retry", "full"},
		{"550 Unrouteable address", "permanent", "no such recipient"},
		{"550 No such person at this address", "permanent", "no such recipient"},
		{"550 5.7.515 Access denied, sending domain EXAMPLE.ORG doesn't meet the required authentication level", "sender", "SPF"},
		{"501 5.1.7 Bad sender address", "sender", "sender's address"},
		{"503 AUTH command used when not advertised", "login", "offers no login"},
		{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.", "login", "tenant"},
	} {
		p, ok := FindReply(tt.reply)
		j := Judge("", p.Stage, p.Reply, time.Time{})
		if !ok || j.Verdict.String() != tt.verdict || !strings.Contains(j.Cause, tt.cause) {
			t.Errorf("Judge(%s at %s) = %s: %s, want %s: …%s…", tt.reply, p.Stage, j.Verdict, j.Cause, tt.verdict, tt.cause)
		}
	}
}

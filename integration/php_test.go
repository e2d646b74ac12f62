package integration

import (
	"bytes"
	"fmt"
	"mime"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
)

// drop is a machine on which mailsidecar is sendmail: a program of that name, a
// running server and a real Postfix behind it.
type drop struct {
	relay *postfix.Server
	// sendmail is the path of the program, and env what its callers are given.
	sendmail string
	env      environment
}

// TestSendmail runs the programs that run sendmail: with a link to mailsidecar,
// and with the program that is sendmail alone.
func TestSendmail(t *testing.T) {
	t.Parallel()
	relay := postfix.Start(t)
	for name, install := range map[string]func(*testing.T) string{
		"link":  linkedSendmail,
		"alone": func(t *testing.T) string { return sendmailAlone(t, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, withKey(stored(t, relay, relay.Submission)))
			testDrop(t, &drop{relay, install(t), environment{
				"MAILSIDECAR_URL": server.url, "MAILSIDECAR_API_KEY": testKey, "MAILSIDECAR_FROM": "app@example.com",
				"PATH": os.Getenv("PATH"), "HOME": t.TempDir(), "LC_ALL": "C.UTF-8",
			}})
		})
	}
}

func linkedSendmail(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "sendmail")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// sendmailAlone builds the small program into dir, with further flags of the linker.
func sendmailAlone(t *testing.T, dir string, ldflags ...string) string {
	t.Helper()
	path := filepath.Join(dir, "sendmail")
	buildReleased(t, path, "mailsidecar/cmd/sendmail", ldflags...)
	return path
}

// TestSendmailSize holds the small program to its size, for each image of an
// application has one.
func TestSendmailSize(t *testing.T) {
	t.Parallel()
	const limit = 8_000_000 // octets
	info, err := os.Stat(sendmailAlone(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > limit {
		t.Errorf("cmd/sendmail has %d octets, want at most %d", info.Size(), limit)
	}
}

func testDrop(t *testing.T, d *drop) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *drop)
	}{
		{"mail()", testPHPMail},
		{"mail() with fields made by hand", testPHPMailByHand},
		{"mail() refused", testPHPMailRefused},
		{"mail() with injected options", testPHPMailInjected},
		{"mb_send_mail()", testPHPMbSendMail},
		{"PHPMailer", testPHPMailer},
		{"Symfony", testSymfony},
		{"cron", testCron},
		{"git send-email", testGitSendEmail},
		{"mutt", testMutt},
		{"mailq", testMailq},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, d) })
	}
}

// needs skips the test where one of the files or programs is missing, unless
// CI=true.
func needs(t *testing.T, names ...string) {
	t.Helper()
	machine.Needs(t, "scripts/install-php-deps", names...)
}

// php runs code with mail() going to the link, and returns what it prints on
// both channels.
func (d *drop) php(t *testing.T, code string, options ...string) (stdout, stderr string) {
	t.Helper()
	needs(t, "php")
	args := []string{"-d", "sendmail_path=" + d.sendmail + " -t -i", "-d", "display_errors=stderr"}
	cmd := exec.Command("php", append(append(args, options...), "-r", code)...)
	cmd.Env = d.env.list()
	cmd.Dir = t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("php: %v\n%s\n%s", err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// testPHPMail: header fields with LF in a message whose own ends are CRLF, raw
// UTF-8 in To and Subject, an envelope sender, Bcc.
func testPHPMail(t *testing.T, d *drop) {
	to, bcc := d.relay.Recipient(t), d.relay.Recipient(t)
	out, errs := d.php(t, fmt.Sprintf(
		`var_dump(mail("Jörg Žák <%s>", "Grüße – Bestellung", "Hällo\n.dot\n.\nend\n", "From: Shop <shop@example.com>\nBcc: %s\nX-Order: 42\nContent-Type: text/plain; charset=utf-8", "-fbounce@example.com"));`, to, bcc))
	if out != "bool(true)\n" || errs != "" {
		t.Fatalf("mail() = %q, %q, want true and silence", out, errs)
	}
	for _, recipient := range []string{to, bcc} {
		got := d.relay.Await(t, recipient, 1)[0]
		m := message(t, got.Data)
		for name, want := range map[string]string{
			"To": "Jörg Žák <" + to + ">", "Subject": "Grüße – Bestellung", "From": "Shop <shop@example.com>", "X-Order": "42", "Bcc": "",
		} {
			if decoded, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name)); err != nil || decoded != want {
				t.Errorf("%s = %q (%v), want %q", name, decoded, err, want)
			}
		}
		if got.ReturnPath != "bounce@example.com" || m.Header.Get("Date") == "" || m.Header.Get("Message-Id") == "" {
			t.Errorf("Return-Path = %q, Date = %q, Message-ID = %q", got.ReturnPath, m.Header.Get("Date"), m.Header.Get("Message-Id"))
		}
		body := string(decode(t, m.Header.Get("Content-Transfer-Encoding"), m.Body))
		if body = strings.ReplaceAll(body, "\r", ""); !strings.HasPrefix(body, "Hällo\n.dot\n.\nend\n") {
			t.Errorf("body = %q", body)
		}
	}
	out, errs = d.php(t, fmt.Sprintf(`var_dump(mail("%s", "Array", "x", ["From" => "shop@example.com", "Cc" => "%s"]));`, to, bcc))
	if out != "bool(true)\n" || errs != "" {
		t.Errorf("mail() with an array = %q, %q, want true and silence", out, errs)
	}
	d.relay.Await(t, bcc, 2)
}

// testPHPMailByHand: address fields as people write them reach whom they name and say
// what they mean, and a CR in what a visitor wrote adds no recipient.
func testPHPMailByHand(t *testing.T, d *drop) {
	to, cc, eve := d.relay.Recipient(t), d.relay.Recipient(t), d.relay.Recipient(t)
	for i, test := range []struct{ to, subject, headers, from, warning string }{
		{to, "x", `From: My Shop, Ltd. <info@example.com>`, `"My Shop, Ltd." <info@example.com>`, ""},
		{"Doe, John <" + to + ">", "x", `From: Jörg, GmbH <info@example.com>\r\nReply-To: Doe, John <j@example.com>; b@example.com`, `Jörg, GmbH <info@example.com>`, ""},
		{to, `hi\rBcc: ` + eve, `From: info@example.com`, `info@example.com`, ""},
		{to, "x", `From: info@example.com\r\nX-Name: a\rBcc: ` + eve, `info@example.com`, ""},
		{to, "x", `From: info@example.com\r\nCc: me@example.com\rBcc: ` + eve, `info@example.com`, "is not a valid recipient address"},
		{to, "x", `From: info@example.com\r\nSender: www-data\r\nTo: ` + to + `\r\nSubject: y`, `info@example.com`, ""},
		{to + ", nobody@" + strings.Repeat("x", 64) + ".example", "x", `From: info@example.com`, `info@example.com`, "is not a valid recipient address: the domain is not valid"},
	} {
		out, errs := d.php(t, fmt.Sprintf(`var_dump(mail("%s", "%s", "x", "%s\r\nBcc: %s"));`, test.to, test.subject, test.headers, cc))
		if out != "bool(true)\n" || !strings.Contains(errs, test.warning) || test.warning == "" && errs != "" {
			t.Fatalf("mail() with %q = %q, %q, want true and %q", test.headers, out, errs, test.warning)
		}
		d.relay.Await(t, cc, i+1)
		found := false
		for _, got := range d.relay.Await(t, to, i+1) {
			header := message(t, got.Data).Header
			from, err := new(mime.WordDecoder).DecodeHeader(header.Get("From"))
			found = found || err == nil && from == test.from
			if len(header["Subject"]) != 1 || len(header["To"]) != 1 || header.Get("Bcc") != "" || header.Get("Sender") != "" {
				t.Errorf("header = %q", header)
			}
		}
		if !found {
			t.Errorf("no message is from %q", test.from)
		}
	}
	if got := d.relay.Mailbox(t, eve); len(got) > 0 {
		t.Errorf("%d messages reached the address behind a CR", len(got))
	}
}

// testPHPMailRefused: false, and one line for the web server's log.
func testPHPMailRefused(t *testing.T, d *drop) {
	const send = `var_dump(@mail("%s", "x", "x", "From: shop@example.com"));`
	out, errs := d.php(t, fmt.Sprintf(send, "unknown@"+postfix.Domain))
	if out != "bool(false)\n" || !strings.HasPrefix(errs, "mailsidecar sendmail: 550 5.1.1 <unknown@example.org>: ") {
		t.Errorf("mail() to an unknown recipient = %q, %q, want false and Postfix's 550", out, errs)
	}
	if out, _ := d.php(t, fmt.Sprintf(send, "")); out != "bool(false)\n" {
		t.Errorf("mail() to nobody = %q, want false", out)
	}
	down := *d
	down.env = d.env.with(environment{"MAILSIDECAR_URL": "http://" + freeAddr(t)})
	if out, errs := down.php(t, fmt.Sprintf(send, "a@example.org")); out != "bool(false)\n" || strings.Count(errs, "\n") != 1 {
		t.Errorf("mail() without a server = %q, %q, want false and one line", out, errs)
	}
}

// testPHPMailInjected: options that a visitor smuggles into the fifth argument of a
// careless program write no file (CVE-2016-10033).
func testPHPMailInjected(t *testing.T, d *drop) {
	to, dir := d.relay.Recipient(t), t.TempDir()
	out, errs := d.php(t, fmt.Sprintf(
		`var_dump(mail("%s", "x", "<?php", "From: shop@example.com", "-fa@example.com -X%s/evil.php -C%s/cf -OQueueDirectory=%s"));`, to, dir, dir, dir))
	if out != "bool(true)\n" || errs != "" {
		t.Errorf("mail() = %q, %q, want true and silence", out, errs)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files = %v, %v, want none", files, err)
	}
	d.relay.Await(t, to, 1)
}

func testPHPMbSendMail(t *testing.T, d *drop) {
	to := d.relay.Recipient(t)
	out, errs := d.php(t, fmt.Sprintf(`mb_language("uni"); var_dump(mb_send_mail("%s", "日本語の件名", "本文\n", "From: shop@example.com"));`, to))
	if out != "bool(true)\n" || errs != "" {
		t.Fatalf("mb_send_mail() = %q, %q, want true and silence", out, errs)
	}
	m := message(t, d.relay.Await(t, to, 1)[0].Data)
	if subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || subject != "日本語の件名" {
		t.Errorf("Subject = %q, %v", subject, err)
	}
	if body := string(decode(t, m.Header.Get("Content-Transfer-Encoding"), m.Body)); strings.TrimSpace(body) != "本文" {
		t.Errorf("body = %q", body)
	}
}

func testPHPMailer(t *testing.T, d *drop) {
	const library = "/usr/share/php/libphp-phpmailer/autoload.php"
	needs(t, library)
	for _, mailer := range []string{"isMail()", "isSendmail()"} {
		t.Run(mailer, func(t *testing.T) {
			to := d.relay.Recipient(t)
			out, errs := d.php(t, fmt.Sprintf(`require %q; $m = new PHPMailer\PHPMailer\PHPMailer(true); $m->%s; $m->Sendmail = %q; $m->CharSet = 'utf-8';
				$m->setFrom('shop@example.com', 'Šop'); $m->Sender = 'bounce@example.com'; $m->addAddress('%s', 'Žák'); $m->Subject = 'Číslo';
				$m->isHTML(); $m->Body = '<b>Ž</b>'; $m->AltBody = 'Ž'; $m->addStringAttachment("a\n.\nb", 'x.txt'); var_dump($m->send());`, library, mailer, d.sendmail, to))
			if out != "bool(true)\n" || errs != "" {
				t.Fatalf("send() = %q, %q, want true and silence", out, errs)
			}
			got := d.relay.Await(t, to, 1)[0]
			m := message(t, got.Data)
			parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
			if text := strings.TrimSpace(string(parts["text/plain"].data)); text != "Ž" || string(parts["x.txt"].data) != "a\n.\nb" {
				t.Errorf("text = %q, attachment = %q", text, parts["x.txt"].data)
			}
			if got.ReturnPath != "bounce@example.com" {
				t.Errorf("Return-Path = %q, want bounce@example.com", got.ReturnPath)
			}
		})
	}
}

// testSymfony: SMTP over a pipe, two messages in one process, and the way with
// recipients as arguments.
func testSymfony(t *testing.T, d *drop) {
	const library = "/usr/share/php/Symfony/Component/Mailer/autoload.php"
	needs(t, library)
	for _, options := range []string{"-bs", "-bs -i", "-t", "-t -i"} {
		t.Run(options, func(t *testing.T) {
			to, bcc := d.relay.Recipient(t), d.relay.Recipient(t)
			out, errs := d.php(t, fmt.Sprintf(`require %q; $m = new Symfony\Component\Mailer\Mailer(new Symfony\Component\Mailer\Transport\SendmailTransport('%s %s'));
				for ($i = 1; $i <= 2; $i++) $m->send((new Symfony\Component\Mime\Email())->from('shop@example.com')->returnPath('bounce@example.com')->to('%s')->bcc('%s')
					->subject("Číslo $i")->text("one\n.\n.two\nŽ\n"));
				try { $m->send((new Symfony\Component\Mime\Email())->from('shop@example.com')->to('unknown@example.org')->subject('x')->text('x')); }
				catch (Symfony\Component\Mailer\Exception\TransportExceptionInterface $e) { echo $e->getMessage(); }`, library, d.sendmail, options, to, bcc))
			for _, recipient := range []string{to, bcc} {
				for _, got := range d.relay.Await(t, recipient, 2) {
					m := message(t, got.Data)
					if got.ReturnPath != "bounce@example.com" || m.Header.Get("Bcc") != "" {
						t.Errorf("Return-Path = %q, Bcc = %q", got.ReturnPath, m.Header.Get("Bcc"))
					}
					if body := string(decode(t, m.Header.Get("Content-Transfer-Encoding"), m.Body)); strings.TrimRight(strings.ReplaceAll(body, "\r", ""), "\n") != "one\n.\n.two\nŽ" {
						t.Errorf("body = %q", body)
					}
				}
			}
			// With -t Symfony looks at the exit status alone, and does so since
			// version 6.
			if strings.HasPrefix(options, "-bs") && (!strings.Contains(out, "550 5.1.1") || errs != "") {
				t.Errorf("a refused recipient = %q, %q, want an exception with Postfix's 550", out, errs)
			}
		})
	}
}

// testCron gives what Debian's cron gives: a From without a domain, no Date.
func testCron(t *testing.T, d *drop) {
	to := d.relay.Recipient(t)
	cmd := exec.Command(d.sendmail, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", to)
	cmd.Env = d.env.list()
	cmd.Stdin = strings.NewReader("From: root (Cron Daemon)\nTo: " + to + "\nSubject: Cron <root@host> /bin/true\nMIME-Version: 1.0\n" +
		"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\nhotovo ž\n")
	if code, out := exitCode(t, cmd); code != 0 || out != "" {
		t.Fatalf("sendmail exits %d with %q, want 0 and silence", code, out)
	}
	m := message(t, d.relay.Await(t, to, 1)[0].Data)
	if from := m.Header.Get("From"); from != `"Cron Daemon" <app@example.com>` || m.Header.Get("Date") == "" || m.Header.Get("X-Cron-Env") == "" {
		t.Errorf("From = %q, Date = %q, X-Cron-Env = %q", from, m.Header.Get("Date"), m.Header.Get("X-Cron-Env"))
	}
}

func testGitSendEmail(t *testing.T, d *drop) {
	needs(t, "git", "/usr/lib/git-core/git-send-email", "/usr/share/perl5/Mail/Address.pm")
	to, cc, dir := d.relay.Recipient(t), d.relay.Recipient(t), t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = d.env.with(environment{
			"GIT_AUTHOR_NAME": "Jiří", "GIT_AUTHOR_EMAIL": "jiri@example.com", "GIT_COMMITTER_NAME": "Jiří", "GIT_COMMITTER_EMAIL": "jiri@example.com", "GIT_CONFIG_NOSYSTEM": "1",
		}).list()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "první")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("ž\n.\nFrom x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("add", "file")
	git("commit", "-q", "-m", "Add ž")
	git("send-email", "--smtp-server="+d.sendmail, "--from=jiri@example.com", "--to="+to, "--cc="+cc, "--confirm=never", "--quiet", "HEAD^")
	for _, recipient := range []string{to, cc} {
		got := d.relay.Await(t, recipient, 1)[0]
		m := message(t, got.Data)
		if subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || subject != "[PATCH] Add ž" {
			t.Errorf("Subject = %q, %v", subject, err)
		}
		if body := string(decode(t, m.Header.Get("Content-Transfer-Encoding"), m.Body)); !strings.Contains(strings.ReplaceAll(body, "\r", ""), "+ž\n+.\n+From x\n") {
			t.Errorf("the patch arrived changed: %q", body)
		}
	}
}

func testMutt(t *testing.T, d *drop) {
	needs(t, "mutt")
	to, bcc := d.relay.Recipient(t), d.relay.Recipient(t)
	cmd := exec.Command("mutt", "-n", "-F", "/dev/null", "-e", `set sendmail="`+d.sendmail+` -oem -oi", from="ana@example.com", use_envelope_from=yes, copy=no, sendmail_wait=0`,
		"-s", "Číslo", "-b", bcc, "--", to)
	cmd.Env = d.env.list()
	cmd.Stdin = strings.NewReader("Hello ž\n.\n")
	if code, out := exitCode(t, cmd); code != 0 {
		t.Fatalf("mutt exits %d: %s", code, out)
	}
	for _, recipient := range []string{to, bcc} {
		got := d.relay.Await(t, recipient, 1)[0]
		if got.ReturnPath != "ana@example.com" || strings.Contains(string(got.Data), bcc) {
			t.Errorf("Return-Path = %q, or the Bcc recipient is named: %q", got.ReturnPath, got.Data)
		}
	}
}

// testMailq: a message that the relay does not take yet is accepted, and shown.
func testMailq(t *testing.T, d *drop) {
	mailq := filepath.Join(t.TempDir(), "mailq")
	if err := os.Symlink(d.sendmail, mailq); err != nil {
		t.Fatal(err)
	}
	run := func(name, stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = d.env.list()
		cmd.Stdin = strings.NewReader(stdin)
		code, out := exitCode(t, cmd)
		if code != 0 {
			t.Errorf("%s exits %d, want 0: %s", filepath.Base(name), code, out)
		}
		return out
	}
	if out := run(mailq, ""); out != "Mail queue is empty\n" {
		t.Errorf("mailq = %q, want an empty queue", out)
	}
	if out := run(d.sendmail, "From: a@example.com\n\nx\n", postfix.Busy); out != "" {
		t.Errorf("sendmail to a busy mailbox prints %q, want silence: it is stored", out)
	}
	if out := run(mailq, ""); !strings.Contains(out, postfix.Busy+" (deferred) 450 4.2.1") || !strings.Contains(out, "a@example.com") {
		t.Errorf("mailq = %q, want the message with Postfix's 450", out)
	}
}

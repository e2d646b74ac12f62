package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/api/apitest"
	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
	"mailsidecar/integration/wordpress"
	"mailsidecar/mailer/relaytest"
)

// wordpressPlugin is the plugin under test.
const wordpressPlugin = "../wordpress/mailsidecar.php"

// shop is one WordPress with the plugin, a running server and a real Postfix
// behind it.
type shop struct {
	*wordpress.Site
	relay  *postfix.Server
	server *sidecar
	// env tells the plugin where the server is.
	env map[string]string
}

// TestWordPress runs WordPress's own mail code through the plugin, in every
// version that is at hand.
func TestWordPress(t *testing.T) {
	t.Parallel()
	versions := wordpress.Versions(t)
	relay := postfix.Start(t)
	database := wordpress.StartDatabase(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			site := database.Site(t, version, wordpressPlugin)
			s := &shop{Site: site, relay: relay, server: serve(t, withKey(stored(t, relay, relay.Submission)))}
			s.env = s.plugin(s.server.url)
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shop)
			}{
				{"message", testWPMessage},
				{"attachments", testWPAttachments},
				{"embeds", testWPEmbeds},
				{"hooks", testWPHooks},
				{"recipients", testWPRecipients},
				{"odd arguments", testWPOddArguments},
				{"core's own tests", testWPCore},
				{"leftovers of other plugins", testWPLeftovers},
				{"other mailers", testWPOtherMailers},
				{"settings", testWPSettings},
				{"password reset", testWPPasswordReset},
				{"notifications", testWPNotifications},
				{"author", testWPAuthor},
				{"mailers of their own", testWPOwnMailers},
				{"line ends", testWPLineEnds},
				{"repeated fields", testWPRepeatedFields},
				{"wrong recipients", testWPWrongRecipients},
				{"filters of requests", testWPRequestFilters},
				{"broken connections", testWPBroken},
				{"waits", testWPWaits},
				{"faults", testWPFaults},
				{"relays", testWPRelays},
				{"large mails", testWPLarge},
				{"requests", testWPRequests},
				{"priority", testWPPriority},
				{"not configured", testWPNotConfigured},
				{"site health", testWPSiteHealth},
				{"translation", testWPTranslation},
				{"command line", testWPCommandLine},
				{"tools page", testWPToolsPage},
				{"log", testWPLog},
				{"log of a server in trouble", testWPLogTrouble},
				{"markup in answers", testWPMarkup},
				{"answers of another form", testWPOddAnswers},
				{"actions", testWPActions},
				{"notice", testWPNotice},
				{"notice asks seldom", testWPNoticeSeldom},
				{"log on the command line", testWPLogCommand},
				{"visitors", testWPVisitors},
				{"WP-Cron", testWPCron},
				{"network", testWPNetwork}, // last: it changes the site
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s) })
			}
		})
	}
}

const testKey = "correct-horse-battery-staple"

func withKey(env environment) environment {
	return env.with(environment{"MAILSIDECAR_API_KEYS": "wordpress:" + testKey})
}

// plugin is the plugin's environment for a server. The From address is one that
// the relay takes.
func (s *shop) plugin(serverURL string) map[string]string {
	return map[string]string{
		"MAILSIDECAR_URL": serverURL + "/", "MAILSIDECAR_API_KEY": testKey, "MAILSIDECAR_FROM": "shop@example.com",
	}
}

// wpMail is the result of one call of wp_mail().
type wpMail struct {
	Sent    bool
	Seconds float64
	// Failed are the errors that wp_mail_failed got; Succeeded counts
	// wp_mail_succeeded.
	Failed []struct {
		Message string
		Data    map[string]any
	}
	Succeeded int
	Mailer    string // class of the global
	log       string // PHP's error log
}

// mail calls wp_mail() with arguments, which are PHP, after setup, which is too.
func (s *shop) mail(t *testing.T, env map[string]string, setup, arguments string, options ...string) wpMail {
	t.Helper()
	out, log := s.Run(t, env, wordpress.Load+`
		$failed = []; $succeeded = 0;
		add_action('wp_mail_failed', function ($e) use (&$failed) { $failed[] = ['message' => $e->get_error_message(), 'data' => $e->get_error_data()]; });
		add_action('wp_mail_succeeded', function () use (&$succeeded) { $succeeded++; });
		`+setup+`
		$start = microtime(true);
		$sent = wp_mail(`+arguments+`);
		echo json_encode(['sent' => $sent, 'seconds' => microtime(true) - $start, 'failed' => $failed, 'succeeded' => $succeeded,
			'mailer' => is_object($GLOBALS['phpmailer'] ?? null) ? get_class($GLOBALS['phpmailer']) : '']);
	`, options...)
	m := wpMail{log: log}
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		t.Fatalf("wp_mail printed %q: %v\n%s", out, err, log)
	}
	return m
}

// mustSend is mail that has to be accepted without a word in PHP's log.
func (s *shop) mustSend(t *testing.T, setup, arguments string) {
	t.Helper()
	m := s.mail(t, s.env, setup, arguments)
	if !m.Sent || len(m.Failed) > 0 || m.Succeeded != 1 || m.log != "" {
		t.Fatalf("wp_mail(%s) = %+v, want true and silence", arguments, m)
	}
}

// received returns the one message in a mailbox.
func (s *shop) received(t *testing.T, to string) postfix.Delivered {
	t.Helper()
	return s.relay.Await(t, to, 1)[0]
}

func quote(s string) string { return `'` + strings.ReplaceAll(s, `'`, `\'`) + `'` }

// testWPMessage: what a mail program shows of the simplest mail, with everything
// that is not ASCII.
func testWPMessage(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	const subject = "Žluťoučký kůň – Bestellung № 42 ist unterwegs und wird zwischen 9 und 12 Uhr geliefert"
	text := "Grüße\n.dot\n..\n.\nFrom here\n" + strings.Repeat("x", 1500) + "\nend"
	s.mustSend(t, "", quote("Ana Žlutá <"+to+">")+","+quote(subject)+",'"+text+"','X-Order: 42'")

	got := s.received(t, to)
	if got.ReturnPath != "shop@example.com" {
		t.Errorf("Return-Path = %q, want shop@example.com", got.ReturnPath)
	}
	m := message(t, got.Data)
	for name, want := range map[string]string{
		"Subject": subject, "To": "Ana Žlutá <" + to + ">", "From": "WordPress <shop@example.com>", "X-Order": "42",
	} {
		if decoded, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name)); err != nil || decoded != want {
			t.Errorf("%s = %q (%v), want %q", name, decoded, err, want)
		}
	}
	parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	// A Maildir has the machine's own line ends.
	if body := strings.TrimRight(strings.ReplaceAll(string(parts["text/plain"].data), "\r", ""), "\n"); body != text {
		t.Errorf("text = %q, want %q", body, text)
	}
}

// testWPAttachments: HTML with a plain text beside it, and files.
func testWPAttachments(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	s.mustSend(t, `
		add_action('phpmailer_init', function (PHPMailer\PHPMailer\PHPMailer $m) {
			$m->AltBody = 'plain Ž';
			$m->addStringAttachment(str_repeat("\0\r\n\xff", 1000), 'data.bin');
		});
		file_put_contents(SITE . '/faktura ž.txt', "one\ntwo\n");
	`, quote(to)+`, 'Files', '<p>rich Ž</p>', ['Content-Type: text/html; charset=UTF-8'], [SITE . '/faktura ž.txt']`)

	m := message(t, s.received(t, to).Data)
	parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	for name, want := range map[string]string{
		"text/html": "<p>rich Ž</p>", "text/plain": "plain Ž", "data.bin": strings.Repeat("\x00\r\n\xff", 1000),
		"=?UTF-8?Q?faktura_=C5=BE.txt?=": "one\ntwo\n", // PHPMailer's way to write a file name
	} {
		if got := string(parts[name].data); strings.TrimRight(got, "\r\n") != strings.TrimRight(want, "\r\n") {
			t.Errorf("part %s = %.60q, want %.60q; parts: %v", name, got, want, keys(parts))
		}
	}
}

// testWPEmbeds: pictures that HTML refers to, by the argument of WordPress 6.9
// and by PHPMailer's own way before.
func testWPEmbeds(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	const picture = `SITE . '/wordpress/wp-includes/images/media/default.png'`
	setup, argument := `add_action('phpmailer_init', function ($m) { $m->addEmbeddedImage(`+picture+`, 'logo'); });`, ``
	if strings.HasPrefix(s.Version, "7.") {
		setup, argument = ``, `, '', [], ['logo' => `+picture+`]`
	}
	if argument == "" {
		argument = `, ''`
	}
	s.mustSend(t, setup+`add_filter('wp_mail_content_type', function () { return 'text/html'; });`,
		quote(to)+`, 'Embed', '<img src="cid:logo">'`+argument)
	m := message(t, s.received(t, to).Data)
	parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	if p := parts["default.png"]; p.contentID != "<logo>" || !strings.HasPrefix(string(p.data), "\x89PNG") {
		t.Errorf("default.png has Content-ID %q, want <logo>; parts: %v", p.contentID, keys(parts))
	}
}

// testWPHooks: every hook of core's is still there, and long header values are
// left alone.
func testWPHooks(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	unsubscribe := "<https://shop.example.com/unsubscribe/" + strings.Repeat("0123456789", 8) + ">"
	s.mustSend(t, `
		add_filter('wp_mail', function ($a) { $a['subject'] .= ' wp_mail'; return $a; });
		add_filter('wp_mail_from_name', function () { return 'Filtered'; });
		add_filter('wp_mail_charset', function () { return 'utf-8'; });
		add_action('phpmailer_init', function ($m) { $m->Subject .= ' init'; $m->Sender = 'bounce@example.com';
			$m->action_function = function ($sent, $to) { file_put_contents(SITE . '/action', json_encode([$sent, $to[0][0]])); }; });
	`, quote(to)+`, 'Hooks', 'x', `+quote("List-Unsubscribe: "+unsubscribe)+``)
	got := s.received(t, to)
	m := message(t, got.Data)
	if got.ReturnPath != "bounce@example.com" {
		t.Errorf("Return-Path = %q, want the Sender bounce@example.com", got.ReturnPath)
	}
	for name, want := range map[string]string{"Subject": "Hooks wp_mail init", "From": "Filtered <shop@example.com>", "List-Unsubscribe": unsubscribe} {
		if m.Header.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, m.Header.Get(name), want)
		}
	}
	if action, _ := s.Run(t, nil, `echo file_get_contents(SITE . '/action');`); action != `[true,`+mustJSON(t, to)+`]` {
		t.Errorf("action_function was told %s, want success for %s", action, to)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// testWPRecipients: Cc and Bcc reach people, Bcc stays hidden; a refused one is
// false with the relay's words, one refused beside others is not.
func testWPRecipients(t *testing.T, s *shop) {
	to, cc, bcc := s.relay.Recipient(t), s.relay.Recipient(t), s.relay.Recipient(t)
	s.mustSend(t, "", quote(to)+`, 'Copies', 'x', ['Cc: Carl <`+cc+`>', 'Bcc: `+bcc+`', 'Reply-To: R <r@example.com>']`)
	for _, recipient := range []string{to, cc, bcc} {
		got := s.received(t, recipient)
		if strings.Contains(string(got.Data), bcc) {
			t.Errorf("the message to %s names the Bcc recipient", recipient)
		}
		if m := message(t, got.Data); m.Header.Get("Cc") != "Carl <"+cc+">" || m.Header.Get("Reply-To") != "R <r@example.com>" {
			t.Errorf("Cc = %q, Reply-To = %q", m.Header.Get("Cc"), m.Header.Get("Reply-To"))
		}
	}

	unknown := "Unknown@" + postfix.Domain
	m := s.mail(t, s.env, "", quote(unknown)+`, 'S', 'B', ['X-A: b'], []`)
	if m.Sent || len(m.Failed) != 1 || m.Succeeded != 0 {
		t.Fatalf("wp_mail to an unknown recipient = %+v, want false and one wp_mail_failed", m)
	}
	failed := m.Failed[0]
	if !strings.HasPrefix(failed.Message, "mailsidecar: 550 5.1.1 <Unknown@example.org>: ") || !strings.HasSuffix(failed.Message, " (HTTP 422)") {
		t.Errorf("message = %q, want Postfix's 550 5.1.1", failed.Message)
	}
	if !strings.Contains(m.log, failed.Message) {
		t.Errorf("PHP's error log = %q, want the failure in it", m.log)
	}
	want := []string{"attachments", "headers", "message", "phpmailer_exception_code", "subject", "to"}
	if strings.HasPrefix(s.Version, "7.") {
		want = append(want, "embeds")
		slices.Sort(want)
	}
	if got := slices.Sorted(maps.Keys(failed.Data)); !slices.Equal(got, want) || failed.Data["phpmailer_exception_code"] != 550.0 {
		t.Errorf("error data = %v with code %v, want %v with 550", got, failed.Data["phpmailer_exception_code"], want)
	}

	some := s.relay.Recipient(t)
	m = s.mail(t, s.env, "", `[`+quote(some)+`,`+quote(unknown)+`], 'S', 'B'`)
	if !m.Sent || !strings.Contains(m.log, "550 5.1.1 <Unknown@example.org>") {
		t.Errorf("wp_mail with one refused recipient of two = %+v, want true and a line in the log", m)
	}
	s.relay.Await(t, some, 1)
}

// testWPOddArguments: the arguments of core's own tests of wp_mail().
func testWPOddArguments(t *testing.T, s *shop) {
	t.Run("several recipients in a string", func(t *testing.T) {
		to, other := s.relay.Recipient(t), s.relay.Recipient(t)
		s.mustSend(t, "", quote(to+", Bo <"+other+">, ")+`, 'Several', 'x'`)
		s.received(t, to)
		s.received(t, other)
	})
	t.Run("a multipart of the caller's own", func(t *testing.T) {
		to := s.relay.Recipient(t)
		const body = "--own\r\nContent-Type: text/plain\r\n\r\none\r\n--own\r\nContent-Type: text/html\r\n\r\n<i>two</i>\r\n--own--\r\n"
		s.mustSend(t, "", quote(to)+`, 'Own', '`+body+`', "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=\"own\""`)
		got := string(s.received(t, to).Data)
		if !strings.Contains(strings.ReplaceAll(got, "\r", ""), strings.ReplaceAll(body, "\r", "")) || strings.Count(got, "MIME-Version:") != 1 {
			t.Errorf("the caller's parts did not arrive as they were: %q", got)
		}
	})
	t.Run("a file by a name of its own", func(t *testing.T) {
		to := s.relay.Recipient(t)
		s.mustSend(t, `file_put_contents(SITE . '/named', 'x');`, quote(to)+`, 'Named', 'x', '', ['invoice.txt' => SITE . '/named']`)
		want := `filename=invoice.txt`
		if strings.HasPrefix(s.Version, "6.1.") {
			want = `filename=named` // keys are names since 6.2
		}
		if got := string(s.received(t, to).Data); !strings.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	})
	for name, test := range map[string]struct {
		arguments string
		sent      bool
	}{
		"an invalid recipient":            {`'not an address', 'x', 'x'`, false},
		"an invalid copy and a lost file": {`TO, 'x', 'x', ['Cc: not an address', 'Bcc: neither'], ['/nonexistent']`, true},
		"an empty From":                   {`TO, 'x', 'x', 'From: '`, true},
		"a From without a name":           {`TO, 'x', 'x', 'From: <a@example.com>'`, true},
		"an empty body":                   {`TO, 'x', ''`, false},
	} {
		t.Run(name, func(t *testing.T) {
			to := s.relay.Recipient(t)
			m := s.mail(t, s.env, `const TO = `+quote(to)+`;`, test.arguments)
			if m.Sent != test.sent || m.Sent == (len(m.Failed) == 1) {
				t.Errorf("wp_mail(%s) = %+v, want %t", test.arguments, m, test.sent)
			}
		})
	}
	out, _ := s.Run(t, s.env, wordpress.Load+`wp_mail('nobody@example.org.invalid', 'x', 'x');
		echo json_encode([$phpmailer->Sender, $phpmailer->Mailer, call_user_func($phpmailer::$validator, 'foo@192.168.1.1')]);`)
	if out != `["","mail",true]` {
		t.Errorf("Sender, Mailer and validator after a mail = %s, want core's", out)
	}
}

// testWPLeftovers: the leftovers of snippets and other plugins do no harm.
func testWPLeftovers(t *testing.T, s *shop) {
	for name, setup := range map[string]string{
		"SMTP settings": `add_action('phpmailer_init', function ($m) { $m->isSMTP(); $m->Host = '127.0.0.1'; $m->Port = 1; });`,
		"no global":     `wp_mail('nobody@example.org.invalid', 'x', 'x'); unset($GLOBALS['phpmailer']); $failed = []; $succeeded = 0;`,
		"a plain one":   `require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php'; require_once ABSPATH . WPINC . '/PHPMailer/Exception.php'; $GLOBALS['phpmailer'] = new PHPMailer\PHPMailer\PHPMailer();`,
		"a proxy":       `define('WP_PROXY_HOST', '127.0.0.1'); define('WP_PROXY_PORT', '1'); putenv('http_proxy=http://127.0.0.1:1');`,
	} {
		t.Run(name, func(t *testing.T) {
			to := s.relay.Recipient(t)
			m := s.mail(t, s.env, setup, quote(to)+`, 'Leftovers', 'x'`)
			if !m.Sent || m.Mailer != `Mailsidecar\Mailer` {
				t.Fatalf("wp_mail = %+v, want true by our mailer", m)
			}
			s.relay.Await(t, to, 1)
		})
	}
	t.Run("Encoding and AltBody of the mail before", func(t *testing.T) {
		to := s.relay.Recipient(t)
		s.mustSend(t, `
			$first = function ($m) { $m->Encoding = 'quoted-printable'; $m->AltBody = 'left over'; };
			add_action('phpmailer_init', $first); wp_mail(`+quote(to)+`, 'first', 'x'); remove_action('phpmailer_init', $first);
			$succeeded = 0;
		`, quote(to)+`, 'second', 'y'`)
		for _, got := range s.relay.Await(t, to, 2) {
			if m := message(t, got.Data); m.Header.Get("Subject") == "second" && strings.Contains(string(got.Data), "left over") {
				t.Errorf("the second mail has the first one's AltBody: %q", got.Data)
			}
		}
	})
	t.Run("without WP_HTTP_BLOCK_EXTERNAL", func(t *testing.T) {
		to := s.relay.Recipient(t)
		env := maps.Clone(s.env)
		env["OPEN"] = "1"
		m := s.mail(t, env, `if (WP_HTTP_BLOCK_EXTERNAL) { exit('it is on'); }`, quote(to)+`, 'Open', 'x'`)
		if !m.Sent || m.Mailer != `Mailsidecar\Mailer` {
			t.Fatalf("wp_mail = %+v, want true by our mailer", m)
		}
		s.relay.Await(t, to, 1)
	})
	t.Run("without ext-curl", func(t *testing.T) {
		to := s.relay.Recipient(t)
		m := s.mail(t, s.env, ``, quote(to)+`, 'Streams', 'x'`, noCurl...)
		if !m.Sent {
			t.Fatalf("wp_mail = %+v, want true", m)
		}
		s.relay.Await(t, to, 1)
	})
}

// testWPOtherMailers: a mailer that another plugin has put into the global keeps
// the mail, as the mock of core's own tests must, unless it is to be taken.
func testWPOtherMailers(t *testing.T, s *shop) {
	const mock = `
		require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php'; require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
		class MockPHPMailer extends PHPMailer\PHPMailer\PHPMailer { public function postSend() { return true; } }
		$GLOBALS['phpmailer'] = new MockPHPMailer(true);`
	m := s.mail(t, s.env, mock, `'a@example.org', 'Mock', 'x'`)
	if !m.Sent || m.Mailer != "MockPHPMailer" || !strings.Contains(m.log, "MockPHPMailer") {
		t.Errorf("wp_mail with a foreign mailer = %+v, want true by it, and a line in the log", m)
	}
	to := s.relay.Recipient(t)
	env := maps.Clone(s.env)
	env["MAILSIDECAR_FORCE"] = "1"
	if m = s.mail(t, env, mock, quote(to)+`, 'Forced', 'x'`); !m.Sent || m.Mailer != `Mailsidecar\Mailer` {
		t.Errorf("wp_mail with MAILSIDECAR_FORCE = %+v, want true by our mailer", m)
	}
	s.relay.Await(t, to, 1)

	m = s.mail(t, s.env, `add_filter('pre_wp_mail', '__return_false');`, `'a@example.org', 'Short', 'x'`)
	if m.Sent || m.Succeeded+len(m.Failed) != 0 {
		t.Errorf("wp_mail that another plugin answers = %+v, want its false untouched", m)
	}
}

// testWPSettings: constants come before the environment, a key can be in a file.
func testWPSettings(t *testing.T, s *shop) {
	key := writeFile(t, "key", testKey+"\n")
	for name, test := range map[string]struct {
		env   map[string]string
		setup string
		sent  bool
	}{
		"constants":             {nil, `define('MAILSIDECAR_URL', '` + s.server.url + `'); define('MAILSIDECAR_API_KEY', '` + testKey + `'); define('MAILSIDECAR_FROM', 'shop@example.com');`, true},
		"constants come first":  {s.env, `define('MAILSIDECAR_API_KEY', 'wrong');`, false},
		"file":                  {map[string]string{"MAILSIDECAR_URL": s.server.url, "MAILSIDECAR_API_KEY_FILE": key, "MAILSIDECAR_FROM": "shop@example.com"}, ``, true},
		"file before the plain": {map[string]string{"MAILSIDECAR_URL": s.server.url, "MAILSIDECAR_API_KEY": "wrong", "MAILSIDECAR_API_KEY_FILE": key, "MAILSIDECAR_FROM": "shop@example.com"}, ``, true},
	} {
		t.Run(name, func(t *testing.T) {
			to := s.relay.Recipient(t)
			if m := s.mail(t, test.env, test.setup, quote(to)+`, 'Settings', 'x'`); m.Sent != test.sent {
				t.Errorf("wp_mail = %+v, want %t", m, test.sent)
			}
		})
	}
	t.Run("a key file outside of open_basedir", func(t *testing.T) {
		env := map[string]string{"MAILSIDECAR_URL": s.server.url, "MAILSIDECAR_API_KEY_FILE": "/etc/hostname", "MAILSIDECAR_FROM": "shop@example.com"}
		m := s.mail(t, env, `ini_set('open_basedir', `+quote(os.TempDir())+`);`, `'ana@example.org', 'Settings', 'x'`)
		if m.Sent || len(m.Failed) != 1 || !strings.Contains(m.Failed[0].Message, "PHP cannot read /etc/hostname; its open_basedir allows only "+os.TempDir()) || strings.Contains(m.log, "Warning") {
			t.Errorf("wp_mail = %+v, want false with the file and open_basedir, and no warning of PHP's", m)
		}
	})
	for _, from := range []map[string]string{
		{"MAILSIDECAR_FROM_NAME": "Shop Ltd"},
		{"MAILSIDECAR_FROM": "Shop Ltd <shop@example.com>"},
		{"MAILSIDECAR_FROM": `"Other" <shop@example.com>`, "MAILSIDECAR_FROM_NAME": "Shop Ltd"},
	} {
		env := maps.Clone(s.env)
		maps.Copy(env, from)
		to := s.relay.Recipient(t)
		if m := s.mail(t, env, ``, quote(to)+`, 'From', 'x', 'From: Visitor <visitor@example.net>'`); !m.Sent {
			t.Fatalf("wp_mail = %+v, want true", m)
		}
		if got := message(t, s.received(t, to).Data).Header.Get("From"); got != `Shop Ltd <shop@example.com>` {
			t.Errorf("From = %q with %v, want the one that is configured", got, from)
		}
	}
}

// accepted is the answer of a fakeServer that has stored the message.
const accepted = `202 - {"id":"1","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`

// testWPAuthor: MAILSIDECAR_FROM comes last, after what snippets set in phpmailer_init,
// and the author that it replaces gets the replies.
func testWPAuthor(t *testing.T, s *shop) {
	for _, test := range []struct{ name, setup, headers, replyTo, returnPath string }{
		{"WordPress's own", ``, ``, "", "shop@example.com"},
		{"a visitor", ``, `From: Visitor, Jr. <visitor@example.net>`, `"Visitor, Jr." <visitor@example.net>`, "shop@example.com"},
		{"a visitor without a name", ``, `From: visitor@example.net`, "visitor@example.net", "shop@example.com"},
		{"a visitor, and Reply-To", ``, `From: visitor@example.net\nReply-To: desk@example.com`, "desk@example.com", "shop@example.com"},
		{"a filter", `add_filter('wp_mail_from', function () { return 'desk@example.com'; }, PHP_INT_MAX);`, ``, "desk@example.com", "shop@example.com"},
		{"a property", `add_action('phpmailer_init', function ($m) { $m->From = 'old@example.net'; $m->FromName = 'Old'; });`, ``, "Old <old@example.net>", "shop@example.com"},
		{"setFrom()", `add_action('phpmailer_init', function ($m) { $m->setFrom('old@example.net', 'Old'); }, PHP_INT_MAX);`, ``, "Old <old@example.net>", "shop@example.com"},
		{"setFrom(), and Reply-To", `add_action('phpmailer_init', function ($m) { $m->setFrom('old@example.net', 'Old'); $m->addReplyTo('desk@example.com'); });`, ``, "desk@example.com", "shop@example.com"},
		{"a sender of its own", `add_action('phpmailer_init', function ($m) { $m->From = 'old@example.net'; $m->Sender = 'bounce@example.com'; });`, ``, "old@example.net", "bounce@example.com"},
		{"the mail before", `wp_mail('ana@example.org', 'x', 'x', 'From: Visitor <visitor@example.net>'); $succeeded = 0;`, ``, "", "shop@example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			to := s.relay.Recipient(t)
			if m := s.mail(t, s.env, test.setup, quote(to)+`, 'Author', 'x', "`+test.headers+`"`); !m.Sent {
				t.Fatalf("wp_mail = %+v, want true", m)
			}
			got := s.received(t, to)
			header := message(t, got.Data).Header
			if _, address, _ := strings.Cut(header.Get("From"), "<"); address != "shop@example.com>" {
				t.Errorf("From = %q, want shop@example.com", header.Get("From"))
			}
			if header.Get("Reply-To") != test.replyTo {
				t.Errorf("Reply-To = %q, want %q", header.Get("Reply-To"), test.replyTo)
			}
			if got.ReturnPath != test.returnPath {
				t.Errorf("Return-Path = %q, want %q", got.ReturnPath, test.returnPath)
			}
		})
	}
}

// testWPOwnMailers: a PHPMailer that a plugin makes for itself, as BuddyPress does, goes
// out the same way, twice, with its own parts and without those of the mail before.
func testWPOwnMailers(t *testing.T, s *shop) {
	to, bcc := s.relay.Recipient(t), s.relay.Recipient(t)
	out, log := s.Run(t, s.env, wordpress.Load+`
		require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php';
		require_once ABSPATH . WPINC . '/PHPMailer/SMTP.php';
		require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
		function community_mail($subject, $to, $bcc) {
			static $mailer = null;
			if (!$mailer instanceof PHPMailer\PHPMailer\PHPMailer) $mailer = new PHPMailer\PHPMailer\PHPMailer(true);
			$mailer->clearAllRecipients(); $mailer->clearAttachments(); $mailer->clearCustomHeaders(); $mailer->clearReplyTos();
			$mailer->Sender = ''; $mailer->isMail(); $mailer->CharSet = 'UTF-8'; $mailer->Subject = $subject;
			$mailer->msgHTML('<p>Ž</p>'); $mailer->AltBody = 'plain Ž';
			$mailer->setFrom('community@example.net', 'Community', false);
			$mailer->addAddress($to, 'Žák'); $mailer->addBcc($bcc);
			$mailer->addCustomHeader('X-Community', $subject); $mailer->addStringAttachment('data', 'data.bin');
			do_action_ref_array('phpmailer_init', [&$mailer]);
			try { return $mailer->send(); } catch (PHPMailer\PHPMailer\Exception $e) { return $e->getMessage(); }
		}
		echo json_encode([community_mail('one', `+quote(to)+`, `+quote(bcc)+`), community_mail('two', `+quote(to)+`, `+quote(bcc)+`), community_mail('three', 'unknown@example.org', 'unknown@example.org')]);`)
	if !strings.HasPrefix(out, `[true,true,"mailsidecar: 550 5.1.1 `) {
		t.Fatalf("mails of a plugin's own PHPMailer = %s, want two sent and Postfix's 550\n%s", out, log)
	}
	for _, recipient := range []string{to, bcc} {
		for _, got := range s.relay.Await(t, recipient, 2) {
			m := message(t, got.Data)
			if m.Header.Get("X-Community") != m.Header.Get("Subject") || m.Header.Get("From") != "Community <shop@example.com>" || m.Header.Get("Reply-To") != "Community <community@example.net>" {
				t.Errorf("header = %q", m.Header)
			}
			parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
			if strings.TrimSpace(string(parts["text/plain"].data)) != "plain Ž" || string(parts["data.bin"].data) != "data" {
				t.Errorf("parts = %v", keys(parts))
			}
		}
	}
}

// testWPLineEnds: a bare CR in a header begins no field, and CR CR LF is one line end.
func testWPLineEnds(t *testing.T, s *shop) {
	to, eve := s.relay.Recipient(t), s.relay.Recipient(t)
	for i, arguments := range []string{
		`"hi\rBcc: ` + eve + `", "one\r\r\ntwo\r\r\n\r\r\nthree", ''`,
		`'hi', "one\r\ntwo\r\n\r\nthree", "Content-Type: text/plain\rBcc: ` + eve + `; charset=UTF-8"`,
		`'hi', "one\ntwo\n\nthree", "Cc: ` + to + `\rBcc: ` + eve + `"`,
		`'hi', "one\ntwo\n\nthree", "X-Name: a\rBcc: ` + eve + `"`,
		`'hi', "one\ntwo\n\nthree", "Reply-To: a@example.com\rBcc: ` + eve + `"`,
		`'hi', "one\ntwo\n\nthree", "From: Eve\rBcc: ` + eve + ` <a@example.com>"`,
	} {
		if m := s.mail(t, s.env, "", quote(to)+`,`+arguments); !m.Sent {
			t.Fatalf("wp_mail(%s) = %+v, want true", arguments, m)
		}
		for _, got := range s.relay.Await(t, to, i+1) {
			m := message(t, got.Data)
			if m.Header.Get("Bcc") != "" {
				t.Errorf("Bcc = %q after wp_mail(%s)", m.Header.Get("Bcc"), arguments)
			}
			body := strings.TrimSpace(strings.ReplaceAll(string(decode(t, m.Header.Get("Content-Transfer-Encoding"), m.Body)), "\r", ""))
			if body != "one\ntwo\n\nthree" {
				t.Errorf("body = %q after wp_mail(%s)", body, arguments)
			}
		}
	}
	if got := s.relay.Mailbox(t, eve); len(got) > 0 {
		t.Errorf("%d messages reached the address behind a CR", len(got))
	}
}

// testWPRepeatedFields: fields among the headers of wp_mail() that PHPMailer writes, too,
// stand once; Gmail refuses messages for a second one.
func testWPRepeatedFields(t *testing.T, s *shop) {
	to, cc := s.relay.Recipient(t), s.relay.Recipient(t)
	s.mustSend(t, "", quote(to)+`, 'Once', 'x', "To: Desk <desk@example.com>\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <mine@example.com>\nSubject: Twice\nX-Order: 42\nCc: `+cc+`"`)
	header := message(t, s.received(t, to).Data).Header
	for _, name := range []string{"To", "Cc", "From", "Date", "Message-Id", "Subject", "X-Order", "Mime-Version", "Content-Type"} {
		if n := len(header[name]); n != 1 {
			t.Errorf("%d fields %s, want one", n, name)
		}
	}
	if header.Get("To") != to+", Desk <desk@example.com>" || header.Get("Subject") != "Once" {
		t.Errorf("To = %q, Subject = %q, want both recipients and the mail's own subject", header.Get("To"), header.Get("Subject"))
	}
	m := s.mail(t, s.env, `add_action('phpmailer_init', function ($m) { $m->addCustomHeader('DKIM-Signature', 'v=1; h=to'); });`, quote(to)+`, 'Signed', 'x', "X-A: 1\nX-a: 2"`)
	if !m.Sent {
		t.Errorf("wp_mail of a signed message = %+v, want true", m)
	}
}

// testWPWrongRecipients: the others get the mail, and PHP's error log names the one whose
// address no relay could take.
func testWPWrongRecipients(t *testing.T, s *shop) {
	to, other := s.relay.Recipient(t), s.relay.Recipient(t)
	long := strings.Repeat("a", 64) + "." + strings.Repeat("b", 300) + "@example.org"
	m := s.mail(t, s.env, "", `[`+quote(to)+`,`+quote(long)+`,`+quote(other)+`], 'Wrong', 'x'`)
	if !m.Sent || !strings.Contains(m.log, "<"+long+">") {
		t.Errorf("wp_mail with a wrong address beside others = %+v, want true and a line in the log", m)
	}
	s.relay.Await(t, to, 1)
	s.relay.Await(t, other, 1)
	if m = s.mail(t, s.env, "", quote(long)+`, 'Wrong', 'x'`); m.Sent || len(m.Failed) != 1 || !strings.Contains(m.Failed[0].Message, long) {
		t.Errorf("wp_mail to a wrong address alone = %+v, want false with the address", m)
	}
	const first = `422 - {"code":"invalid_message","title":"x","errors":[{"field":"Envelope-To[0]","message":"no good"},{"field":"Envelope-To[2]","message":"nor this"}]}`
	fake := newFakeServer(t, answering(first, accepted))
	setup := `add_action('phpmailer_init', function ($m) { $m::$validator = function () { return true; }; $m->addBcc("e(v)e@example.org"); });`
	m = s.mail(t, s.plugin(fake.URL), setup, `['a@example.org', 'b@example.org', 'c@example.org'], 'Wrong', 'x'`)
	if !m.Sent || fake.count() != 2 || fake.requests[1].Header.Get("Envelope-To") != "b@example.org" {
		t.Fatalf("wp_mail = %+v after %d requests, want true for the one that is left", m, fake.count())
	}
	for _, want := range []string{"<a@example.org>: no good", "<c@example.org>: nor this", "<e(v)e@example.org>"} {
		if !strings.Contains(m.log, want) {
			t.Errorf("PHP's error log = %q, want %q", m.log, want)
		}
	}
}

// testWPRequestFilters: what other plugins change in requests does not reach this one.
func testWPRequestFilters(t *testing.T, s *shop) {
	fake := newFakeServer(t, answering(accepted))
	m := s.mail(t, s.plugin(fake.URL), `
		add_filter('http_request_timeout', function () { return 1; }, PHP_INT_MAX);
		add_filter('http_request_args', function ($a) {
			return ['timeout' => 1, 'method' => 'GET', 'blocking' => false, 'redirection' => 5, 'headers' => [], 'body' => 'x', 'sslverify' => false, 'stream' => true, 'limit_response_size' => 1] + $a;
		}, PHP_INT_MAX);
		add_action('http_api_curl', function ($handle) { curl_setopt($handle, CURLOPT_TIMEOUT_MS, 1); }, PHP_INT_MAX);
		add_action('http_api_debug', function ($response, $context, $class, $args) { error_log('timeout ' . $args['timeout'] . ' blocking ' . (int) $args['blocking']); }, 10, 4);
	`, `'ana@example.org', 'Filters', 'x'`)
	if !m.Sent || fake.count() != 1 || fake.requests[0].Method != http.MethodPost || fake.requests[0].Header.Get("Envelope-To") != "ana@example.org" {
		t.Errorf("wp_mail among such filters = %+v after %d requests, want true", m, fake.count())
	}
	if !strings.Contains(m.log, "timeout 13 blocking 1") {
		t.Errorf("log = %q, want the plugin's own time-out of 13 s", m.log)
	}
}

// testWPBroken: a request whose connection broke is repeated once with the same key, and
// without a key it is not.
func testWPBroken(t *testing.T, s *shop) {
	const required, underWay = `422 - {"code":"queue_required","detail":"x"}`, `409 - {"code":"idempotency_key_in_use","detail":"x"}`
	for _, test := range []struct {
		name    string
		answers []string // empty: the connection breaks
		sent    bool
		options []string
	}{
		{"then accepted", []string{"", accepted}, true, nil},
		{"then accepted, without ext-curl", []string{"", accepted}, true, noCurl},
		{"again", []string{"", ""}, false, nil},
		{"then no queue", []string{"", required}, false, nil},
		{"then under way", []string{"", underWay}, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := newFakeServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if test.answers[min(n, len(test.answers))-1] == "" {
					panic(http.ErrAbortHandler)
				}
				answering(test.answers...)(n, w, r)
			})
			m := s.mail(t, s.plugin(fake.URL), "", `'ana@example.org', 'Broken', 'x'`, test.options...)
			if m.Sent != test.sent || fake.count() != 2 {
				t.Fatalf("wp_mail = %+v after %d requests, want %t after 2", m, fake.count(), test.sent)
			}
			if one, two := fake.requests[0].Header.Get("Idempotency-Key"), fake.requests[1].Header.Get("Idempotency-Key"); one != two || one == "" {
				t.Errorf("keys = %q, %q, want one", one, two)
			}
		})
	}
}

// testWPWaits: MAILSIDECAR_WAIT is written as the server's settings are, and all mails of
// a page share it.
func testWPWaits(t *testing.T, s *shop) {
	out, log := s.Run(t, s.env, wordpress.Load+`
		foreach (['0', '0s', '5', '5s', '1m', '1m1s', '1500ms', '0.2', '.5s', '1d12h', '2.5', ' 4 '] as $w) { putenv("MAILSIDECAR_WAIT=$w"); echo Mailsidecar\wait_seconds(), ' '; }
		foreach (['long', '-1', '1x', 'd', '5 s', '1m-1s'] as $w) { putenv("MAILSIDECAR_WAIT=$w"); echo Mailsidecar\wait_seconds(), count(preg_grep('/MAILSIDECAR_WAIT/', Mailsidecar\site_findings())), ' '; }`)
	if want := "0 0 5 5 60 60 2 1 1 60 3 4 31 31 31 31 31 31 "; out != want || log != "" {
		t.Errorf("waits = %q, %q, want %q", out, log, want)
	}
	fake := newFakeServer(t, answering(accepted))
	env := s.plugin(fake.URL)
	env["MAILSIDECAR_WAIT"] = "40s"
	s.mail(t, env, `wp_mail('ana@example.org', 'x', 'x'); Mailsidecar\waited(30); wp_mail('ana@example.org', 'x', 'x'); Mailsidecar\waited(10);`, `'ana@example.org', 'x', 'x'`)
	var waits []string
	for _, r := range fake.requests {
		waits = append(waits, r.Header.Get("Prefer"))
	}
	if len(waits) != 3 || waits[0] != "wait=40" || !slices.Contains([]string{"wait=10", "wait=9", "wait=8"}, waits[1]) || waits[2] != "" {
		t.Errorf("Prefer of three mails of a page = %q, want 40 s shared", waits)
	}
}

// testWPPasswordReset goes through wp-login.php as a visitor does.
func testWPPasswordReset(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	s.Run(t, s.env, wordpress.Load+`wp_insert_user(['user_login' => 'ana', 'user_pass' => 'x', 'user_email' => `+quote(to)+`]);`)
	site := s.Serve(t, s.env)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.PostForm(site+"/wp-login.php?action=lostpassword", url.Values{"user_login": {"ana"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !strings.Contains(resp.Header.Get("Location"), "checkemail=confirm") {
		t.Errorf("lost password goes to %q with %d, want checkemail=confirm", resp.Header.Get("Location"), resp.StatusCode)
	}
	text := string(s.received(t, to).Data)
	if !strings.Contains(text, "action=rp") || !strings.Contains(text, "login=3Dana") && !strings.Contains(text, "login=ana") {
		t.Errorf("the mail has no link to reset the password: %q", text)
	}

	s.Run(t, s.env, wordpress.Load+`wp_insert_user(['user_login' => 'gone', 'user_pass' => 'x', 'user_email' => 'gone@example.org']);`)
	resp, err = client.PostForm(site+"/wp-login.php?action=lostpassword", url.Values{"user_login": {"gone"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "could not be sent") {
		t.Errorf("lost password of a refused address shows %d without %q", resp.StatusCode, "could not be sent")
	}
}

// testWPNotifications: a new user's and a comment's notifications, by core's own
// functions.
func testWPNotifications(t *testing.T, s *shop) {
	to, admin := s.relay.Recipient(t), s.relay.Recipient(t)
	_, log := s.Run(t, s.env, wordpress.Load+`
		$GLOBALS['wpdb']->update($GLOBALS['wpdb']->options, ['option_value' => `+quote(admin)+`], ['option_name' => 'admin_email']); wp_cache_flush();
		$id = wp_insert_user(['user_login' => 'bo', 'user_pass' => 'x', 'user_email' => `+quote(to)+`]);
		wp_new_user_notification($id, null, 'both');
		$post = wp_insert_post(['post_author' => $id, 'post_title' => 'Žába', 'post_content' => 'x', 'post_status' => 'publish']);
		$comment = wp_insert_comment(['comment_post_ID' => $post, 'comment_author' => 'Guest', 'comment_content' => 'Nice!', 'comment_approved' => 1]);
		wp_notify_postauthor($comment);
	`)
	if log != "" {
		t.Errorf("PHP's error log = %q, want none", log)
	}
	var subjects []string
	for _, got := range append(s.relay.Await(t, to, 2), s.relay.Await(t, admin, 1)...) {
		subject, err := new(mime.WordDecoder).DecodeHeader(message(t, got.Data).Header.Get("Subject"))
		if err != nil {
			t.Error(err)
		}
		subjects = append(subjects, subject)
	}
	slices.Sort(subjects)
	want := []string{`[Shop & Co] Comment: "Žába"`, `[Shop & Co] Login Details`, `[Shop & Co] New User Registration`}
	if !slices.Equal(subjects, want) {
		t.Errorf("subjects = %q, want %q", subjects, want)
	}
}

// fakeServer answers in the place of mailsidecar, where the real one does not give
// such an answer on demand.
type fakeServer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func newFakeServer(t *testing.T, handle func(n int, w http.ResponseWriter, r *http.Request)) *fakeServer {
	t.Helper()
	f := &fakeServer{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r)
		n := len(f.requests)
		f.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		handle(n, w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeServer) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.requests)
}

// answering returns a handler that gives the answers in turn, the last one again
// and again: "503 0 {…}" is a status, Retry-After (or -) and a body.
func answering(answers ...string) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, _ *http.Request) {
		parts := strings.SplitN(answers[min(n, len(answers))-1], " ", 3)
		if parts[1] != "-" {
			w.Header().Set("Retry-After", parts[1])
		}
		var status int
		_, _ = fmt.Sscan(parts[0], &status)
		w.Header().Set(api.HeaderOwn, "1")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, parts[2])
	}
}

// testWPFaults checks the result, the message and the number of requests when
// something is wrong.
func testWPFaults(t *testing.T, s *shop) {
	const arguments = `'ana@example.org', 'Fault', 'x'`
	for _, test := range []struct {
		name    string
		answers []string
		sent    bool
		message string
		posts   int
	}{
		{"queued", []string{`202 - {"id":"1","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`}, true, "", 1},
		{"deferred", []string{`202 - {"id":"1","status":"deferred","recipients":[{"email":"ana@example.org","state":"deferred","reply_code":451}]}`}, true, "", 1},
		{
			"content refused",
			[]string{`422 - {"code":"rejected","detail":"x","reply_code":554,"enhanced_code":"5.7.1","recipients":[{"email":"ana@example.org","state":"bounced","reply_code":554,"enhanced_code":"5.7.1","text":"spam\r\nX: y"}]}`},
			false, "mailsidecar: 554 5.7.1 <ana@example.org>: spam X: y (HTTP 422)", 1,
		},
		{"wrong key", []string{`401 - {"code":"unauthorized"}`}, false, "mailsidecar: the API key is missing or wrong (HTTP 401)", 1},
		{"sender not allowed", []string{`403 - {"code":"sender_not_allowed","detail":"Not from here."}`}, false, "mailsidecar: Not from here. (HTTP 403)", 1},
		{"too large", []string{`413 - {"code":"message_too_large","detail":"The message is too large."}`}, false, "mailsidecar: The message is too large. (HTTP 413)", 1},
		{"queue full", []string{`503 60 {"code":"queue_full","detail":"The queue is full."}`}, false, "mailsidecar: The queue is full. (HTTP 503)", 1},
		{"asked to repeat", []string{`503 0 {"code":"busy","detail":"Busy."}`, `202 - {"id":"1","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`}, true, "", 2},
		{"no queue for a key", []string{`422 - {"code":"queue_required","detail":"x"}`, `200 - {"id":"1","status":"delivered","recipients":[{"email":"ana@example.org","state":"delivered"}]}`}, true, "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := newFakeServer(t, answering(test.answers...))
			m := s.mail(t, s.plugin(fake.URL), "", arguments)
			if m.Sent != test.sent || fake.count() != test.posts {
				t.Errorf("wp_mail = %+v after %d requests, want %t after %d", m, fake.count(), test.sent, test.posts)
			}
			if test.message != "" && (len(m.Failed) != 1 || !strings.Contains(m.Failed[0].Message, test.message)) {
				t.Errorf("wp_mail_failed = %+v, want %q", m.Failed, test.message)
			}
			if strings.Contains(m.log, testKey) {
				t.Errorf("PHP's error log shows the key: %q", m.log)
			}
		})
	}
	for name, impostor := range apitest.Impostors() {
		t.Run("impostor/"+name, func(t *testing.T) {
			server := httptest.NewServer(impostor)
			t.Cleanup(server.Close)
			m := s.mail(t, s.plugin(server.URL), "", arguments)
			if m.Sent || len(m.Failed) != 1 || !strings.Contains(m.Failed[0].Message, server.URL) {
				t.Errorf("wp_mail = %+v, want false, and a failure that names the address", m)
			}
		})
	}
	t.Run("service down", func(t *testing.T) {
		dead := "http://" + freeAddr(t)
		m := s.mail(t, s.plugin(dead), `add_action('http_api_debug', function () { error_log('tried the server'); });`, arguments)
		if m.Sent || len(m.Failed) != 1 || !strings.Contains(m.Failed[0].Message, dead) || strings.Count(m.log, "tried the server") != 2 {
			t.Errorf("wp_mail = %+v, want false with the address, after two requests", m)
		}
	})
	t.Run("slow service", func(t *testing.T) {
		release := make(chan struct{})
		fake := newFakeServer(t, func(int, http.ResponseWriter, *http.Request) { <-release })
		defer close(release)
		env := s.plugin(fake.URL)
		env["MAILSIDECAR_WAIT"] = "0"
		// Behind the plugin's own time-out, so that the test need not wait for it.
		m := s.mail(t, env, `add_action('requests-curl.before_send', function ($handle) { curl_setopt($handle, CURLOPT_TIMEOUT, 1); });`, arguments)
		if m.Sent || fake.count() != 1 {
			t.Errorf("wp_mail = %+v after %d requests, want a time-out after one", m, fake.count())
		}
	})
	t.Run("no log", func(t *testing.T) {
		env := s.plugin("http://" + freeAddr(t))
		env["MAILSIDECAR_LOG"] = "false"
		if m := s.mail(t, env, "", arguments); m.log != "" {
			t.Errorf("PHP's error log = %q with MAILSIDECAR_LOG=false, want none", m.log)
		}
	})
}

// testWPRelays: a page waits as long as it should, and gets the right answer, when
// the relay is away or says "later".
func testWPRelays(t *testing.T, s *shop) {
	arguments := func(to string) string { return quote(to) + `, 'Relay', 'x'` }
	t.Run("later", func(t *testing.T) {
		if m := s.mail(t, s.env, "", arguments(postfix.Busy)); !m.Sent || m.log != "" {
			t.Errorf("wp_mail to a busy mailbox = %+v, want true: it is stored", m)
		}
	})
	t.Run("dead", func(t *testing.T) {
		server := serve(t, withKey(stored(t, s.relay, machine.FreePort(t))))
		env := s.plugin(server.url)
		env["MAILSIDECAR_WAIT"] = "50"
		for n := range 2 {
			m := s.mail(t, env, `add_action('requests-curl.before_send', function ($handle) { curl_setopt($handle, CURLOPT_TIMEOUT, 20); });`, arguments("ana@example.org"))
			if !m.Sent {
				t.Errorf("wp_mail %d with a dead relay = %+v, want true long before the wait of 50 s ends", n, m)
			}
		}
	})
	t.Run("silent", func(t *testing.T) {
		server := serve(t, withKey(stored(t, s.relay, relaytest.BlackHolePort(t))))
		env := s.plugin(server.url)
		env["MAILSIDECAR_WAIT"] = "1"
		if m := s.mail(t, env, "", arguments("ana@example.org")); !m.Sent {
			t.Errorf("wp_mail with a silent relay = %+v, want true after the wait of 1 s", m)
		}
	})
	t.Run("no queue", func(t *testing.T) {
		to := s.relay.Recipient(t)
		server := serve(t, withKey(bridge(t, s.relay, s.relay.Submission)))
		if m := s.mail(t, s.plugin(server.url), "", arguments(to)); !m.Sent || m.log != "" {
			t.Errorf("wp_mail with MAILSIDECAR_QUEUE=none = %+v, want true", m)
		}
		s.relay.Await(t, to, 1)
		server = serve(t, withKey(bridge(t, s.relay, machine.FreePort(t))))
		if m := s.mail(t, s.plugin(server.url), "", arguments(to)); m.Sent || len(m.Failed) != 1 {
			t.Errorf("wp_mail with MAILSIDECAR_QUEUE=none and a dead relay = %+v, want false", m)
		}
	})
	t.Run("no queue for a key is asked once", func(t *testing.T) {
		const none, taken = `422 - {"code":"queue_required","detail":"x"}`, `200 - {"id":"1","status":"delivered","recipients":[{"email":"ana@example.org","state":"delivered"}]}`
		fake := newFakeServer(t, answering(none, taken))
		for range 2 {
			if m := s.mail(t, s.plugin(fake.URL), "", arguments("ana@example.org")); !m.Sent {
				t.Fatalf("wp_mail = %+v, want true", m)
			}
		}
		var keys []bool
		for _, r := range fake.requests {
			keys = append(keys, r.Header.Get("Idempotency-Key") != "")
		}
		if want := []bool{true, false, false}; !slices.Equal(keys, want) {
			t.Errorf("requests with an Idempotency-Key = %v, want %v", keys, want)
		}
	})
	t.Run("the same mail twice", func(t *testing.T) {
		to := s.relay.Recipient(t)
		twice := `add_action('phpmailer_init', function ($m) { $m->MessageID = '<one@example.com>'; $m->MessageDate = 'Sun, 22 Nov 2026 10:00:00 +0000'; });
			$first = wp_mail(` + arguments(to) + `); $succeeded = 0;`
		if m := s.mail(t, s.env, twice, arguments(to)); !m.Sent || m.log != "" {
			t.Errorf("wp_mail of the same message again = %+v, want true", m)
		}
		if all := s.relay.Await(t, to, 2); len(all) != 2 {
			t.Errorf("%d messages arrived, want 2", len(all))
		}
	})
}

// testWPRequests checks the request, header by header.
func testWPRequests(t *testing.T, s *shop) {
	fake := newFakeServer(t, answering(`202 - {"id":"1","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`))
	env := s.plugin(fake.URL)
	s.mail(t, env, "", `'Ana <Ana@example.org>', 'x', 'x', 'Bcc: bo@example.org'`)
	r := fake.requests[0]
	for name, want := range map[string]string{
		"Content-Type": "message/rfc822", "Authorization": "Bearer " + testKey, "Prefer": "wait=3",
		"Envelope-From": "shop@example.com", "Envelope-To": "Ana@example.org, bo@example.org",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if key := r.Header.Get("Idempotency-Key"); !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(key) {
		t.Errorf("Idempotency-Key = %q, want one of its own", key)
	}
	env["MAILSIDECAR_WAIT"] = "0"
	s.mail(t, env, "", `'ana@example.org', 'x', 'x'`)
	if got := fake.requests[1].Header.Get("Prefer"); got != "" {
		t.Errorf("Prefer = %q with MAILSIDECAR_WAIT=0, want none", got)
	}
	if m := s.mail(t, env, `add_action('phpmailer_init', function ($m) { $m->Sender = "a@b.example\r\nX-Evil: 1"; });`, `'ana@example.org', 'x', 'x'`); m.Sent || fake.count() != 2 {
		t.Errorf("wp_mail with a line end in the sender = %+v after %d requests, want false and none sent", m, fake.count())
	}
}

// testWPPriority: the site's filter decides, and a value that is no priority is
// left out.
func testWPPriority(t *testing.T, s *shop) {
	fake := newFakeServer(t, answering(`202 - {"id":"1","status":"queued","recipients":[{"email":"ana@example.org","state":"queued"}]}`))
	const filter = `add_filter('mailsidecar_priority', function ($priority, $mailer) {
		return in_array( 'List-Unsubscribe', array_column( $mailer->getCustomHeaders(), 0 ), true ) ? 'bulk' : $priority; }, 10, 2);`
	const news = "List-Unsubscribe: <https://shop.example.com/unsubscribe>"
	for i, test := range []struct{ setup, header, want, log string }{
		{"", news, "", ""},
		{filter, news, "bulk", ""},
		{filter, "", "", ""},
		{`add_filter('mailsidecar_priority', function () { return 'urgent'; });`, "", "", "mailsidecar_priority"},
	} {
		m := s.mail(t, s.plugin(fake.URL), test.setup, `'ana@example.org', 'Hello', 'x', `+quote(test.header))
		if !m.Sent || fake.count() != i+1 {
			t.Fatalf("wp_mail with %q = %+v after %d requests, want true and %d", test.header, m, fake.count(), i+1)
		}
		if got := fake.requests[i].Header.Get("Envelope-Priority"); got != test.want || !strings.Contains(m.log, test.log) || (test.log == "") != (m.log == "") {
			t.Errorf("after %q, with %q: Envelope-Priority = %q, log %q, want %q, %q", test.setup, test.header, got, m.log, test.want, test.log)
		}
	}
}

// noCurl are PHP's options to run without ext-curl.
var noCurl = []string{"-d", "disable_functions=curl_init,curl_exec", "-d", "opcache.enable=0", "-d", "opcache.file_cache="}

// testWPLarge: libcurl asks before it sends a megabyte (Expect: 100-continue),
// PHP's streams do not. Either way the mail arrives whole, and one that is too
// large is refused in the server's words rather than by a broken connection.
func testWPLarge(t *testing.T, s *shop) {
	small := serve(t, withKey(stored(t, s.relay, s.relay.Submission)).with(environment{"MAILSIDECAR_MAX_MESSAGE_SIZE": "256KiB"}))
	for name, options := range map[string][]string{"ext-curl": nil, "streams": noCurl} {
		t.Run(name, func(t *testing.T) {
			to := s.relay.Recipient(t)
			const setup = `file_put_contents(SITE . '/large.bin', str_repeat("0123456789abcdef", 1 << 16));` // 1 MiB
			arguments := quote(to) + `, 'Large', 'x', '', [SITE . '/large.bin']`
			if m := s.mail(t, s.env, setup, arguments, options...); !m.Sent {
				t.Fatalf("wp_mail with 1 MiB = %+v, want true", m)
			}
			m := message(t, s.received(t, to).Data)
			parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
			if got := string(parts["large.bin"].data); got != strings.Repeat("0123456789abcdef", 1<<16) {
				t.Errorf("large.bin arrived with %d octets, want the 1 MiB that was sent", len(got))
			}
			refused := s.mail(t, s.plugin(small.url), setup, arguments, options...)
			if refused.Sent || len(refused.Failed) != 1 || !strings.HasSuffix(refused.Failed[0].Message, "(HTTP 413)") {
				t.Errorf("wp_mail with 1 MiB to a server that takes less = %+v, want false with HTTP 413", refused)
			}
		})
	}
}

// testWPNotConfigured: without a URL the plugin is not there.
func testWPNotConfigured(t *testing.T, s *shop) {
	m := s.mail(t, nil, `add_action('phpmailer_init', function ($m) { $m->clearAllRecipients(); });`, `'a@example.org', 'x', 'x'`)
	if m.Sent || m.Mailer == `Mailsidecar\Mailer` || m.log != "" {
		t.Errorf("wp_mail without a URL = %+v, want core's own mailer", m)
	}
}

// with returns the plugin's environment with one more variable.
func with(env map[string]string, name, value string) map[string]string {
	changed := maps.Clone(env)
	changed[name] = value
	return changed
}

// siteHealth runs the plugin's test as Site Health does.
func (s *shop) siteHealth(t *testing.T, env map[string]string, setup string) (status, description string) {
	t.Helper()
	out, log := s.Run(t, env, wordpress.Load+setup+`
		$tests = apply_filters('site_status_tests', ['direct' => [], 'async' => []]);
		echo json_encode(call_user_func($tests['direct']['mailsidecar']['test']));`)
	var result struct{ Status, Description, Label, Test string }
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.Test != "mailsidecar" || result.Label == "" || log != "" {
		t.Fatalf("site health = %q, %v\n%s", out, err, log)
	}
	return result.Status, result.Description
}

func testWPSiteHealth(t *testing.T, s *shop) {
	paused := newFakeServer(t, answering(`200 - {"relays":[{"name":"smtp","status":"paused","ladder":[{"port":587,"serving":false}],"failure":{"reply_code":535,"enhanced_code":"5.7.8","text":"<b>wrong password"}}]}`))
	const relays = `200 - {"relays":[{"name":"smtp","status":"up"}]}`
	const newest = `{"id":"2","status":"failed","recipients":[{"email":"ana@example.org","state":"bounced","reply_code":550,"enhanced_code":"5.7.1","text":"<b>not you"}]}`
	refused := newFakeServer(t, answering(relays, `200 - {"messages":[`+newest+`,`+newest+`]}`))
	some := newFakeServer(t, answering(relays, `200 - {"messages":[`+newest+`,{"id":"1","status":"delivered","recipients":[]}]}`))
	wrong := with(s.env, "MAILSIDECAR_API_KEY", "wrong")
	unreadable := with(s.env, "MAILSIDECAR_API_KEY_FILE", "/nonexistent/key")
	for _, test := range []struct {
		name        string
		env         map[string]string
		setup       string
		status      string
		description string
	}{
		{"good", s.env, "", "good", "can be reached"},
		{"not configured", nil, "", "recommended", "MAILSIDECAR_URL is not set"},
		{"down", s.plugin("http://" + freeAddr(t)), "", "critical", "cannot reach"},
		{"wrong key", wrong, "", "critical", "API key is missing or wrong"},
		{"relay paused", s.plugin(paused.URL), "", "critical", "Relay smtp is paused: 535 5.7.8 &lt;b&gt;wrong password"},
		{"foreign mailer", s.env, `require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php'; class Other extends PHPMailer\PHPMailer\PHPMailer {} $GLOBALS['phpmailer'] = new Other();`, "recommended", "Another plugin sends the mail (Other)"},
		{"address", map[string]string{"MAILSIDECAR_URL": s.server.url, "MAILSIDECAR_API_KEY": testKey, "MAILSIDECAR_FROM": "nobody"}, "", "recommended", "MAILSIDECAR_FROM is not an e-mail address"},
		{"all refused", s.plugin(refused.URL), "", "recommended", "All of the last 2 mails were refused, the newest one with: 550 5.7.1 &lt;ana@example.org&gt;: &lt;b&gt;not you"},
		{"some refused", s.plugin(some.URL), "", "good", "can be reached"},
		{"unreadable key file", unreadable, "", "critical", unreadable["MAILSIDECAR_API_KEY_FILE"]},
		{"wait", with(s.env, "MAILSIDECAR_WAIT", "long"), "", "recommended", "MAILSIDECAR_WAIT is neither"},
		{"unreadable certificates", with(s.env, "MAILSIDECAR_TLS_CA_FILE", "/nonexistent.pem"), "", "recommended", "MAILSIDECAR_TLS_CA_FILE: PHP cannot read /nonexistent.pem"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, description := s.siteHealth(t, test.env, test.setup)
			if status != test.status || !strings.Contains(description, test.description) {
				t.Errorf("site health = %s: %s, want %s: %s", status, description, test.status, test.description)
			}
		})
	}
	out, _ := s.Run(t, s.env, wordpress.Load+`echo json_encode(apply_filters('debug_information', []));`)
	if strings.Contains(out, testKey) || !strings.Contains(out, "(environment)") {
		t.Errorf("debug information = %s, want the sources and no key", out)
	}
	out, _ = s.Run(t, nil, wordpress.Load+`foreach (['http://8.8.8.8:8587', 'https://8.8.8.8', 'http://mailsidecar:8587', 'http://10.0.0.1:1', 'http://[::1]:1', 'http://127.0.0.1'] as $u) echo (int) Mailsidecar\is_clear_text_to_public($u);`)
	if out != "100000" {
		t.Errorf("clear text to a public address = %s, want 100000", out)
	}
}

// testWPTranslation: a translation is found where the documents say to put it.
// WordPress's own code writes the file, as it reads it.
func testWPTranslation(t *testing.T, s *shop) {
	s.Run(t, nil, wordpress.Load+`
		require_once ABSPATH . WPINC . '/pomo/mo.php';
		$mo = new MO();
		$mo->add_entry(new Translation_Entry(['singular' => 'Send a test mail', 'translations' => ['Poslat zkušební zprávu']]));
		$dir = WPMU_PLUGIN_DIR . '/mailsidecar-languages';
		wp_mkdir_p($dir);
		$mo->export_to_file($dir . '/mailsidecar-cs_CZ.mo');`)
	out, log := s.Run(t, s.env, wordpress.Load+`
		add_filter('determine_locale', fn () => 'cs_CZ');
		unload_textdomain('mailsidecar');
		Mailsidecar\load_translations();
		echo Mailsidecar\site_health_test()['actions'];`)
	if !strings.Contains(out, "Poslat zkušební zprávu") || log != "" {
		t.Errorf("site health in Czech = %q, want the translation\n%s", out, log)
	}
}

// wpCLI stands for WP-CLI: it takes the commands and prints what they log.
const wpCLI = `
	define('WP_CLI', true);
	class WP_CLI {
		public static $commands = [];
		static function add_command($name, $run) { self::$commands[$name] = $run; }
		static function log($s) { echo $s, "\n"; }
		static function success($s) { echo "Success: $s\n"; }
		static function warning($s) { echo "Warning: $s\n"; }
		static function error($s, $exit = true) { echo "Error: $s\n"; if ($exit) self::halt(1); }
		static function confirm($question, $options) { if (empty($options['yes'])) { echo "$question [y/n]\n"; exit; } }
		static function halt($status) { echo "exit $status\n"; exit; }
	}
	eval('namespace WP_CLI\\Utils; function format_items($format, $items, $fields) { echo "$format ", json_encode($items, JSON_UNESCAPED_SLASHES), "\n"; if ($items && array_keys($items[0]) !== $fields) echo "other fields"; }');
	` + wordpress.Load

func testWPCommandLine(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	out, log := s.Run(t, s.env, wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar test'], [`+quote(to)+`], ['html' => true]);`)
	if !strings.Contains(out, "Success: ") || !strings.Contains(out, to+": delivered 250") || log != "" {
		t.Errorf("wp mailsidecar test = %q, %q, want success with the relay's 250", out, log)
	}
	if data := string(s.received(t, to).Data); !strings.Contains(data, "text/html") {
		t.Errorf("test mail with --html = %q", data)
	}
	out, _ = s.Run(t, s.env, wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar test'], ['unknown@example.org'], []);`)
	if !strings.HasPrefix(out, "Error: mailsidecar: 550 5.1.1") {
		t.Errorf("wp mailsidecar test to a refused address = %q, want Postfix's 550", out)
	}
	out, _ = s.Run(t, s.env, wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar status'], [], []);`)
	if !strings.Contains(out, " up "+fmt.Sprint(s.relay.Submission)) || strings.Contains(out, testKey) || !strings.Contains(out, "sent in the last hour") {
		t.Errorf("wp mailsidecar status = %q, want the numbers, the relay's port and no key", out)
	}
	for name, test := range map[string]struct {
		env    map[string]string
		answer string
		want   string
		exit   int
	}{
		"flows":            {nil, `{"statuses":{"delivered":9},"oldest_due":"` + ago(4*time.Second) + `","hour":{"delivered":142},"relays":[{"name":"a","status":"up"}]}`, "Success: Mail flows: 142 sent in the last hour, none waits longer than ", 0},
		"waits":            {nil, `{"statuses":{"deferred":3},"oldest_due":"` + ago(20*time.Minute) + `","hour":{},"relays":[{"name":"a","status":"up"}]}`, "Error: Mail waits: 3 messages wait, one of them for 20 min.", 1},
		"a relay paused":   {nil, `{"statuses":{},"hour":{"delivered":1},"relays":[{"name":"a","status":"paused"},{"name":"b","status":"up"}]}`, "Error: Mail flows by another relay: 1 sent in the last hour.", 2},
		"all paused":       {nil, `{"statuses":{"deferred":1},"hour":{},"relays":[{"name":"a","status":"paused","advice":[{"found":"The password is refused.","do":"Set SMTP_PASSWORD."}]}]}`, "Error: Mail waits: no relay can be used, and 1 message waits.\na: The password is refused.\nWhat to do: Set SMTP_PASSWORD.", 2},
		"no server":        {s.plugin("http://" + freeAddr(t)), "", "Error: No mail can be sent.\nThis site cannot reach mailsidecar at http://", 3},
		"wrong key":        {with(s.env, "MAILSIDECAR_API_KEY", "wrong"), "", "Error: No mail can be sent.\nThe API key is missing or wrong.", 77},
		"not configured":   {map[string]string{"X": "1"}, "", "Error: mailsidecar is not used.", 78},
		"refuses new mail": {nil, "drained", "Error: New mail is refused.\nThe server takes no new mail: draining.", 2},
	} {
		t.Run(name, func(t *testing.T) {
			env := test.env
			if env == nil {
				fake := newFakeServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
					answer, status := test.answer, http.StatusOK
					if answer == "drained" {
						if answer = `{"statuses":{},"hour":{},"relays":[]}`; r.URL.Path == "/readyz" {
							answer, status = "not ready: draining\n", http.StatusServiceUnavailable
						}
					}
					w.Header().Set(api.HeaderOwn, "1")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, answer)
				})
				env = s.plugin(fake.URL)
			}
			out, log := s.Run(t, env, wpCLI+`call_user_func(WP_CLI::$commands['mailsidecar status'], [], ['max-age' => '15m']);`)
			if !strings.Contains(out, test.want) || !strings.HasSuffix(out, fmt.Sprintf("exit %d\n", test.exit)) || log != "" {
				t.Errorf("wp mailsidecar status = %q, %q, want %q and exit status %d", out, log, test.want, test.exit)
			}
		})
	}
}

// ago is a time of an answer.
func ago(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339Nano) }

// browser is a visitor with cookies.
type browser struct {
	*http.Client
	site string
}

func (s *shop) logIn(t *testing.T, site, user, password string) browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := browser{&http.Client{Jar: jar, Timeout: time.Minute}, site}
	b.get(t, "/wp-login.php")
	resp, err := b.PostForm(site+"/wp-login.php", url.Values{"log": {user}, "pwd": {password}, "testcookie": {"1"}, "redirect_to": {site + "/wp-admin/profile.php"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !strings.HasSuffix(resp.Request.URL.Path, "/wp-admin/profile.php") {
		t.Fatalf("login of %s ends at %s", user, resp.Request.URL)
	}
	return b
}

func (b browser) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := b.Get(b.site + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(page)
}

// testWPToolsPage: the page shows the right things to the right people, and sends
// a test mail.
func testWPToolsPage(t *testing.T, s *shop) {
	s.Run(t, s.env, wordpress.Load+`
		wp_insert_user(['user_login' => 'reader', 'user_pass' => 'reader', 'user_email' => 'reader@example.org', 'role' => 'subscriber']);
	`)
	site := s.Serve(t, s.env)
	admin := s.logIn(t, site, wordpress.Admin, wordpress.AdminPassword)
	status, page := admin.get(t, "/wp-admin/tools.php?page=mailsidecar&tab=settings")
	for _, want := range []string{"Mail goes out through mailsidecar", "MAILSIDECAR_URL", s.server.url, "environment", "Send test mail"} {
		if !strings.Contains(page, want) {
			t.Errorf("tools page (%d) lacks %q", status, want)
		}
	}
	if strings.Contains(page, testKey) || strings.Contains(page, "mailsidecar.php") {
		t.Errorf("tools page shows the key, or a warning of PHP's about the plugin:\n%s", page)
	}

	nonce := regexp.MustCompile(`name="_wpnonce" value="([0-9a-f]+)"`).FindStringSubmatch(page)
	if nonce == nil {
		t.Fatal("tools page has no nonce")
	}
	to := s.relay.Recipient(t)
	form := url.Values{"action": {"mailsidecar_test"}, "to": {to}, "_wpnonce": {nonce[1]}}
	resp, err := admin.PostForm(site+"/wp-admin/admin-post.php", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(body), "is delivered") || !strings.Contains(string(body), to+": delivered 250") || !strings.Contains(string(body), "The whole answer") {
		t.Errorf("after the test mail the page at %s does not tell what became of it:\n%s", resp.Request.URL, body)
	}
	s.relay.Await(t, to, 1)

	form.Set("_wpnonce", "0000000000")
	if resp, err := admin.PostForm(site+"/wp-admin/admin-post.php", form); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("test mail without a nonce = %v, %v, want 403", resp.StatusCode, err)
	}
	reader := s.logIn(t, site, "reader", "reader")
	if status, _ := reader.get(t, "/wp-admin/tools.php?page=mailsidecar"); status != http.StatusForbidden {
		t.Errorf("tools page for a subscriber = %d, want 403", status)
	}
	if resp, err := reader.PostForm(site+"/wp-admin/admin-post.php", form); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("test mail by a subscriber = %v, %v, want 403", resp.StatusCode, err)
	}
	if n := len(s.relay.Mailbox(t, to)); n != 1 {
		t.Errorf("%d test mails arrived, want 1", n)
	}
}

// testWPCron: mail of a scheduled task, where no person sees that wp_mail() returns
// false.
func testWPCron(t *testing.T, s *shop) {
	to := s.relay.Recipient(t)
	s.Write(t, "wordpress/wp-content/mu-plugins/task.php", `<?php add_action('shop_task', function ($to) { wp_mail($to, 'Task', 'x'); });`)
	_, log := s.Run(t, s.env, wordpress.Load+`
		wp_schedule_single_event(time() - 2, 'shop_task', [`+quote(to)+`]);
		wp_schedule_single_event(time() - 1, 'shop_task', ['unknown@example.org']);
		require ABSPATH . 'wp-cron.php';`)
	s.relay.Await(t, to, 1)
	if !strings.Contains(log, "mailsidecar: 550 5.1.1 <unknown@example.org>") {
		t.Errorf("PHP's error log = %q, want the refusal", log)
	}
}

// testWPNetwork makes the site a network: a sign-up, and mail of another site.
func testWPNetwork(t *testing.T, s *shop) {
	const host = `$_SERVER['REMOTE_ADDR'] = '127.0.0.1'; $_SERVER['HTTP_HOST'] = 'shop.example.com'; $_SERVER['REQUEST_URI'] = '/'; `
	s.Run(t, nil, host+`define('WP_INSTALLING_NETWORK', true);`+wordpress.Load+`
		require ABSPATH . 'wp-admin/includes/upgrade.php';
		foreach ($wpdb->tables('ms_global') as $table => $name) { $wpdb->$table = $name; }
		install_network();
		$result = populate_network(1, 'shop.example.com', 'admin@example.org', 'Network', '/', false);
		if (is_wp_error($result) && 'no_wildcard_dns' !== $result->get_error_code()) { echo $result->get_error_message(); exit(1); }`)
	s.Write(t, "constants.php", `<?php
		define('MULTISITE', true); define('SUBDOMAIN_INSTALL', false); define('DOMAIN_CURRENT_SITE', 'shop.example.com');
		define('PATH_CURRENT_SITE', '/'); define('SITE_ID_CURRENT_SITE', 1); define('BLOG_ID_CURRENT_SITE', 1);`)
	signedUp, other := s.relay.Recipient(t), s.relay.Recipient(t)
	out, log := s.Run(t, s.env, host+wordpress.Load+`
		wpmu_signup_user('carl', `+quote(signedUp)+`, []);
		$id = wpmu_create_blog('shop.example.com', '/two/', 'Two', 1);
		switch_to_blog($id);
		echo json_encode([is_multisite(), wp_mail(`+quote(other)+`, 'From ' . get_bloginfo('name'), 'x'), Mailsidecar\capability()]);`)
	// Before it, a newer PHP may warn of an older WordPress.
	if !strings.HasSuffix(out, `[true,true,"manage_network_options"]`) {
		t.Fatalf("network = %s, want mail sent and a capability of the network's administrators\n%s", out, log)
	}
	out, _ = s.Run(t, s.plugin("http://"+freeAddr(t)), host+`define('WP_ADMIN', true);`+wordpress.Load+`
		require ABSPATH . 'wp-admin/includes/admin.php';
		$id = wp_insert_user(['user_login' => 'owner', 'user_pass' => 'x', 'user_email' => 'owner@example.org', 'role' => 'administrator']);
		foreach ([$id, 1] as $user) {
			wp_set_current_user($user);
			echo (int) current_user_can('manage_options');
			ob_start(); Mailsidecar\render_notice(); Mailsidecar\render_tools_page(); echo (int) ('' !== ob_get_clean());
		}`)
	if !strings.HasSuffix(out, "1011") {
		t.Errorf("may and sees, for the administrator of one site and the network's = %s, want 1011: only the latter sees the mail", out)
	}
	s.relay.Await(t, signedUp, 1)
	if subject := message(t, s.received(t, other).Data).Header.Get("Subject"); subject != "From Two" {
		t.Errorf("Subject = %q, want that of the second site", subject)
	}
}

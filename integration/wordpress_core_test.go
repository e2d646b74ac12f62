package integration

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/mail"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/integration/wordpress"
)

// coreCase is one behaviour of wp_mail() that WordPress's own tests hold it to.
type coreCase struct {
	name string
	// since is the first version of WordPress that has it; empty: every one.
	since string
	// code is PHP and returns the value to check, most often wp_mail()'s result. $a
	// to $d are mailboxes.
	code string
	// returns is that result in JSON.
	returns string
	// envelope has the letters of all recipients of the message that reaches $a;
	// empty means that there is no message.
	envelope string
	// header has fields of that message, decoded: "-" means that the field is
	// absent, "!" any value but this. {a} to {d} are the mailboxes. text has its
	// parts, decoded, by file name or else by type.
	header, text map[string]string
	// raw occurs in the message as it is; rawNot does not.
	raw, rawNot string
}

// coreCases are the behaviours in the order of core's tests of wp_mail().
var coreCases = []coreCase{
	{
		name: "a line of 1000 characters", code: `return wp_mail($a, 'Long', str_repeat('A', 1000));`, returns: "true",
		envelope: "a", text: map[string]string{"text/plain": strings.Repeat("A", 1000)},
	},
	{
		name: "a boundary of the caller's",
		code: `return wp_mail($a, 'Own', "--=_own\nContent-Type: text/plain\n\nplain\n\n--=_own\nContent-Type: image/gif; name=\"a.gif\"\nContent-Transfer-Encoding: base64\n\nR0lGODlhAQ==\n--=_own--",
			["MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=\"=_own\""]);`,
		returns: "true", envelope: "a",
		raw: "--=_own\nContent-Type: image/gif; name=\"a.gif\"\nContent-Transfer-Encoding: base64\n\nR0lGODlhAQ==\n--=_own--",
	},
	{
		name: "To with a name", code: `return wp_mail("Ana <$a>", 'x', 'x');`, returns: "true",
		envelope: "a", header: map[string]string{"To": "Ana <{a}>"},
	},
	{
		name: "several with names in From, To, Cc and Bcc",
		code: `return wp_mail(["Ana <$a>", "Bo <$b>"], 'x', 'x', ['From: The Shop <shop@example.com>', "Cc: Cy <$c>", "Bcc: Dee <$d>"]);`, returns: "true",
		envelope: "abcd", header: map[string]string{"From": "The Shop <shop@example.com>", "To": "Ana <{a}>, Bo <{b}>", "Cc": "Cy <{c}>"},
	},
	{
		name: "several To in one string", code: `return wp_mail("$a, Bo <$b>,$c", 'x', 'x');`, returns: "true",
		envelope: "abc", header: map[string]string{"To": "{a}, Bo <{b}>, {c}"},
	},
	{
		name: "addresses in brackets without a name", code: `return wp_mail("<$a>", 'x', 'x', ['From: <shop@example.com>', "Cc: <$b>"]);`, returns: "true",
		envelope: "ab", header: map[string]string{"From": "WordPress <shop@example.com>", "To": "{a}", "Cc": "{b}"},
	},
	{
		name: "what it returns",
		code: `return [wp_mail($a, 'x', 'x', ['Cc: nobody', 'Bcc: neither'], ['/nonexistent']), wp_mail('no address', 'x', 'x'), wp_mail([], 'x', 'x')];`, returns: "[true,false,false]",
		envelope: "a", header: map[string]string{"Cc": "-"},
	},
	{
		name: "From", code: `return wp_mail($a, 'x', 'x', 'From: Shop <shop@example.com>');`, returns: "true",
		envelope: "a", header: map[string]string{"From": "Shop <shop@example.com>"},
	},
	{
		name: "From without a blank before the address", code: `return wp_mail($a, 'x', 'x', 'From: Shop<shop@example.com>');`, returns: "true",
		envelope: "a", header: map[string]string{"From": "Shop <shop@example.com>"},
	},
	{
		name: "From that is empty", code: `return wp_mail($a, 'x', 'x', 'From: ');`, returns: "true",
		envelope: "a", header: map[string]string{"From": "WordPress <wordpress@shop.example.com>"},
	},
	{
		name: "From without a name", code: `return wp_mail($a, 'x', 'x', 'From: shop@example.com');`, returns: "true",
		envelope: "a", header: map[string]string{"From": "WordPress <shop@example.com>"},
	},
	{
		name: "a site without an address",
		code: `add_filter('network_home_url', '__return_empty_string'); add_filter('home_url', '__return_empty_string'); $r = wp_mail($a, 'x', 'x'); return [$r, count($failed)];`, returns: "[false,1]",
	},
	{
		name: "Content-Type", code: `return wp_mail($a, 'x', '<b>x</b>', 'Content-Type: text/html; charset=iso-8859-1');`, returns: "true",
		envelope: "a", header: map[string]string{"Content-Type": "text/html; charset=iso-8859-1"},
	},
	{
		name: "Content-Type that is empty", code: `return wp_mail($a, 'x', 'x', 'Content-Type: ');`, returns: "true",
		envelope: "a", header: map[string]string{"Content-Type": "text/plain; charset=UTF-8"},
	},
	{
		name: "Content-Type without a charset", code: `return wp_mail($a, 'x', '<b>x</b>', 'Content-Type: text/html');`, returns: "true",
		envelope: "a", header: map[string]string{"Content-Type": "text/html; charset=UTF-8"},
	},
	{
		name: "one MIME-Version", code: `return wp_mail($a, 'x', 'x', ["MIME-Version: 1.0"]);`, returns: "true",
		envelope: "a", header: map[string]string{"MIME-Version": "1.0"},
	},
	{
		name: "Encoding of a part stays off the multipart",
		code: `add_action('phpmailer_init', function ($m) { $m->Encoding = 'quoted-printable'; $m->AltBody = 'plain'; });
			return wp_mail($a, 'x', '<b>rich</b>', 'Content-Type: text/html');`, returns: "true",
		envelope: "a", header: map[string]string{"Content-Transfer-Encoding": "!quoted-printable"}, text: map[string]string{"text/html": "<b>rich</b>", "text/plain": "plain"},
	},
	{
		name: "names are encoded, addresses are not",
		code: `return wp_mail("Žofie <$a>", 'x', 'x', ['From: Můj obchod <shop@example.com>', "Cc: Čeněk <$b>", "Bcc: Řehoř <$c>", 'Reply-To: Šárka <sarka@example.com>']);`, returns: "true",
		envelope: "abc", header: map[string]string{"From": "Můj obchod <shop@example.com>", "To": "Žofie <{a}>", "Cc": "Čeněk <{b}>", "Reply-To": "Šárka <sarka@example.com>"},
		raw: "<sarka@example.com>", rawNot: "Žofie",
	},
	{
		name: "Sender stays empty", code: `wp_mail($a, 'x', 'x'); return $GLOBALS['phpmailer']->Sender;`, returns: `""`, envelope: "a",
	},
	{
		name: "wp_mail_failed and its data",
		code: `wp_mail('no address', 'The subject', 'The text', ['X-A: b'], ['/nonexistent']); $data = $failed[0]->get_error_data(); unset($data['embeds']);
			return [count($failed), $data];`,
		returns: `[1,{"to":["no address"],"subject":"The subject","message":"The text","headers":{"X-A":"b"},"attachments":["\/nonexistent"],"phpmailer_exception_code":2}]`,
	},
	{
		name: "attachments by the names of their files", code: `return wp_mail($a, 'x', 'x', '', [SITE . '/one.txt', SITE . '/two.txt']);`, returns: "true",
		envelope: "a", text: map[string]string{"one.txt": "one", "two.txt": "two"},
	},
	{
		name: "attachments by names of their own", since: "6.2", code: `return wp_mail($a, 'x', 'x', '', ['first.txt' => SITE . '/one.txt', SITE . '/two.txt']);`, returns: "true",
		envelope: "a", text: map[string]string{"first.txt": "one", "two.txt": "two"},
	},
	{
		name: "the judge of addresses is is_email()", code: `wp_mail($a, 'x', 'x'); return [$GLOBALS['phpmailer']->validateAddress('foo@192.168.1.1'), $GLOBALS['phpmailer']->validateAddress('foo@bar')];`, returns: "[true,false]",
		envelope: "a",
	},
	{
		name: "pre_wp_mail answers", code: `add_filter('pre_wp_mail', '__return_false'); return [wp_mail($a, 'x', 'x'), count($failed)];`, returns: "[false,0]",
	},
	{
		name: "AltBody is of one mail",
		code: `$alt = function ($m) { $m->AltBody = 'of the first'; }; add_action('phpmailer_init', $alt); $r = wp_mail($b, 'x', '<b>x</b>', 'Content-Type: text/html');
			remove_action('phpmailer_init', $alt); return [$r, wp_mail($a, 'x', 'x'), $GLOBALS['phpmailer']->AltBody];`, returns: `[true,true,""]`,
		envelope: "a", header: map[string]string{"Content-Type": "text/plain; charset=UTF-8"}, rawNot: "of the first",
	},
	{
		name: "embeds with keys and without", since: "6.9",
		code:    `return wp_mail($a, 'x', '<img src="cid:logo"><img src="cid:1">', 'Content-Type: text/html', [], ['logo' => SITE . '/logo.png', SITE . '/other.png']);`,
		returns: "true", envelope: "a", text: map[string]string{"logo.png <logo>": "PNG 1", "other.png <0>": "PNG 2"},
	},
	{
		name: "embeds with keys", since: "6.9",
		code:    `return wp_mail($a, 'x', '<img src="cid:canola">', 'Content-Type: text/html', [], ['canola' => SITE . '/logo.png', 'rose' => SITE . '/other.png']);`,
		returns: "true", envelope: "a", text: map[string]string{"logo.png <canola>": "PNG 1", "other.png <rose>": "PNG 2"},
	},
	{
		name: "embeds in a list", since: "6.9",
		code:    `return wp_mail($a, 'x', '<img src="cid:0"><img src="cid:1">', 'Content-Type: text/html', [], [SITE . '/logo.png', SITE . '/other.png']);`,
		returns: "true", envelope: "a", text: map[string]string{"logo.png <0>": "PNG 1", "other.png <1>": "PNG 2"},
	},
	{
		name: "embeds in lines", since: "6.9",
		code:    `return wp_mail($a, 'x', '<img src="cid:0">', 'Content-Type: text/html', '', SITE . "/logo.png\n" . SITE . "/other.png");`,
		returns: "true", envelope: "a", text: map[string]string{"logo.png <0>": "PNG 1", "other.png <1>": "PNG 2"},
	},
	{
		name: "Encoding is of one mail",
		code: `wp_mail($b, 'x', str_repeat('A', 1000)); return wp_mail($a, 'x', 'short');`, returns: "true",
		envelope: "a", header: map[string]string{"Content-Transfer-Encoding": "!quoted-printable"}, text: map[string]string{"text/plain": "short"},
	},
	{
		name:    "a multipart/alternative of the caller's",
		code:    `return wp_mail($a, 'x', "--alt\r\nContent-Type: text/plain\r\n\r\nplain\r\n--alt\r\nContent-Type: text/html\r\n\r\n<b>rich</b>\r\n--alt--\r\n", 'Content-Type: multipart/alternative; boundary="alt"');`,
		returns: "true", envelope: "a", raw: "--alt\nContent-Type: text/html\n\n<b>rich</b>\n--alt--",
	},
	{
		name: "AltBody by a callback that names the mailer's class",
		code: `add_action('phpmailer_init', function (PHPMailer\PHPMailer\PHPMailer $m) { $m->AltBody = wp_strip_all_tags($m->Body); });
			return wp_mail($a, 'x', '<b>rich</b>', 'Content-Type: text/html');`, returns: "true",
		envelope: "a", text: map[string]string{"text/html": "<b>rich</b>", "text/plain": "rich"},
	},
}

// coreResult is the result of one case.
type coreResult struct {
	Returns json.RawMessage
	Failed  []string
	Mailer  string
	// Sent are the messages that a mock kept.
	Sent []struct {
		Envelope []string
		Message  string
	}
}

// testWPCore holds wp_mail() to core's own tests twice with the plugin active:
// with their mock in the global, which the plugin must leave there, and with
// the plugin's mailer, where the delivered message is checked. All cases run in one
// process, so that a case may leave nothing behind for the next.
func testWPCore(t *testing.T, s *shop) {
	s.Write(t, "one.txt", "one")
	s.Write(t, "two.txt", "two")
	s.Write(t, "logo.png", "PNG 1")
	s.Write(t, "other.png", "PNG 2")
	env := s.plugin(s.server.url)
	delete(env, "MAILSIDECAR_FROM") // the cases check core's own From
	for _, mock := range []bool{true, false} {
		t.Run(map[bool]string{true: "mock", false: "delivered"}[mock], func(t *testing.T) {
			boxes := make([][]string, len(coreCases))
			for i, c := range coreCases {
				boxes[i] = coreMailboxes(t, s, c, mock)
			}
			results := s.runCore(t, env, boxes, mock)
			for i, c := range coreCases {
				t.Run(c.name, func(t *testing.T) {
					if c.since != "" && s.olderThan(c.since) {
						t.Skipf("WordPress has it since %s", c.since)
					}
					c.judge(t, s, results[i], boxes[i], mock)
				})
			}
		})
	}
}

// coreMailboxes returns an address for each letter. The relay has mailboxes for
// those that the case uses; a mock needs none.
func coreMailboxes(t *testing.T, s *shop, c coreCase, mock bool) []string {
	t.Helper()
	boxes := make([]string, 4)
	for i := range boxes {
		boxes[i] = fmt.Sprintf("mock%d@example.org", i)
		if letter := string(rune('a' + i)); !mock && strings.Contains(c.code, "$"+letter) {
			boxes[i] = s.relay.Recipient(t)
		}
	}
	return boxes
}

func (s *shop) olderThan(version string) bool {
	number := func(v string) int {
		parts := strings.Split(v+".0", ".")
		major, _ := strconv.Atoi(parts[0])
		minor, _ := strconv.Atoi(parts[1])
		return 100*major + minor
	}
	return number(s.Version) < number(version)
}

// runCore runs every case in one process.
func (s *shop) runCore(t *testing.T, env map[string]string, boxes [][]string, mock bool) []coreResult {
	t.Helper()
	var code strings.Builder
	fmt.Fprintf(&code, "%s const MOCK = %t; %s", wordpress.Load, mock, coreRunner)
	for i, c := range coreCases {
		if c.since != "" && s.olderThan(c.since) {
			code.WriteString("$results[] = ['returns' => null];\n")
			continue
		}
		fmt.Fprintf(&code, "run_case(function ($a, $b, $c, $d, &$failed) { %s }, %s);\n", c.code, mustJSON(t, boxes[i]))
	}
	code.WriteString("echo json_encode($results, JSON_UNESCAPED_UNICODE);")
	out, log := s.Run(t, env, code.String())
	var results []coreResult
	if err := json.Unmarshal([]byte(out), &results); err != nil || len(results) != len(coreCases) {
		t.Fatalf("core's cases printed %q: %v\n%s", out, err, log)
	}
	return results
}

// coreRunner runs one case, with core's hooks as they were before it. The mock
// is made as that of core's tests is.
const coreRunner = `
require_once ABSPATH . WPINC . '/PHPMailer/PHPMailer.php';
require_once ABSPATH . WPINC . '/PHPMailer/Exception.php';
class MockPHPMailer extends PHPMailer\PHPMailer\PHPMailer {
	public $sent = [];
	public function preSend() { $this->Encoding = '8bit'; return parent::preSend(); }
	public function postSend() {
		$header = rtrim($this->MIMEHeader) . static::$LE . rtrim($this->mailHeader);
		$this->sent[] = ['envelope' => array_column(array_merge($this->to, $this->cc, $this->bcc), 0), 'message' => $header . static::$LE . static::$LE . $this->MIMEBody];
		return true;
	}
}
$results = [];
function run_case($case, $boxes) {
	global $phpmailer, $wp_filter, $results;
	if (MOCK) {
		$phpmailer = new MockPHPMailer(true);
		$phpmailer::$validator = fn ($email) => (bool) is_email($email);
	}
	$hooks = array_map(fn ($hook) => clone $hook, $wp_filter);
	$failed = [];
	add_action('wp_mail_failed', function ($error) use (&$failed) { $failed[] = $error; });
	$args = $boxes;
	$args[] = &$failed;
	$returns = $case(...$args);
	$wp_filter = $hooks;
	$results[] = [
		'returns' => $returns, 'failed' => array_map(fn ($e) => $e->get_error_message(), $failed),
		'mailer' => is_object($phpmailer) ? get_class($phpmailer) : '', 'sent' => $phpmailer->sent ?? [],
	];
}
`

func (c coreCase) judge(t *testing.T, s *shop, got coreResult, boxes []string, mock bool) {
	t.Helper()
	if string(got.Returns) != c.returns {
		t.Errorf("result = %s, want %s; wp_mail_failed was told %q", got.Returns, c.returns, got.Failed)
	}
	if want := map[bool]string{true: "MockPHPMailer", false: `Mailsidecar\Mailer`}[mock]; got.Mailer != want {
		t.Errorf("mailer = %s, want %s", got.Mailer, want)
	}
	var envelope []string
	for _, letter := range c.envelope {
		envelope = append(envelope, boxes[letter-'a'])
	}
	var data string
	if mock {
		data = got.keptByMock(t, envelope)
	} else {
		data = s.sameForAll(t, envelope)
	}
	if len(envelope) > 0 {
		c.judgeMessage(t, strings.ReplaceAll(data, "\r\n", "\n"), boxes)
	}
}

// keptByMock returns the last message that the mock kept.
func (got coreResult) keptByMock(t *testing.T, envelope []string) string {
	t.Helper()
	if len(got.Sent) == 0 {
		if len(envelope) > 0 {
			t.Fatal("the mock has no message")
		}
		return ""
	}
	last := got.Sent[len(got.Sent)-1]
	if !slices.Equal(last.Envelope, envelope) {
		t.Errorf("the mock's envelope = %q, want %q", last.Envelope, envelope)
	}
	return last.Message
}

// sameForAll returns what the relay delivered to the first of the envelope, and
// expects the same at the others.
func (s *shop) sameForAll(t *testing.T, envelope []string) string {
	t.Helper()
	var first string
	for i, box := range envelope {
		data := string(s.relay.Await(t, box, 1)[0].Data)
		if i == 0 {
			first = data
		}
		if strings.Contains(data, "\nBcc:") || data != first {
			t.Errorf("%s has another message than %s, or one that names the Bcc recipients: %q", box, envelope[0], data)
		}
	}
	return first
}

func (c coreCase) judgeMessage(t *testing.T, data string, boxes []string) {
	t.Helper()
	m := message(t, []byte(data))
	names := strings.NewReplacer("{a}", boxes[0], "{b}", boxes[1], "{c}", boxes[2], "{d}", boxes[3])
	for name, want := range c.header {
		judgeField(t, m, name, names.Replace(want))
	}
	if c.raw != "" && !strings.Contains(data, c.raw) {
		t.Errorf("the message lacks %q: %q", c.raw, data)
	}
	if c.rawNot != "" && strings.Contains(data, c.rawNot) {
		t.Errorf("the message has %q: %q", c.rawNot, data)
	}
	if len(c.text) == 0 {
		return
	}
	parts := leaves(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
	for what, want := range c.text {
		name, id, _ := strings.Cut(what, " ")
		if part := parts[name]; strings.TrimRight(string(part.data), "\r\n") != want || part.contentID != id {
			t.Errorf("part %s = %.60q with Content-ID %q, want %.60q with %q; parts: %v", name, part.data, part.contentID, want, id, keys(parts))
		}
	}
}

// judgeField wants the field once with that value, or not at all ("-"), or not
// with that value ("!value").
func judgeField(t *testing.T, m *mail.Message, name, want string) {
	t.Helper()
	values := m.Header[textproto.CanonicalMIMEHeaderKey(name)]
	unwanted, not := strings.CutPrefix(want, "!")
	if want == "-" && len(values) > 0 || not && slices.Contains(values, unwanted) {
		t.Errorf("%s = %q, want %q", name, values, want)
	}
	if want == "-" || not {
		return
	}
	if len(values) != 1 {
		t.Errorf("%s = %q, want one", name, values)
		return
	}
	if got, err := new(mime.WordDecoder).DecodeHeader(values[0]); err != nil || got != want {
		t.Errorf("%s = %q, %v, want %q", name, got, err, want)
	}
}

package handler

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/queue"
)

// addressed is a letter from and to these addresses, each of which is written as it
// stands. In some entrances they are in Cc or Bcc.
func addressed(entrance, from string, to []string) letter {
	l := letter{from: party{"", from}, subject: "x", text: "x"}
	parties := make([]party, len(to))
	for i, email := range to {
		parties[i].Email = email
	}
	switch entrance {
	case "json":
		l.bcc = parties
	case "batch":
		l.cc = parties
	default:
		l.to = parties
	}
	return l
}

func quoted(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func partsRequest(t *testing.T, path string, parts [][2]string) *http.Request {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, part := range parts {
		if err := w.WriteField(part[0], part[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return newRequest("POST", path, body.String(), "Content-Type: "+w.FormDataContentType())
}

func sesRequest(body string) *http.Request {
	r := apis["ses"].request("ses", strings.NewReader(body))
	authorize(r, "ses", testKey) // the signature covers the body
	return r
}

// visitor sends messages through the entrances of one server.
type visitor struct {
	queue  *fakeQueue
	server *Server
}

func newVisitor(t *testing.T, senders ...string) visitor {
	q := &fakeQueue{durable: true}
	return visitor{q, newTestServer(t, q, func(o *Options) {
		o.Keys = []keys.Entry{{Name: "shop", Secret: testKey, Senders: senders}}
	})}
}

// send makes a request, and returns what it brought into the queue; nil where it was
// refused.
func (v visitor) send(t *testing.T, r *http.Request) (*queue.Submission, answer) {
	t.Helper()
	before := len(v.queue.submissions())
	a := serveDialect(v.server, r)
	got := v.queue.submissions()[before:]
	switch {
	case len(got) == 1 && a.status/100 == 2:
		return &got[0], a
	case len(got) > 0 || a.status/100 != 4:
		t.Fatalf("answer = %d %s, and %d messages were stored", a.status, a.body, len(got))
	}
	return nil, a
}

// envelope is the reverse-path of a submission and then its recipients.
func envelope(s *queue.Submission) []string {
	if s == nil {
		return nil
	}
	return append([]string{s.Envelope.ReversePath}, s.Envelope.ForwardPaths...)
}

// TestDoorsTakeAddresses: what relays take is taken in every door, as recipient and as
// author, and becomes the same envelope.
func TestDoorsTakeAddresses(t *testing.T) {
	long := "bounce+" + strings.Repeat("x", 200) + "=example.org@example.com"
	to := []string{
		"a..b@docomo.test", ".a@docomo.test", "a.@docomo.test", `"c..d"@docomo.test`, long, "x@müller.test", "x@BÜCHER.test", "用户@例子.test", "jörg@example.org",
		`"a b"@example.org`, "a@x_y.test", "a@[192.0.2.1]", "a+b%c!d@example.org", "x@☃.test", "क्\u200dष@नामक्\u200dष.test",
	}
	want := []string{
		"a..b@docomo.test", ".a@docomo.test", "a.@docomo.test", "c..d@docomo.test", long, "x@xn--mller-kva.test", "x@xn--bcher-kva.test", "用户@xn--fsqu00a.test", "jörg@example.org",
		`"a b"@example.org`, "a@x_y.test", "a@[192.0.2.1]", "a+b%c!d@example.org", "x@xn--n3h.test", "क्\u200dष@xn--11b1bs1b6a6f215r.test",
	}
	v := newVisitor(t)
	for name, request := range entrances() {
		for i := range to {
			s, a := v.send(t, request(addressed(name, to[i], to), t))
			if expected := append([]string{want[i]}, want...); !slices.Equal(envelope(s), expected) {
				t.Errorf("%s: envelope = %q (%d %s), want %q", name, envelope(s), a.status, a.body, expected)
				continue
			}
			if header, _, _ := bytes.Cut(s.Content.Data, []byte("\r\n\r\n")); bytes.Contains(header, []byte("müller")) || bytes.Contains(header, []byte("例子")) {
				t.Errorf("%s: a domain is not in A-labels: %s", name, header)
			}
		}
	}
}

// TestDoorsRefuseAddresses: what no relay could take is refused in every door, as recipient
// and as author, and nothing is stored. A character that cannot be seen is named.
func TestDoorsRefuseAddresses(t *testing.T) {
	v := newVisitor(t)
	for address, word := range map[string]string{
		"ana@": "", "@example.org": "", "ana@example..org": "", "ana@-x.test": "", "a b@example.org": "", "..@example.org": "",
		strings.Repeat("l", 243) + "@example.org": "", "ana@" + strings.Repeat("l", 64) + ".test": "",
		"a\u202eb@example.org": "U+202E", "ana@ex\u200bample.org": "U+200B", "\ufeffana@example.org": "U+FEFF", "a\u200db@example.org": "U+200D",
		"ana@a\u200db.test": "U+200D", "an\u00ada@example.org": "U+00AD", "ana\u2028@example.org": "U+2028", "an\u0085a@example.org": "U+0085",
		"an\U000e0061a@example.org": "U+E0061", "an\ufe0fa@example.org": "U+FE0F", `"a` + "\u202e" + `b"@example.org`: "U+202E",
	} {
		for name, request := range entrances() {
			for _, mail := range [][]string{{"shop@example.com", address}, {address, "ana@example.org"}} {
				if s, a := v.send(t, request(addressed(name, mail[0], mail[1:]), t)); s != nil || !strings.Contains(string(a.body), word) {
					t.Errorf("%s: from %+q to %+q: %d %s, want a refusal with %q", name, mail[0], mail[1], a.status, a.body, word)
				}
			}
		}
	}
}

// TestDoorsAgree: odd addresses, made at random, are the same in every door: taken as the
// same recipient, or refused.
func TestDoorsAgree(t *testing.T) {
	letters := []string{
		"a", "b", "c", ".", ".", "@", "-", "_", "+", "%", "!", "'", "/", "x.test", "@example.org", "@[192.0.2.1]", `"`, " ", `\`, "ü", "ß", "用", "é", "İ", "K",
		"\u200b", "\u200d", "\u202e", "\ufe0f", "\u00ad", "xn--", "☃", "。", "ａ", strings.Repeat("l", 60), "\u0301", "क्",
	}
	v := newVisitor(t)
	random := rand.New(rand.NewPCG(14, 4))
	for range 400 {
		address := letters[random.IntN(3)]
		for range random.IntN(6) {
			address += letters[random.IntN(len(letters))]
		}
		if random.IntN(4) > 0 {
			address += "@" + letters[random.IntN(len(letters))] + "x.test"
		}
		envelopes := map[string][]string{}
		for name, request := range entrances() {
			s, _ := v.send(t, request(addressed(name, "shop@example.com", []string{address}), t))
			key := fmt.Sprintf("%q", envelope(s))
			envelopes[key] = append(envelopes[key], name)
		}
		if len(envelopes) != 1 {
			t.Errorf("%+q: the doors make different envelopes: %q", address, envelopes)
		}
	}
}

// TestDoorsBindFrom: whatever a program may read as the author of a message is an address
// from which the key may send, in every door.
func TestDoorsBindFrom(t *testing.T) {
	const forbidden, ambiguous = "sender_not_allowed", "invalid_message"
	v := newVisitor(t, "a.example", "own@c.example")
	for from, want := range map[string]string{
		"x@a.example": "", "Shop <x@a.example>": "", `"Shop, Ltd." <x@a.example>`: "", "x@A.EXAMPLE": "", "own@c.example": "", "J. Roe <x@a.example>": "",
		`"Own <own@c.example>" <x@a.example>`: "", `"Yoga @ Home" <x@a.example>`: "", "Jörg Müller <x@a.example>": "", "=?utf-8?q?J=C3=B6rg?= <x@a.example>": "",
		"x@b.example": forbidden, "x@sub.a.example": forbidden, "Own <other@c.example>": forbidden, "\u212aown@c.example": forbidden,
		`"b@b.example" <x@a.example>`: ambiguous, `"Jörg b@b.example" <x@a.example>`: ambiguous, "=?utf-8?q?b=40b.example?= <x@a.example>": ambiguous,
		`"b@b.example x"@a.example`: ambiguous, "=?utf-8?q?b=40b.example?=@a.example": ambiguous, "=?utf-7?q?b+AEA-b.example?= <x@a.example>": ambiguous,
	} {
		for name, request := range entrances() {
			r := request(addressed(name, from, []string{"ana@example.org"}), t)
			if name == "envelope" || strings.Contains(from, "<") && bytes.Contains(keepBody(r), []byte(`"email"`)) {
				continue // the reverse-path is free, and such a door has another place for a name
			}
			s, a := v.send(t, r)
			if native := r.URL.Path == "/v1/messages"; (s != nil) != (want == "") || native && !strings.Contains(string(a.body), want) {
				t.Errorf("%s: from %s: %d %s, want %q", name, from, a.status, a.body, want)
			}
		}
	}
}

// TestFinishedBindFrom: a From field that programs read in different ways is refused in the
// doors for finished messages, with its name. Sender and Resent-From are free.
func TestFinishedBindFrom(t *testing.T) {
	v := newVisitor(t, "a.example")
	for _, field := range []string{
		"From: [<b@b.example>] <x@a.example>",
		"From: b@b.example <x@a.example>",
		"From: b@b.example: x@a.example;",
		"From : x@a.example",
		"From: x@a.example\r\n \r\n (b@b.example)",
		"From: x@a.example (a (b) <b@b.example>)",
		"From: <@b.example:x@a.example>",
		"From: Shop: x@a.example;",
		"From: ,x@a.example",
		"From: x@a.example, y@b.example",
		"From: x@a.example\r\nFrom: b@b.example",
		"From: x@a.example\r\nfrom : b@b.example",
		"From: b@b.example\r x@a.example",
		"From: x@a.example\x00b@b.example",
		"From: \xe4b@b.example <x@a.example>",
		"From: \"\xe4 b@b.example\" <x@a.example>",
		"From: x@a.example (ä b@b.example)",
		"From: ä: x@a.example;",
		"From: \x1b[2Kb@b.example <x@a.example>",
	} {
		for _, more := range []string{"", "DKIM-Signature: v=1; h=From; b=x\r\n", "Sender: x@a.example\r\nReply-To: x@a.example\r\n"} {
			for name, r := range finishedRequests(t, field+"\r\n"+more) {
				if s, a := v.send(t, r); s != nil {
					t.Errorf("%s: %q with %q: %d, want it refused; sent was\n%s", name, field, more, a.status, s.Content.Data)
				}
			}
		}
	}
	for name, r := range finishedRequests(t, "From: \"Shop\" <x@a.example> (a)\r\nSender: b@b.example\r\nResent-From: b@b.example\r\nReply-To: b@b.example\r\n") {
		if s, a := v.send(t, r); s == nil {
			t.Errorf("%s: %d %s, want it taken", name, a.status, a.body)
		}
	}
}

// finishedRequests send the fields as a finished message, through each door for such.
func finishedRequests(t *testing.T, fields string) map[string]*http.Request {
	t.Helper()
	message := fields + "To: ana@example.org\r\nSubject: x\r\n\r\nx\r\n"
	mime := partsRequest(t, apis["mailgun"].path+".mime", [][2]string{{"to", "ana@example.org"}, {"message", message}})
	authorize(mime, "mailgun", testKey)
	return map[string]*http.Request{
		"raw":      newRequest("POST", "/v1/messages", message, "Content-Type: "+intake.TypeRFC822),
		"envelope": newRequest("POST", "/v1/messages", message, "Content-Type: "+intake.TypeRFC822, "Envelope-From: x@a.example", "Envelope-To: ana@example.org"),
		"mailgun":  mime,
		"ses": sesRequest(quoted(t, map[string]any{
			"FromEmailAddress": "x@a.example", "Destination": map[string]any{"ToAddresses": []string{"ana@example.org"}},
			"Content": map[string]any{"Raw": map[string]string{"Data": base64.StdEncoding.EncodeToString([]byte(message))}},
		})),
	}
}

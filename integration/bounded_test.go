package integration

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// Keys of the server that is attacked: mallory's is known to the attackers.
const (
	honestKey  = "honest-secret-of-shop-0123456789"
	malloryKey = "mallory-secret-0123456789abcdef"
)

// TestUnderLimit: with default settings in a container of 512 MiB the server survives
// all attacks at once, by strangers and by one key, and takes each mail of another key
// meanwhile.
func TestUnderLimit(t *testing.T) {
	group := machine.LimitMemory(t, 512<<20)
	relay := spacious7Bit(t)
	a := startAttacked(t, relay, group.Enter())
	attacks := append(strangers(), oneKey()...)
	times := a.beside(t, func() { a.all(t, attacks, 2) })
	if n := group.Killed(t); n > 0 || a.s.ended() {
		t.Fatalf("the kernel has killed the server %d times", n)
	}
	machine.Await(t, "every mail of the honest client at the relay", func() bool {
		got := 0
		for _, m := range relay.Messages() {
			if m.ReversePath == "shop@example.com" {
				got++
			}
		}
		return got >= len(times)
	})
	t.Logf("%d mails beside %d of the attackers", len(times), len(relay.Messages())-len(times))
	// The formula of docs/operating.md, with the defaults.
	a.s.wantMemory(t, "VmHWM", 96+2*128+2000*64/1024)
}

// spacious7Bit is a relay for which messages must be converted. It keeps little of them.
func spacious7Bit(t *testing.T) *relaytest.Relay {
	return relaytest.New(t, relaytest.Options{
		TLSExtensions: append(relaytest.Without("SIZE", "8BITMIME"), "SIZE 104857600"), Kept: 4 << 10,
	}, nil)
}

// startAttacked starts a server with default settings, under another program if one is
// given.
func startAttacked(t *testing.T, relay *relaytest.Relay, wrapper []string) *attacker {
	t.Helper()
	command := append(wrapper, leanBinary(t), "serve")
	tlsAddr := freeAddr(t)
	s := serveAs(t, durable(t, relay).with(environment{
		"MAILSIDECAR_API_KEYS": "shop:" + honestKey + ",mallory:" + malloryKey,
		"MAILSIDECAR_TLS":      "self-signed", "MAILSIDECAR_TLS_ADDR": tlsAddr,
	}), func(cmd *exec.Cmd) { cmd.Path, cmd.Args = command[0], command })
	return &attacker{s: s, addr: strings.TrimPrefix(s.url, "http://"), tlsAddr: tlsAddr, ctx: t.Context()}
}

// all makes all attacks at once, each n times.
func (a *attacker) all(t *testing.T, attacks []attack, n int) {
	together(len(attacks), func(i int) {
		for range n {
			attacks[i].run(a)
			if a.s.ended() {
				t.Errorf("the server has ended during or after %q", attacks[i].name)
				return
			}
		}
	})
}

// beside sends mail with the honest key while f runs, and returns how long each took. Each
// must be accepted.
func (a *attacker) beside(t *testing.T, f func()) (times []time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var honest sync.WaitGroup
	honest.Go(func() { times = a.s.sendSteadily(t, ctx) })
	f()
	cancel()
	honest.Wait()
	return times
}

// sendSteadily sends mail with the honest key until ctx ends, and returns how long each
// took. Each must be accepted.
func (s *sidecar) sendSteadily(t *testing.T, ctx context.Context) (times []time.Duration) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(order(nil))
	if err != nil {
		t.Error(err)
	}
	for ; ctx.Err() == nil && !s.ended(); time.Sleep(5 * time.Millisecond) {
		r, err := http.NewRequest(http.MethodPost, s.url+"/v1/messages", bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return times
		}
		// With a key for repeats net/http asks again where a kept connection was closed
		// between two requests, as the server may do with one that rests for a second: the
		// attackers in this process can keep the client from the processor that long.
		r.Header = http.Header{
			"Authorization": {"Bearer " + honestKey}, "Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprint("mail-", time.Now().UnixNano())},
		}
		begin := time.Now()
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("mail %d: %v", len(times)+1, err)
			return times
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Errorf("mail %d = %d %s, want 202", len(times)+1, resp.StatusCode, text)
			return times
		}
		times = append(times, time.Since(begin))
	}
	return times
}

// attacker is what attacks need.
type attacker struct {
	s             *sidecar
	addr, tlsAddr string
	ctx           context.Context
}

type attack struct {
	name string
	run  func(*attacker)
}

// together runs f n times at once.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// post sends a request and reads its answer, whatever that is.
func (a *attacker) post(path, contentType string, body io.Reader, fields ...string) {
	r, err := http.NewRequestWithContext(a.ctx, http.MethodPost, a.s.url+path, body)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", contentType)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	if resp, err := http.DefaultClient.Do(r); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// keyed is post with mallory's key.
func (a *attacker) keyed(path, contentType string, body io.Reader, fields ...string) {
	a.post(path, contentType, body, append(fields, "Authorization: Bearer "+malloryKey)...)
}

// hold opens n connections, sends the octets over each, and leaves them open for a while.
func (a *attacker) hold(n int, addr, octets string) {
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			continue // the server is full, or has no more ports
		}
		conns = append(conns, c)
		go func() {
			_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(c, octets)
		}()
	}
	time.Sleep(5 * time.Second)
	for _, c := range conns {
		_ = c.Close()
	}
}

// slowly reads the reader at so many octets a second, for ten seconds.
type slowly struct {
	io.Reader
	rate int
	end  time.Time
}

func (r *slowly) Read(p []byte) (int, error) {
	if time.Now().After(r.end) {
		return 0, io.ErrUnexpectedEOF
	}
	time.Sleep(time.Second / 10)
	return r.Reader.Read(p[:min(len(p), r.rate/10)])
}

func slow(rate int, body []byte) io.Reader {
	return &slowly{bytes.NewReader(body), rate, time.Now().Add(10 * time.Second)}
}

func zipped(text string) *bytes.Buffer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return &b
}

const (
	asJSONType  = "application/json"
	testToken   = "X-Postmark-Server-Token: POSTMARK_API_TEST"
	asGzip      = "Content-Encoding: gzip"
	finishedAs  = "message/rfc822"
	toAna       = "Envelope-To: ana@example.org"
	fromMallory = "Envelope-From: mallory@example.com"
)

// strangers are attacks that need no key.
func strangers() []attack {
	return []attack{
		{"elements behind gzip", func(a *attacker) {
			body := zipped(`{"From":"x@a.example","To":"y@b.example","TextBody":"t","Attachments":[` + strings.Repeat("{},", 349_000) + `{}]}`).Bytes()
			together(6, func(int) { a.post("/email", asJSONType, bytes.NewReader(body), testToken, asGzip) })
		}},
		{"announced bodies", func(a *attacker) {
			for _, length := range []int{1 << 20, 60_000} {
				a.hold(128, a.addr, "POST /email HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+testToken+"\r\nContent-Length: "+strconv.Itoa(length)+"\r\n\r\n{")
			}
		}},
		{"unfinished headers", func(a *attacker) {
			a.hold(200, a.addr, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 960_000))
			a.hold(600, a.addr, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 250_000))
			a.hold(600, a.addr, "GET / HTTP/1.1\r\nHost: x\r\n"+manyFields(20_000))
			a.hold(600, a.addr, "GET / HTTP/1.1\r\nHost: x\r\n"+manyFields(1000))
		}},
		{"unfinished handshakes", func(a *attacker) {
			a.hold(600, a.tlsAddr, "")
			a.hold(600, a.tlsAddr, "\x16\x03\x01\x40\x00\x01\x00\xff\xfc"+strings.Repeat("x", 1<<14))
		}},
		{"idle connections", func(a *attacker) { a.hold(2500, a.addr, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") }},
		{"idle connections over TLS", func(a *attacker) {
			together(8, func(int) {
				for range 150 {
					d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
					if c, err := d.DialContext(a.ctx, "tcp", a.tlsAddr); err == nil {
						_, _ = io.WriteString(c, "POST /email HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+testToken+"\r\nContent-Length: 60000\r\n\r\n"+strings.Repeat(" ", 30_000))
						defer c.Close()
					}
				}
			})
			time.Sleep(3 * time.Second)
		}},
		{"answers that no client reads", func(a *attacker) {
			a.hold(300, a.addr, strings.Repeat("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 5000))
		}},
	}
}

// manyFields are fields of a few octets each, all of different names.
func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%x:\r\n", i)
	}
	return b.String()
}

// oneKey are attacks by one who has a key.
func oneKey() []attack {
	bearer := "Authorization: Bearer " + malloryKey
	raw := func(fields, body string) string {
		return crlf("From: mallory@example.com\nTo: ana@example.org\nSubject: x\nMIME-Version: 1.0\n" + fields + "\n" + body)
	}
	long := "Content-Disposition: attachment; " + strings.Repeat("a", 50_000) + `="` + strings.Repeat("é", 25_000) + "\"\n"
	folded := "Content-Disposition: attachment;\n " + strings.Repeat("a", 900) + "=\"" + strings.Repeat(strings.Repeat("é", 450)+"\n ", 440) + "\"\n"
	nested := func(fields string) string {
		return raw("Content-Type: multipart/mixed; boundary=b\n", "--b\nContent-Type: message/rfc822\n\n"+fields+"Content-Type: text/plain\n\nx\n--b--\n")
	}
	cyrillic := func(octets int) []byte {
		return []byte(`{"from":"mallory@example.com","to":"ana@example.org","subject":"x","html":"` + strings.Repeat("ы", octets/2) + `"}`)
	}
	return []attack{
		{"elements behind gzip", func(a *attacker) {
			body := zipped(`{"from":{"email":"mallory@example.com"},"subject":"x","content":[{"type":"text/plain","value":"x"}],"personalizations":[` +
				strings.Repeat("{},", 1_500_000) + `{}]}`).Bytes()
			together(4, func(int) { a.keyed("/v3/mail/send", asJSONType, bytes.NewReader(body), asGzip) })
		}},
		{"elements", func(a *attacker) {
			for _, list := range []string{`"attachments":[` + strings.Repeat("{},", 3_000_000) + "{}]", `"to":[` + strings.Repeat(`"a",`, 2_000_000) + `"a"]`, `"reply_to":[` + strings.Repeat("0,", 4_000_000) + `0]`} {
				together(3, func(int) {
					a.keyed("/v1/messages", asJSONType, strings.NewReader(`{"from":"mallory@example.com","to":"ana@example.org","subject":"x","text":"x",`+list+`}`))
				})
			}
		}},
		{"addresses of a finished message", func(a *attacker) {
			for _, field := range []string{"To: " + strings.Repeat("a,", 5_000_000), "Cc: " + strings.Repeat("a@example.org, ", 500_000), `Reply-To: é` + strings.Repeat(`"\"`, 100_000)} {
				a.keyed("/v1/messages", finishedAs, strings.NewReader(raw(field+"\n", "x")))
			}
		}},
		{"slow bodies", func(a *attacker) {
			body := bytes.Repeat([]byte(" "), 30<<20)
			together(4, func(int) { a.keyed("/v1/messages", asJSONType, slow(40_000, body)) })
		}},
		{"text that grows", func(a *attacker) {
			together(64, func(int) { a.keyed("/v1/messages", asJSONType, bytes.NewReader(cyrillic(2<<20))) })
			together(16, func(int) { a.keyed("/v1/messages", asJSONType, bytes.NewReader(cyrillic(8<<20))) })
		}},
		{"finished messages that grow", func(a *attacker) {
			body := raw("Content-Type: text/plain\n", strings.Repeat("\x00é\n", 6<<20))
			together(16, func(int) { a.keyed("/v1/messages", finishedAs, strings.NewReader(body), toAna, fromMallory) })
		}},
		{"parameters that grow", func(a *attacker) {
			for _, m := range []string{raw(long, "x"), nested(long), nested(folded), raw("Content-Type: multipart/mixed; boundary=b\n", "--b\n"+folded+"\nx\n--b--\n")} {
				a.keyed("/v1/messages", finishedAs, strings.NewReader(m), toAna, fromMallory)
			}
		}},
		{"large messages", func(a *attacker) {
			text := `{"from":"mallory@example.com","to":"ana@example.org","subject":"x","text":"` + strings.Repeat("x", 24<<20) + `"}`
			together(16, func(int) { a.keyed("/v1/messages", asJSONType, strings.NewReader(text)) })
		}},
		{"batches", func(a *attacker) {
			one := `{"from":"mallory@example.com","to":"ana@example.org","subject":"x","html":"` + strings.Repeat("ы", 40_000) + `"}`
			batch := `{"messages":[` + strings.Repeat(one+",", 400) + one + `]}`
			together(4, func(int) { a.keyed("/v1/messages/batch", asJSONType, strings.NewReader(batch)) })
		}},
		{"forms of many parts", func(a *attacker) {
			body := strings.Repeat("--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nx\r\n", 500_000) + "--b--\r\n"
			together(4, func(int) { a.keyed("/v1/messages", "multipart/form-data; boundary=b", strings.NewReader(body)) })
		}},
		{"large headers", func(a *attacker) {
			var to strings.Builder
			for i := range 1000 {
				fmt.Fprintf(&to, "%s%d@example.org,", strings.Repeat("a", 240), i)
			}
			a.hold(300, a.addr, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: message/rfc822\r\n"+bearer+"\r\nEnvelope-To: "+strings.TrimSuffix(to.String(), ",")+"\r\nContent-Length: 1000\r\n\r\nx")
		}},
		{"waiting requests", func(a *attacker) {
			body := `{"from":"mallory@example.com","to":"ana@example.org","subject":"x","text":"x"}`
			a.hold(1500, a.addr, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+bearer+"\r\nPrefer: wait=60\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		}},
		{"lists and content that no client reads", func(a *attacker) {
			a.hold(100, a.addr, strings.Repeat("GET /v1/messages?limit=500 HTTP/1.1\r\nHost: x\r\n"+bearer+"\r\n\r\n", 50))
		}},
		{"distinct keys of idempotency", func(a *attacker) {
			body := []byte(`{"from":"mallory@example.com","to":"ana@example.org","subject":"x","text":"x"}`)
			for i := range 500 {
				a.keyed("/v1/messages", asJSONType, bytes.NewReader(body), "Idempotency-Key: "+strconv.Itoa(i))
			}
		}},
		{"every provider", func(a *attacker) {
			paths := slices.Values([]string{"/emails", "/emails/batch", "/v3/smtp/email", "/v1/email", "/v1/bulk-email", "/email/batch"})
			for path := range paths {
				for _, body := range []string{strings.Repeat(`[`, 5<<20), `[` + strings.Repeat("{},", 3_000_000) + "{}]", `{"to":[` + strings.Repeat(`{"email":"a"},`, 500_000) + `{}]}`} {
					a.post(path, asJSONType, strings.NewReader(body), bearer, "Api-Key: "+malloryKey, "X-Postmark-Server-Token: "+malloryKey)
				}
			}
		}},
	}
}

package smtp_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// TestParameters: MAIL has only parameters that are offered and needed.
func TestParameters(t *testing.T) {
	const plain = "Subject: x\r\n\r\nbody\r\n"
	const eightBit = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\n"
	// In seven bits this is over four times as large.
	swelling := "Content-Type: message/rfc822\r\n\r\nContent-Disposition: attachment" + strings.Repeat(";\r\n a=é", 20_000) + "\r\n\r\nx\r\n"
	tests := []struct {
		name       string
		content    mailer.Content
		reverse    string
		forward    []string
		extensions []string
		params     string
		want       string
	}{
		{
			name: "all offered, nothing needed", content: mailer.Content{Data: []byte(plain)},
			extensions: []string{"SIZE 1000", "8BITMIME", "SMTPUTF8"}, params: "SIZE=20", want: "accepted 250",
		},
		{
			name: "SIZE without a limit", content: mailer.Content{Data: []byte(plain)},
			extensions: []string{"SIZE"}, params: "SIZE=20", want: "accepted 250",
		},
		{
			name: "SIZE 0", content: mailer.Content{Data: []byte(plain)},
			extensions: []string{"size 0"}, params: "SIZE=20", want: "accepted 250",
		},
		{
			name: "SIZE just enough", content: mailer.Content{Data: []byte(plain)},
			extensions: []string{"SIZE 20"}, params: "SIZE=20", want: "accepted 250",
		},
		{
			name: "SIZE too small", content: mailer.Content{Data: []byte(plain)},
			extensions: []string{"SIZE 19"}, want: "permanent mail 5.3.4",
		},
		{
			name: "8BITMIME", content: mailer.Content{Data: []byte(eightBit), EightBit: true},
			extensions: []string{"8BITMIME"}, params: "BODY=8BITMIME", want: "accepted 250",
		},
		{
			name: "8BITMIME not offered", content: mailer.Content{Data: []byte(eightBit), EightBit: true},
			extensions: []string{"X"}, params: "", want: "accepted 250",
		},
		{
			name: "8BITMIME not offered, and swelling", content: mailer.Content{Data: []byte(swelling), EightBit: true},
			extensions: []string{"X"}, want: "permanent mail 5.6.3",
		},
		{
			name: "header in UTF-8", content: mailer.Content{Data: []byte(plain), UTF8Header: true},
			extensions: []string{"8BITMIME", "SMTPUTF8"}, params: "BODY=8BITMIME SMTPUTF8", want: "accepted 250",
		},
		{
			name: "header in UTF-8, not offered", content: mailer.Content{Data: []byte("To: ü@example.org\r\n" + plain), UTF8Header: true},
			extensions: []string{"8BITMIME"}, params: "", want: "accepted 250",
		},
		{
			name: "signed header in UTF-8, not offered", content: mailer.Content{Data: []byte("DKIM-Signature: h=to\r\nTo: ü@example.org\r\n" + plain), UTF8Header: true},
			extensions: []string{"8BITMIME"}, want: "permanent mail 5.6.7",
		},
		{
			name: "one recipient and the header in UTF-8, not offered", content: mailer.Content{Data: []byte("To: ü@example.org, b@example.org\r\n" + plain), UTF8Header: true},
			forward: []string{"ü@example.org", "b@example.org"}, extensions: []string{"X"}, params: "", want: "permanent mail 5.6.7, accepted 250",
		},
		{
			name: "reverse-path in UTF-8", content: mailer.Content{Data: []byte(plain)}, reverse: "ä@example.com",
			extensions: []string{"SMTPUTF8"}, params: "SMTPUTF8", want: "accepted 250",
		},
		{
			name: "reverse-path in UTF-8, not offered", content: mailer.Content{Data: []byte(plain)}, reverse: "ä@example.com",
			extensions: []string{"X"}, want: "permanent mail 5.6.7",
		},
		{
			name: "one recipient in UTF-8", content: mailer.Content{Data: []byte(plain)}, forward: []string{"b@example.org", "ü@example.org"},
			extensions: []string{"SMTPUTF8"}, params: "SMTPUTF8", want: "accepted 250, accepted 250",
		},
		{
			name: "one recipient in UTF-8, not offered", content: mailer.Content{Data: []byte(plain)}, forward: []string{"ü@example.org", "b@example.org"},
			extensions: []string{"X"}, params: "", want: "permanent mail 5.6.7, accepted 250",
		},
		{
			name: "injection", content: mailer.Content{Data: []byte(plain)}, forward: []string{"b@example.org>\r\nRCPT TO:<c@example.org", "b@example.org"},
			extensions: []string{"X"}, params: "", want: "permanent mail 5.1.3, accepted 250",
		},
		{
			name: "injection in the reverse-path", content: mailer.Content{Data: []byte(plain)}, reverse: "a@b> RET=FULL",
			extensions: []string{"X"}, want: "permanent mail 5.1.7",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, relaytest.Options{TLSExtensions: append(tt.extensions, "AUTH PLAIN")}, nil)
				env := mailer.Envelope{ReversePath: tt.reverse, ForwardPaths: tt.forward}
				if tt.forward == nil {
					env.ForwardPaths = []string{"b@example.org"}
				}
				network := &relaytest.Network{Port: map[int]any{587: scripted}}
				a := newRelay(t, options(network)).Deliver(t.Context(), env, tt.content)
				if got := outcomesOrEnhanced(a); got != tt.want {
					t.Errorf("Deliver() = %s, want %s", got, tt.want)
				}
				messages := scripted.Messages()
				if !strings.Contains(tt.want, "accepted") {
					if len(messages)+scripted.Said("MAIL") > 0 {
						t.Errorf("a mail was begun that the relay cannot take")
					}
					return
				}
				if len(messages) != 1 || messages[0].Params != tt.params || messages[0].ReversePath != tt.reverse {
					t.Errorf("relay got %+v, want one message with %q", messages, tt.params)
				}
				if bytes.Contains(messages[0].Data, []byte("ü")) != slices.Contains(tt.extensions, "8BITMIME") && tt.content.EightBit {
					t.Errorf("relay got %q with extensions %v", messages[0].Data, tt.extensions)
				}
				if !mailer.IsASCII(string(messages[0].Data)) && tt.content.UTF8Header && !slices.Contains(tt.extensions, "SMTPUTF8") {
					t.Errorf("relay got %q with extensions %v", messages[0].Data, tt.extensions)
				}
			})
		})
	}
}

// outcomesOrEnhanced shows our own enhanced code where there is no reply.
func outcomesOrEnhanced(a mailer.Attempt) string {
	list := make([]string, len(a.Results))
	for i, r := range a.Results {
		list[i] = outcome(r)
		if r.Failure != nil && r.Failure.Reply.Code == 0 {
			list[i] += " " + r.Failure.EnhancedCode()
		}
	}
	return strings.Join(list, ", ")
}

func manyRecipients(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("r%d@example.org", i)
	}
	return list
}

// TestManyRecipients: further transactions go at once, on the same connection
// where it lasts and on a new one where it does not.
func TestManyRecipients(t *testing.T) {
	tests := []struct {
		name     string
		script   relaytest.Script
		max      int
		messages int // accepted by the relay
		conns    int
		accepted int
	}{
		{"in one transaction", nil, 100, 1, 1, 10},
		{"at most four", nil, 4, 3, 1, 10},
		{"connection ends after each message", relaytest.Script{".": "bye 250 2.0.0 ok"}, 4, 3, 3, 10},
		{"421 after each message", relaytest.Script{"MAIL": "250 ok then bye 421 4.7.0 enough then 250 ok then bye 421 4.7.0 enough then 250 ok"}, 4, 3, 3, 10},
		{"421 for ever after the first", relaytest.Script{"MAIL": "250 ok then bye 421 4.7.0 enough"}, 4, 1, 2, 4},
		{"the first transaction is refused at DATA", relaytest.Script{"DATA": "451 4.3.0 later then default"}, 4, 2, 1, 6},
		{"the first transaction is refused at MAIL", relaytest.Script{"MAIL": "451 4.3.0 later then default"}, 4, 2, 1, 6},
		{"the first transaction is refused at the dot", relaytest.Script{".": "451 4.3.0 later then default"}, 4, 2, 1, 6},
		{"the first is uncertain", relaytest.Script{".": "drop"}, 4, 0, 1, 0},
		{"RSET refused", relaytest.Script{"DATA": "451 4.3.0 later", "RSET": "500 what"}, 4, 0, 3, 0},
		{"relay takes them one by one", relaytest.Script{
			"RCPT": "250 ok then 452 4.5.3 too many then 452 4.5.3 too many then 250 ok then 452 4.5.3 too many then 250 ok",
		}, 3, 5, 1, 10},
		{"too many, those refused counted", relaytest.Script{
			"RCPT": "550 5.1.1 unknown then 550 5.1.1 unknown then 452 too many recipients then 452 too many recipients then 250 ok",
		}, 4, 2, 1, 8},
		{"one full mailbox after a refused one", relaytest.Script{
			"RCPT": "550 5.1.1 unknown then 452 4.2.2 over quota then 250 ok",
		}, 4, 3, 1, 8},
		{"421 after five unknown", relaytest.Script{
			"RCPT TO:<r0@": "550 5.1.1 unknown", "RCPT TO:<r1@": "550 5.1.1 unknown", "RCPT TO:<r2@": "550 5.1.1 unknown",
			"RCPT TO:<r3@": "550 5.1.1 unknown", "RCPT TO:<r4@": "550 5.1.1 unknown", "RCPT": "bye 421 4.7.0 too many errors then 250 ok",
		}, 100, 1, 2, 5},
		{"421 after one unknown", relaytest.Script{
			"RCPT": "550 5.1.1 unknown then bye 421 4.7.0 go away then 250 ok",
		}, 100, 0, 1, 0},
	}
	for _, tt := range tests {
		for _, pipelining := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, pipelining %v", tt.name, pipelining), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					opts := relaytest.Options{}
					if !pipelining {
						opts.TLSExtensions = relaytest.Without("PIPELINING")
					}
					scripted := relaytest.New(t, opts, tt.script)
					o := options(&relaytest.Network{Port: map[int]any{587: scripted}})
					o.Ladder, o.MaxRecipients = o.Ladder[:1], tt.max
					paths := manyRecipients(10)
					a := newRelay(t, o).Deliver(t.Context(), envelope(paths...), content(messageText))
					got := map[string]int{}
					messages := 0
					for _, m := range scripted.Messages() {
						if strings.Contains(m.Reply, "250") {
							messages++
							for _, path := range m.ForwardPaths {
								got[path]++
							}
						}
					}
					accepted := 0
					for _, r := range a.Results {
						want := 0
						if r.Failure == nil {
							accepted++
							want = 1
						}
						if got[r.ForwardPath] != want {
							t.Errorf("%s got %d copies, but its result is %s", r.ForwardPath, got[r.ForwardPath], outcome(r))
						}
					}
					if messages != tt.messages || scripted.Served() != tt.conns || accepted != tt.accepted {
						t.Errorf("Deliver() = %d accepted in %d messages on %d connections, want %d, %d, %d (%s)",
							accepted, messages, scripted.Served(), tt.accepted, tt.messages, tt.conns, outcomes(a))
					}
				})
			})
		}
	}
}

// TestPipelining: a relay that answers a command only when the next one is there
// is served only by commands in one flight.
func TestPipelining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := relaytest.Script{"MAIL": "hold 250 ok", "RCPT": "hold 250 ok"}
		scripted := relaytest.New(t, relaytest.Options{}, script)
		begin := time.Now()
		a := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}})).
			Deliver(t.Context(), envelope("b@example.org", "c@example.org"), content(messageText))
		if got, want := outcomes(a), "accepted 250, accepted 250"; got != want || time.Since(begin) > 0 {
			t.Errorf("Deliver() = %s after %v, want %s at once", got, time.Since(begin), want)
		}
	})
}

// TestHELO: a relay that does not know EHLO is served only where no extension is
// needed.
func TestHELO(t *testing.T) {
	tests := []struct {
		reply    string
		username string
		want     string
	}{
		{"500 what", "", "accepted 250"},
		{"502 5.5.1 what", "", "accepted 250"},
		{"502 5.5.1 what", "user", "relay ehlo 502"},
		{"bye 421 4.3.2 down", "", "transient ehlo 421"},
		{"550 5.7.1 no", "", "relay ehlo 550"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{"EHLO": tt.reply})
			opts := options(&relaytest.Network{Port: map[int]any{25: scripted}})
			opts.Ladder, opts.Cleartext = []mailer.Rung{{Port: 25}}, true
			if opts.Username = tt.username; tt.username == "" {
				opts.Password = ""
			}
			opts.Helo = "app.example.com"
			a := newRelay(t, opts).Deliver(t.Context(), envelope("b@example.org"), content(messageText))
			if got := outcomes(a); got != tt.want {
				t.Errorf("EHLO answered %q: Deliver() = %s, want %s", tt.reply, got, tt.want)
			}
			if got, want := scripted.Said("HELO app.example.com") == 1, tt.want == "accepted 250"; got != want {
				t.Errorf("EHLO answered %q: HELO said: %v, want %v", tt.reply, got, want)
			}
		})
	}
}

// TestLateVerdict: after the end of the context the verdict of the relay is still
// read and logged, until Close.
func TestLateVerdict(t *testing.T) {
	tests := []struct {
		reply   string
		closeAt time.Duration
		want    string
	}{
		{"drip 250 2.0.0 queued", time.Minute, "code=250 enhanced_code=2.0.0 class=accepted"},
		{"drip 554 5.7.1 spam", time.Minute, "code=554 enhanced_code=5.7.1 class=permanent"},
		{"silence", time.Minute, `cause="the service ended before the relay replied"`},
		{"silence", 11 * time.Minute, `cause="the relay did not answer in time"`},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			var log lockedBuffer
			scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": tt.reply})
			network := &relaytest.Network{Port: map[int]any{587: scripted}}
			opts := options(network)
			opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
			relay := newRelay(t, opts)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			begin := time.Now()
			a := relay.Deliver(ctx, envelope("b@example.org"), content(messageText))
			if got, want := outcomes(a), "uncertain content"; got != want || time.Since(begin) != 5*time.Second {
				t.Errorf("Deliver() = %s after %v, want %s after 5s", got, time.Since(begin), want)
			}
			time.Sleep(tt.closeAt)
			relay.Close()
			line := "message_id=<1@example.com> reverse_path=a@example.com forward_path=b@example.org relay=relay.test " + tt.want
			if got := log.String(); strings.Count(got, "late verdict") != 1 || !strings.Contains(got, line) ||
				strings.Contains(got, "no late verdict") != (tt.reply == "silence") {
				t.Errorf("log = %q, want once %q", got, line)
			}
			if n := network.Open(); n != 0 {
				t.Errorf("%d connections left open", n)
			}
		})
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestDeliverAfterClose(t *testing.T) {
	network := &relaytest.Network{}
	relay := newRelay(t, options(network))
	relay.Close()
	a := relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
	if got, want := outcomes(a), "transient connect"; got != want || len(network.Dials()) > 0 {
		t.Errorf("Deliver() after Close() = %s with %d dials, want %s", got, len(network.Dials()), want)
	}
}

// TestDeliverConcurrently uses real sockets: every message arrives once and
// whole, and a reset connection is as good as a closed one.
func TestDeliverConcurrently(t *testing.T) {
	scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{"MAIL FROM:<reset@": "reset", "RCPT TO:<lost@": "reset"})
	relay := newRelay(t, smtp.Options{
		Host: "localhost", Ladder: []mailer.Rung{{Port: scripted.Listen(t)}},
		Username: "user", Password: "secret", RootCAs: relaytest.RootCAs(),
	})
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			path := fmt.Sprintf("r%d@example.org", i)
			text := "Subject: " + path + "\r\n\r\n" + strings.Repeat(".line\r\n", 20_000)
			if i%4 == 0 {
				path = "lost@example.org"
			}
			a := relay.Deliver(t.Context(), envelope(path), content(text))
			want := "accepted 250"
			if i%4 == 0 {
				want = "transient rcpt"
			}
			if got := outcomes(a); got != want {
				t.Errorf("Deliver() to %s = %s, want %s (%v)", path, got, want, a.Results[0].Failure)
			}
		})
	}
	callers.Wait()
	got := map[string]int{}
	for _, m := range scripted.Messages() {
		subject, _, _ := strings.Cut(strings.TrimPrefix(string(m.Data), "Subject: "), "\r\n")
		if len(m.Data) != len("Subject: "+subject+"\r\n\r\n")+7*20_000 || m.ForwardPaths[0] != subject {
			t.Errorf("message for %v is not whole: %d octets", m.ForwardPaths, len(m.Data))
		}
		got[subject]++
	}
	if len(got) != 12 {
		t.Errorf("%d messages arrived, want 12", len(got))
	}
}

package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/queue"
	"mailsidecar/queue/queuetest"
)

// TestRefusedSenderIsTold: a first relay that takes no mail of a sender is told once an
// hour, though the second one takes it all. So are no more than 100 senders.
func TestRefusedSenderIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{"RCPT": "553 5.7.1 Sender address rejected: not owned by user app"})
		relay, err := smtp.New(smtp.Options{
			Host: relaytest.Host, Ladder: []mailer.Rung{{Port: 587}}, RootCAs: relaytest.RootCAs(),
			Dial: (&relaytest.Network{Port: map[int]any{587: scripted}}).Dial,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close()
		var log bytes.Buffer
		m := newRelayMonitor(config.Default().Relays, []Relay{relay}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		routes := append(m.routes(), queue.Route{Relay: queuetest.NamedRelay("second", queuetest.Accept)})
		d := queue.NewDirect(routes, nil)
		send := func(reversePath string) {
			s := queuetest.Submission("Subject: x\r\n\r\nx\r\n", "b@example.org")
			s.Envelope.ReversePath = reversePath
			if r, err := d.Submit(t.Context(), s); err != nil || r.Message.Recipients[0].State != queue.Delivered {
				t.Fatalf("%+v, %v", r.Message.Recipients, err)
			}
		}
		for range 121 { // over two hours
			send("shop@example.com")
			time.Sleep(time.Minute)
		}
		lines := strings.Count(log.String(), "sender refused")
		if lines != 3 || !strings.Contains(log.String(), `level=WARN msg="sender refused" relay=relay.test reverse_path=shop@example.com`) || !strings.Contains(log.String(), "do=") {
			t.Errorf("%d lines in two hours, want 3, with what to do:\n%s", lines, log.String())
		}
		log.Reset()
		for n := range 300 {
			send(fmt.Sprintf("u%d@example.com", n))
		}
		if n := strings.Count(log.String(), "sender refused"); n > maxSenders || n < maxSenders-1 {
			t.Errorf("%d lines for 300 senders, want %d", n, maxSenders)
		}
	})
}

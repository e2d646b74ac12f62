package integration

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/exim"
	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
)

// limitTest is mail to a relay that limits its clients. No message may be lost.
type limitTest struct {
	name        string
	settings    []string // of the relay
	acl         []string // of Exim
	connections int      // SMTP_MAX_CONNECTIONS
	messages    int
	patterns    []string // see mailOut
	// inTurn hands in each message when the one before is finished: messages in
	// flight together need not stay in order.
	inTurn bool
	// sessions limits the number of logins; zero means no limit.
	sessions int
	// hits says that the relay's log must show that the limit was met.
	hits string
}

// run sends the mail.
func (l limitTest) run(t *testing.T, relay realRelay, port int) {
	t.Helper()
	env := stored(t, relay, port)
	env["SMTP_MAX_CONNECTIONS"] = strconv.Itoa(l.connections)
	s := serve(t, env)
	begin := time.Now()
	if l.inTurn {
		for n := range l.messages {
			s.mailOut(t, relay, 1, l.patterns[n%len(l.patterns)]).check(t)
		}
	} else {
		s.mailOut(t, relay, l.messages, l.patterns...).check(t)
	}
	t.Logf("%d messages in %v", l.messages, time.Since(begin).Round(time.Millisecond))
}

// TestExim hands mail to a real Exim. It ends a session that has sent ten commands
// too many, or that speaks out of turn.
func TestExim(t *testing.T) {
	for _, test := range []limitTest{
		{name: "lone", connections: 1, messages: 1, patterns: []string{"box"}, sessions: 1},
		{name: "backlog", connections: 2, messages: 60, patterns: []string{"box"}, sessions: 2},
		{name: "some refused", connections: 2, messages: 60, patterns: []string{"box+bad", "box", "bad+box+busy"}, sessions: 2},
		{name: "all refused", connections: 1, messages: 60, patterns: []string{"bad"}, sessions: 15},
		{name: "mostly refused", connections: 1, messages: 60, patterns: []string{"bad", "bad", "busy", "box", "bad"}},
		{name: "many refused in one", connections: 1, messages: 5, patterns: []string{strings.Repeat("bad+", 40) + "box"}, sessions: 1},
		{
			name: "no error forgiven", settings: []string{"smtp_max_synprot_errors = 0", "smtp_accept_max_nonmail = 0"},
			connections: 1, messages: 20, patterns: []string{"box", "bad"}, inTurn: true, sessions: 1, // two refusals in a row would be one too many
		},
		{
			name: "messages of a connection", settings: []string{"smtp_accept_max_per_connection = 5"},
			connections: 2, messages: 60, patterns: []string{"box"}, sessions: 13, hits: "too many messages in one connection",
		},
		{
			name: "connections of a host", settings: []string{"smtp_accept_max_per_host = 2"},
			connections: 8, messages: 60, patterns: []string{"box"}, sessions: 2, hits: "too many connections from that IP address",
		},
		{
			name: "connections", settings: []string{"smtp_accept_max = 2"},
			connections: 8, messages: 60, patterns: []string{"box"}, sessions: 2, hits: "refused: too many connections",
		},
		{
			name: "recipients", settings: []string{"recipients_max = 5"},
			connections: 1, messages: 3, patterns: []string{strings.Repeat("bad+", 8) + "box"}, hits: "too many recipients",
			sessions: 2, // one more until it is known that Exim keeps a login over EHLO
		},
		{
			name: "rate", acl: []string{"defer", "  ratelimit = 20 / 1s / leaky / $sender_host_address", "  message = slow down"},
			connections: 4, messages: 60, patterns: []string{"box"}, hits: "slow down",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			relay := exim.Start(t, exim.Options{Main: test.settings, Rcpt: test.acl})
			test.run(t, relay, relay.Submission)
			if n := relay.Sessions(); test.sessions > 0 && n > test.sessions {
				t.Errorf("%d sessions, want at most %d", n, test.sessions)
			}
			if !strings.Contains(relay.Log(), test.hits) {
				t.Errorf("Exim does not say %q", test.hits)
			}
			for _, text := range []string{"synchronization error", "too many nonmail", "too many syntax or protocol errors"} {
				if strings.Contains(relay.Log(), text) {
					t.Errorf("Exim complains of %s", text)
				}
			}
		})
	}
}

// TestEximMessage: a message arrives octet by octet, over implicit TLS and with AUTH
// LOGIN, too.
func TestEximMessage(t *testing.T) {
	t.Parallel()
	relay := exim.Start(t, exim.Options{})
	for _, env := range []environment{
		bridge(t, relay, relay.Submission),
		bridge(t, relay, strconv.Itoa(relay.Submissions)+"/tls").with(environment{"SMTP_AUTH": "login"}),
	} {
		to := relay.Recipient(t)
		a := serve(t, env).post(t, "message/rfc822", []byte(finished), http.Header{
			"Envelope-From": {"bounces@example.com"}, "Envelope-To": {to},
		})
		wantStatus(t, a, http.StatusOK)
		got := relay.Await(t, to, 1)[0]
		if string(got.Data) != finished || got.ReturnPath != "bounces@example.com" {
			t.Errorf("delivered from %q:\n%q\nwant:\n%q", got.ReturnPath, got.Data, finished)
		}
	}
}

// TestEximLoad has Exim killed with its sessions again and again while it takes
// mail over several connections. No message is lost, and only uncertain ones arrive
// twice.
func TestEximLoad(t *testing.T) {
	t.Parallel()
	messages, restarts := 150, 3
	if machine.CI() {
		messages, restarts = 1000, 5
	}
	relay := exim.Start(t, exim.Options{Hold: true})
	s := serve(t, stored(t, relay, relay.Submission))
	m := s.mailOut(t, relay, messages, "box")
	for n := range restarts {
		machine.Await(t, "mail at Exim", func() bool { return relay.Received() >= (n+1)*messages/(restarts+2) })
		relay.Restart(t)
	}
	m.await(t)
	relay.Flush(t)
	m.check(t)
	if strings.Contains(relay.Log(), "synchronization error") {
		t.Error("Exim complains of a synchronization error")
	}
}

// TestPostfixLimits does the same with Postfix, which slows a client down after many
// errors.
func TestPostfixLimits(t *testing.T) {
	tests := []limitTest{
		{name: "all refused", connections: 1, messages: 30, patterns: []string{"bad"}, sessions: 8},
		{name: "mostly refused", connections: 1, messages: 60, patterns: []string{"bad", "bad", "busy", "box", "bad"}},
		{
			name: "many refused in one", settings: []string{"smtpd_error_sleep_time=0"},
			connections: 1, messages: 3, patterns: []string{strings.Repeat("bad+", 45) + "box"}, hits: "too many errors",
		},
		{
			name: "few errors forgiven", settings: []string{"smtpd_hard_error_limit=3", "smtpd_junk_command_limit=1"},
			connections: 1, messages: 30, patterns: []string{"bad", "bad", "box"}, hits: "too many errors",
		},
		{
			name: "connections of a client", settings: []string{"smtpd_client_connection_count_limit=2"},
			connections: 8, messages: 60, patterns: []string{"box"}, sessions: 2, hits: "Connection concurrency limit exceeded",
		},
		{
			name: "new connections of a client", settings: []string{"smtpd_client_connection_rate_limit=2"},
			connections: 8, messages: 60, patterns: []string{"box"}, hits: "Connection rate limit exceeded",
		},
		{
			name: "messages of a client", settings: []string{"smtpd_client_message_rate_limit=20"},
			connections: 4, messages: 60, patterns: []string{"box"}, hits: "Message delivery request rate limit exceeded",
		},
		{
			name: "recipients", settings: []string{"smtpd_recipient_limit=2"},
			connections: 1, messages: 3, patterns: []string{strings.Repeat("bad+", 8) + "box+more+more+more+more"}, hits: "nrcpt=2 ",
		},
	}
	var doors []string
	for _, test := range tests {
		doors = append(doors, strings.Join(test.settings, " "))
	}
	relay := postfix.Start(t, doors...)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := len(relay.Log())
			test.run(t, relay, relay.Doors[i])
			log := relay.Log()[before:]
			if n := strings.Count(log, "TLS connection established"); test.sessions > 0 && n > test.sessions {
				t.Errorf("%d sessions, want at most %d", n, test.sessions)
			}
			if !strings.Contains(log, test.hits) {
				t.Errorf("Postfix does not say %q", test.hits)
			}
			if strings.Contains(log, "improper command pipelining") {
				t.Error("Postfix complains about the pipelining")
			}
		})
	}
}

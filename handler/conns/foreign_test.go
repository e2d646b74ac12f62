package conns

import (
	"crypto/tls"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// exchange sends pieces over a new connection, and returns what the server says until it
// ends, and after which time it begins to.
func (s *server) exchange(pieces ...string) (string, time.Duration) {
	client, theirs := newDuplex()
	defer func() { _ = client.Close() }()
	s.l.conns <- theirs
	began := time.Now()
	go func() {
		for _, piece := range pieces {
			_, _ = io.WriteString(client, piece)
		}
	}()
	first := make([]byte, 1)
	n, err := io.ReadFull(client, first)
	after := time.Since(began)
	if err != nil {
		return "", after
	}
	rest, _ := io.ReadAll(client)
	return string(first[:n]) + string(rest), after
}

const clientHello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

// TestForeign: a client that speaks something else than the port takes is told so at once,
// and one that says nothing after the time-out, in the first line that it reads.
func TestForeign(t *testing.T) {
	for name, tc := range map[string]struct {
		sent   string
		tls    bool
		after  time.Duration
		status string
		first  string // line, a part of it
		speaks string // in the log
	}{
		"EHLO":                  {"EHLO web.example.com\r\n", false, 0, "408", "This port speaks HTTP, not SMTP: an app that can only send by SMTP uses the sendmail command", "SMTP"},
		"ehlo":                  {"ehlo [127.0.0.1]\n", false, 0, "408", "not SMTP", "SMTP"},
		"HELO alone":            {"HELO\r\n", false, 0, "408", "not SMTP", "SMTP"},
		"STARTTLS":              {"STARTTLS\r\n", false, 0, "408", "not SMTP", "SMTP"},
		"QUIT":                  {"QUIT\n", false, 0, "408", "not SMTP", "SMTP"},
		"AUTH":                  {"AUTH PLAIN AGE=\r\n", false, 0, "408", "not SMTP", "SMTP"},
		"nothing":               {"", false, time.Minute, "408", "No request came. This port speaks HTTP, not SMTP", "nothing"},
		"half a header":         {begin, false, time.Minute, "408", "Request Timeout", ""},
		"half a line":           {"GET / HT", false, time.Minute, "408", "Request Timeout", ""},
		"TLS":                   {clientHello, false, 0, "421", "This port speaks HTTP, not HTTPS", "TLS"},
		"an octet of TLS":       {"\x16", false, 0, "421", "This port speaks HTTP, not HTTPS", "TLS"},
		"HTTP":                  {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, 0, "200", "OK", ""},
		"a method like a verb":  {"HELPME / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, 0, "200", "OK", ""},
		"a long method":         {"STARTTLSNOW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false, 0, "200", "OK", ""},
		"SMTP on TLS":           {"EHLO web.example.com\r\n", true, 0, "408", "This port speaks HTTPS, not SMTP", "SMTP"},
		"quit on TLS":           {"quit\r\n", true, 0, "408", "This port speaks HTTPS, not SMTP", "SMTP"},
		"QUIT, LF on TLS":       {"QUIT\nRSET\n", true, 0, "408", "This port speaks HTTPS, not SMTP", "SMTP"},
		"STARTTLS on TLS":       {"STARTTLS\r\n", true, 0, "408", "This port speaks HTTPS, not SMTP", "SMTP"},
		"nothing on TLS":        {"", true, handshakeTimeout, "408", "No request came. This port speaks HTTPS, not SMTP", "nothing"},
		"HTTP on TLS":           {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, 0, "421", "This port speaks HTTPS, not HTTP", "HTTP without TLS"},
		"a large request there": {"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("x", 1<<20), true, 0, "421", "This port speaks HTTPS, not HTTP", "HTTP without TLS"},
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			runOn(t, Limits{}, tlsConfig(t, tc.tls), func(t *testing.T, s *server) {
				got, after := s.exchange(pieces(tc.sent, size)...)
				line, rest, _ := strings.Cut(got, "\r\n")
				if !strings.HasPrefix(line, "HTTP/1.1 "+tc.status+" ") || !strings.Contains(line, tc.first) {
					t.Errorf("%s: the first line is %q, want %s %s", name, line, tc.status, tc.first)
				}
				if tc.status != "200" && (!strings.Contains(rest, "Mailsidecar: 1\r\n") || !strings.Contains(rest, "Connection: close\r\n")) {
					t.Errorf("%s: the answer is %q", name, got)
				}
				if after != tc.after {
					t.Errorf("%s: answered after %v, want %v", name, after, tc.after)
				}
				if log := s.log.String(); (tc.speaks != "") != strings.Contains(log, "times=1") || tc.speaks == "nothing" && strings.Contains(log, "WARN") {
					t.Errorf("%s: the log is %q", name, log)
				} else if tc.speaks != "" && tc.speaks != "nothing" && !strings.Contains(log, "speaks=") {
					t.Errorf("%s: the log is %q, want speaks=%s", name, log, tc.speaks)
				}
			})
		}
	}
}

// pieces cuts the text after so many octets each.
func pieces(text string, size int) (all []string) {
	for text != "" {
		n := min(size, len(text))
		if len(all) > 100 {
			n = len(text)
		}
		all, text = append(all, text[:n]), text[n:]
	}
	return all
}

// tlsConfig is one with a certificate, or nil for clear text.
func tlsConfig(t *testing.T, on bool) *tls.Config {
	t.Helper()
	if !on {
		return nil
	}
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// TestForeignLog: the log has one line a minute, which says how many there were.
func TestForeignLog(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		for range 150 {
			s.exchange("EHLO x\r\n")
			s.exchange(clientHello)
			time.Sleep(time.Second)
		}
		log := s.log.String()
		for _, speaks := range []string{"SMTP", "TLS"} {
			if n := strings.Count(log, "speaks="+speaks); n != 3 {
				t.Errorf("%d lines in 150 s about %s, want 3:\n%s", n, speaks, log)
			}
		}
		if strings.Count(log, "times=1 ") != 2 || strings.Count(log, "times=60 ") != 4 {
			t.Errorf("the log does not count:\n%s", log)
		}
	})
}

// TestSilentBetweenRequests: a client that has no further request hears nothing, as it might
// take that for the answer to the next one.
func TestSilentBetweenRequests(t *testing.T) {
	run(t, Limits{}, func(t *testing.T, s *server) {
		client, theirs := newDuplex()
		defer func() { _ = client.Close() }()
		s.l.conns <- theirs
		go func() { _, _ = io.WriteString(client, get("/", "")) }()
		all, err := io.ReadAll(client)
		if err != nil || strings.Count(string(all), "HTTP/1.1") != 1 {
			t.Errorf("the server says %q, %v, want one answer", all, err)
		}
	})
}

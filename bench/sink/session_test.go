package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
)

// dial starts a session that is past TLS and AUTH, on a pipe.
func dial(t *testing.T) (*sink, net.Conn, *bufio.Reader) {
	t.Helper()
	s := &sink{}
	client, server := net.Pipe()
	c := newSession(s, server)
	c.encrypted, c.authenticated = true, true
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run()
	}()
	t.Cleanup(func() {
		client.Close()
		<-done
	})
	return s, client, bufio.NewReader(client)
}

// exchange writes a flight and reads its replies' codes.
func exchange(t *testing.T, conn net.Conn, r *bufio.Reader, flight string, replies int) string {
	t.Helper()
	go fmt.Fprint(conn, flight)
	var codes []string
	for len(codes) < replies {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

func TestSession(t *testing.T) {
	const envelope = "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
	content := func(id string) string {
		return "Subject: x\r\nX-Bench: " + id + "\r\n\r\nbody\r\n..dot\r\n"
	}
	long := strings.Repeat("x", 100_000) + "\r\n"
	chunk := content("3-2")
	for _, test := range []struct {
		name, flight, codes string
		arrived             int
	}{
		{"DATA", envelope + "DATA\r\n" + content("3-0") + ".\r\n", "250 250 354 250", 1},
		{
			"two messages, content first", envelope + "DATA\r\n" + content("3-0") + ".\r\n" + envelope + "DATA\r\n" + content("3-1") + ".\r\n",
			"250 250 354 250 250 250 354 250", 2,
		},
		{
			"the same message twice", envelope + "DATA\r\n" + content("3-0") + ".\r\n" + envelope + "DATA\r\n" + content("3-0") + ".\r\n",
			"250 250 354 250 250 250 354 250", 1,
		},
		{"BDAT", envelope + fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk), "250 250 250", 1},
		{"BDAT in two", envelope + fmt.Sprintf("BDAT 20\r\n%sBDAT %d LAST\r\n%s", chunk[:20], len(chunk)-20, chunk[20:]), "250 250 250 250", 1},
		{"BDAT without recipient is swallowed", "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "503 250", 0},
		{"a long line", envelope + "DATA\r\nX-Bench: 3-0\r\n\r\n" + long + ".\r\n", "250 250 354 250", 1},
		{"a dot in the middle of a line", envelope + "DATA\r\nX-Bench: 3-0\r\n\r\n" + strings.Repeat("x", 64<<10) + ".\r\n.\r\n", "250 250 354 250", 1},
		{"DATA without recipient", "MAIL FROM:<>\r\nDATA\r\nRSET\r\n", "250 503 250", 0},
		{"nested MAIL", envelope + "MAIL FROM:<>\r\n", "250 250 503", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, conn, r := dial(t)
			exchange(t, conn, r, "", 1) // the greeting
			if got := exchange(t, conn, r, test.flight, len(strings.Fields(test.codes))); got != test.codes {
				t.Errorf("replies = %s, want %s", got, test.codes)
			}
			if got := s.arrivals.count(3); got != test.arrived {
				t.Errorf("different messages = %d, want %d", got, test.arrived)
			}
		})
	}
}

func TestParseID(t *testing.T) {
	for _, test := range []struct {
		head        string
		run, number int
		ok          bool
	}{
		{"X-Bench: 1-2\r\nSubject: x\r\n", 1, 2, true},
		{"Subject: x\r\nX-Bench: 10-20\r\n", 10, 20, true},
		{"Subject: X-Bench: 1-2\r\n", 0, 0, false},
		{"X-Bench: 1-\r\n", 0, 0, false},
		{"X-Bench: 1-99999999999\r\n", 0, 0, false},
		{"Subject: x\r\n", 0, 0, false},
	} {
		run, number, ok := parseID([]byte(test.head))
		if ok != test.ok || ok && (run != test.run || number != test.number) {
			t.Errorf("parseID(%q) = %d, %d, %t, want %d, %d, %t", test.head, run, number, ok, test.run, test.number, test.ok)
		}
	}
}

func TestArrivals(t *testing.T) {
	var a arrivals
	for _, id := range []string{"1-3", "1-0", "1-3", "2-0"} {
		a.add([]byte("X-Bench: " + id + "\r\n"))
	}
	if got := a.count(1); got != 2 {
		t.Errorf("count(1) = %d, want 2", got)
	}
	if got, want := a.times(1), []byte{1, 0, 0, 2}; !bytes.Equal(got, want) {
		t.Errorf("times(1) = %v, want %v", got, want)
	}
}

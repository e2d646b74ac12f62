package postfix

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Delivered is a message as it lies in a mailbox.
type Delivered struct {
	// ReturnPath is the reverse-path that Postfix recorded at delivery.
	ReturnPath string
	// Received is the trace field that Postfix added, unfolded lines joined.
	Received string
	// Data is the message as it was submitted, its line ends CRLF again, without
	// the fields that Postfix put before it.
	Data []byte
}

// Await returns the messages in the recipient's mailbox once there are n.
func (s *Server) Await(t *testing.T, recipient string, n int) []Delivered {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		found := s.Mailbox(t, recipient)
		if len(found) >= n {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("mailbox of %s holds %d messages after 20 s, want %d", recipient, len(found), n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Mailbox returns the messages delivered to the recipient so far, oldest first.
func (s *Server) Mailbox(t *testing.T, recipient string) []Delivered {
	t.Helper()
	// Maildir names begin with the time of delivery. Postfix moves a file into
	// new/ only once it is complete.
	names, err := filepath.Glob(s.path("mail", recipient, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var found []Delivered
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, parseDelivered(raw))
	}
	return found
}

// parseDelivered takes off the fields that Postfix puts before a message:
// Return-Path, X-Original-To, Delivered-To and Received, in that order.
func parseDelivered(raw []byte) Delivered {
	var d Delivered
	rest := raw
	for _, name := range []string{"Return-Path", "X-Original-To", "Delivered-To", "Received"} {
		value, after, ok := cutField(rest, name)
		if !ok {
			continue
		}
		rest = after
		switch name {
		case "Return-Path":
			d.ReturnPath = string(bytes.Trim(value, "<>"))
		case "Received":
			d.Received = string(value)
		}
	}
	d.Data = bytes.ReplaceAll(rest, []byte("\n"), []byte("\r\n"))
	return d
}

// cutField takes the named field off the front of a message with LF line ends
// and returns its value, unfolded.
func cutField(msg []byte, name string) (value, rest []byte, ok bool) {
	value, ok = bytes.CutPrefix(msg, []byte(name+":"))
	if !ok {
		return nil, msg, false
	}
	end := 0
	for {
		i := bytes.IndexByte(value[end:], '\n')
		if i < 0 {
			return nil, msg, false
		}
		end += i + 1
		if end == len(value) || (value[end] != ' ' && value[end] != '\t') {
			break
		}
	}
	unfolded := bytes.ReplaceAll(value[:end-1], []byte("\n"), nil)
	return bytes.TrimSpace(unfolded), value[end:], true
}

package mta

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailsidecar/integration/machine"
)

// Delivered is a message as it lies in a mailbox.
type Delivered struct {
	// ReturnPath is the reverse-path that the server recorded at delivery.
	ReturnPath string
	// Received is the trace field that the server added, unfolded lines joined.
	Received string
	// Data is the message as it was submitted, its line ends CRLF again, without
	// the fields that the server put before it.
	Data []byte
}

// Await returns the messages in the recipient's mailbox once there are n.
func (s *Instance) Await(t *testing.T, recipient string, n int) []Delivered {
	t.Helper()
	found := 0
	arrived := machine.Wait(func() bool {
		found = len(s.messages(t, recipient))
		return found >= n
	})
	if !arrived {
		t.Fatalf("mailbox of %s holds %d messages, want %d", recipient, found, n)
	}
	return s.Mailbox(t, recipient)
}

// Mailbox returns the messages delivered to the recipient so far, oldest first.
func (s *Instance) Mailbox(t *testing.T, recipient string) []Delivered {
	t.Helper()
	var found []Delivered
	for _, name := range s.messages(t, recipient) {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, parseDelivered(raw))
	}
	return found
}

// messages are the files of a recipient's mailbox. Maildir names begin with the
// time of delivery, and a file is moved into new/ only once it is complete.
func (s *Instance) messages(t *testing.T, recipient string) []string {
	t.Helper()
	dir := s.Path("mail", recipient, "new")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, filepath.Join(dir, entry.Name()))
	}
	return names
}

// traceFields are those that servers put before a message, in their order.
var traceFields = []string{"Return-Path", "X-Original-To", "Delivered-To", "Envelope-To", "Delivery-Date", "Received"}

// parseDelivered takes them off.
func parseDelivered(raw []byte) Delivered {
	var d Delivered
	rest := raw
	for _, name := range traceFields {
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
	if len(msg) <= len(name) || !strings.EqualFold(string(msg[:len(name)+1]), name+":") {
		return nil, msg, false
	}
	value = msg[len(name)+1:]
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

package mta

import "testing"

func TestParseDelivered(t *testing.T) {
	raw := "Return-Path: <a@example.com>\nDelivered-To: b@example.org\nReceived: from x\n\tby y;\n\ttoday\nSubject: s\n\nbody\n"
	got := parseDelivered([]byte(raw))
	want := Delivered{ReturnPath: "a@example.com", Received: "from x\tby y;\ttoday", Data: []byte("Subject: s\r\n\r\nbody\r\n")}
	if got.ReturnPath != want.ReturnPath || got.Received != want.Received || string(got.Data) != string(want.Data) {
		t.Errorf("parseDelivered(%q) = %q, want %q", raw, got, want)
	}
}

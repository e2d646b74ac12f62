package smtp

import (
	"testing"

	"mailsidecar/mailer"
)

// TestFormOnce: a message is converted once for a delivery, however many transactions
// and connections it takes, and anew only for a relay that lacks another extension. What
// would be larger than the relay takes is not made.
func TestFormOnce(t *testing.T) {
	const eightBit = "From: a@b.example\r\nSubject: \xc3\xa9\r\n\r\n\xc3\xa9\r\n"
	c := mailer.Content{Data: []byte(eightBit), EightBit: true}
	r, err := New(Options{Host: "relay.test", Ladder: []mailer.Rung{{Port: 587}}})
	if err != nil {
		t.Fatal(err)
	}
	d := r.newDelivery(mailer.Envelope{ReversePath: "a@b.example"}, c)
	first, f := d.adapted(t.Context(), extensions{"SMTPUTF8": ""})
	if f != nil || first.EightBit {
		t.Fatalf("adapted() = %+v, %v", first, f)
	}
	if again, _ := d.adapted(t.Context(), extensions{"SMTPUTF8": "", "SIZE": "1000000"}); &again.Data[0] != &first.Data[0] {
		t.Error("the message was converted again")
	}
	if as, _ := d.adapted(t.Context(), extensions{"8BITMIME": "", "SMTPUTF8": ""}); &as.Data[0] != &c.Data[0] {
		t.Error("the message was converted for a relay that takes it as it is")
	}
	if again, _ := d.adapted(t.Context(), extensions{"SMTPUTF8": ""}); &again.Data[0] != &first.Data[0] {
		t.Error("the message was converted again after a connection to another server of the relay")
	}
	if _, f := d.adapted(t.Context(), extensions{"SIZE": "60", "SMTPUTF8": ""}); f == nil || f.Reply.Enhanced != "5.3.4" {
		t.Errorf("adapted() for a relay that takes 60 octets = %v, want 5.3.4", f)
	}
	d = r.newDelivery(mailer.Envelope{ReversePath: "a@b.example"}, c)
	if _, f := d.adapted(t.Context(), extensions{"SIZE": "60"}); f == nil || f.Reply.Enhanced != "5.3.4" || d.forms.last != nil {
		t.Errorf("adapted() for a relay that takes 60 octets = %v, form %v, want 5.3.4 and no form", f, d.forms.last)
	}
}

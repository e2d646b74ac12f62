package smtp

import (
	"testing"

	"mailsidecar/mailer"
)

// TestSenderIsNoPushback: a reply about one sender that ends the connection says nothing of
// our load, and is not repeated over another connection.
func TestSenderIsNoPushback(t *testing.T) {
	for _, cause := range []error{nil, mailer.ErrSenderRefused} {
		r, err := New(Options{Host: "relay.example", Ladder: []mailer.Rung{{Port: 587}}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		f := &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 421, Text: "too many connections"}, Err: cause}
		d := &delivery{relay: r, conn: &conn{relay: r, served: 5}}
		lost := &transaction{results: []*mailer.Result{{Failure: f}}, lost: f}
		r.pool.places = 2
		_ = d.pushedBack(lost)
		r.pool.places = 0
		if shrunk, again := r.pool.window.limit < firstConnections, lost.endedNormally(d.conn); shrunk != (cause == nil) || again != (cause == nil) {
			t.Errorf("cause %v: fewer connections %v, sent again %v", cause, shrunk, again)
		}
	}
}

package compose

import (
	"testing"

	"mailsidecar/mailer"
)

func TestPrecedence(t *testing.T) {
	tests := []struct {
		value string
		want  mailer.Priority
	}{
		{"bulk", mailer.PriorityBulk},
		{"list", mailer.PriorityBulk},
		{"Junk", mailer.PriorityBulk},
		{" BULK ", mailer.PriorityBulk},
		{"first-class", mailer.PriorityNormal},
		{"special-delivery", mailer.PriorityNormal},
		{"", mailer.PriorityNormal},
	}
	for _, c := range tests {
		m := sampleMessage()
		m.Header = []mailer.Field{{Name: "precedence", Value: c.value}}
		composed, err := composeAny(m)
		if err != nil || composed.Envelope.Priority != c.want {
			t.Errorf("Compose(Precedence: %q) has priority %v, %v, want %v", c.value, composed.Envelope.Priority, err, c.want)
		}
		finished, err := Finish(t.Context(), []byte("From: a@example.com\r\nTo: b@example.org\r\nPrecedence: "+c.value+"\r\n\r\nx\r\n"), FinishOptions{})
		if err != nil || finished.Envelope.Priority != c.want {
			t.Errorf("Finish(t.Context(), Precedence: %q) has priority %v, %v, want %v", c.value, finished.Envelope.Priority, err, c.want)
		}
	}
}

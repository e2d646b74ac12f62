package compose

import (
	"testing"

	"mailsidecar/mailer"
)

func TestParsePriority(t *testing.T) {
	tests := []struct {
		name string
		want mailer.Priority
		ok   bool
	}{
		{"bulk", mailer.PriorityBulk, true},
		{"normal", mailer.PriorityNormal, true},
		{"high", mailer.PriorityHigh, true},
		{"High", mailer.PriorityNormal, false},
		{"", mailer.PriorityNormal, false},
		{"urgent", mailer.PriorityNormal, false},
	}
	for _, c := range tests {
		got, ok := mailer.ParsePriority(c.name)
		if got != c.want || ok != c.ok {
			t.Errorf("ParsePriority(%q) = %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
		if ok && got.String() != c.name {
			t.Errorf("Priority(%d).String() = %q, want %q", got, got, c.name)
		}
	}
	if mailer.PriorityBulk >= mailer.PriorityNormal || mailer.PriorityNormal >= mailer.PriorityHigh {
		t.Error("the priorities are not in order")
	}
	if (mailer.Envelope{}).Priority != mailer.PriorityNormal {
		t.Error("the zero envelope is not of normal priority")
	}
}

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
		composed, err := Compose(m)
		if err != nil || composed.Envelope.Priority != c.want {
			t.Errorf("Compose(Precedence: %q) has priority %v, %v, want %v", c.value, composed.Envelope.Priority, err, c.want)
		}
		finished, err := Finish([]byte("From: a@example.com\r\nTo: b@example.org\r\nPrecedence: "+c.value+"\r\n\r\nx\r\n"), FinishOptions{})
		if err != nil || finished.Envelope.Priority != c.want {
			t.Errorf("Finish(Precedence: %q) has priority %v, %v, want %v", c.value, finished.Envelope.Priority, err, c.want)
		}
	}
}

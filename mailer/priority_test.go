package mailer

import "testing"

func TestParsePriority(t *testing.T) {
	tests := []struct {
		name string
		want Priority
		ok   bool
	}{
		{"bulk", PriorityBulk, true},
		{"normal", PriorityNormal, true},
		{"high", PriorityHigh, true},
		{"High", PriorityNormal, false},
		{"", PriorityNormal, false},
		{"urgent", PriorityNormal, false},
	}
	for _, c := range tests {
		got, ok := ParsePriority(c.name)
		if got != c.want || ok != c.ok {
			t.Errorf("ParsePriority(%q) = %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
		if ok && got.String() != c.name {
			t.Errorf("Priority(%d).String() = %q, want %q", got, got, c.name)
		}
	}
	if PriorityBulk >= PriorityNormal || PriorityNormal >= PriorityHigh {
		t.Error("the priorities are not in order")
	}
	if (Envelope{}).Priority != PriorityNormal {
		t.Error("the zero envelope is not of normal priority")
	}
}

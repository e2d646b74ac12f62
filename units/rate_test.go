package units

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	tests := []struct {
		in, text string
		want     Rate
		ok       bool
	}{
		{"10/s", "10/s", Rate{10, time.Second}, true},
		{"30 / M", "30/m", Rate{30, time.Minute}, true},
		{"500/h", "500/h", Rate{500, time.Hour}, true},
		{"2000/d", "2000/d", Rate{2000, 24 * time.Hour}, true},
		{"10", "", Rate{}, false},
		{"0/s", "", Rate{}, false},
		{"-1/s", "", Rate{}, false},
		{"10/w", "", Rate{}, false},
		{"1000001/d", "", Rate{}, false},
		{"", "", Rate{}, false},
	}
	for _, tt := range tests {
		got, err := ParseRate(tt.in)
		if got != tt.want || (err == nil) != tt.ok || got.String() != tt.text {
			t.Errorf("ParseRate(%q) = %+v (%s), %v; want %+v (%s)", tt.in, got, got, err, tt.want, tt.text)
		}
	}
	if got, want := (Rate{Messages: 3, Per: 90 * time.Second}).String(), "3/1m30s"; got != want {
		t.Errorf("a rate in another time = %s, want %s", got, want)
	}
}

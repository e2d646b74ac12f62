package compose

import (
	"context"
	"errors"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

// TestConversionLimits: a message that would become much larger is refused at the door,
// with the field that is to blame, and so is what cannot be encoded in small pieces.
func TestConversionLimits(t *testing.T) {
	const start = "From: a@b.example\r\nTo: r@b.example\r\n"
	for name, tt := range map[string]struct{ raw, field, message string }{
		"long name of a parameter": {
			start + "Content-Disposition: attachment; " + strings.Repeat("a", 50_000) + `="` + strings.Repeat("é", 25_000) + "\"\r\n\r\nx",
			"headers.Content-Disposition", errParams.Error(),
		},
		"many parameters": {
			start + "Content-Type: a/b" + strings.Repeat(";a=é", 2000) + "\r\n\r\nx", "headers.Content-Type", errParams.Error(),
		},
		"many small names": {
			start + "Reply-To: " + strings.Repeat("\xe4:", 20_000) + "\r\n\r\nx", "headers.Reply-To", errGrowth.Error(),
		},
		"a large field": {
			start + "X-A: é" + strings.Repeat("x", maxRewritten) + "\r\n\r\nx", "headers.X-A", errLongField.Error(),
		},
		"a part's parameter": {
			start + "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Disposition: attachment; " + strings.Repeat("a", 900) + "=\"" +
				strings.Repeat("\r\n "+strings.Repeat("é", 400), 500) + "\"\r\n\r\nx\r\n--x--\r\n",
			"message", "in a part's field Content-Disposition: " + errParams.Error(),
		},
		"many addresses": {
			start + strings.Repeat("Bcc: "+strings.Repeat("a@b.example,", 50)+"\r\n", 2001) + "\r\nx", "bcc", "more than 100000 addresses",
		},
	} {
		_, err := Finish(t.Context(), []byte(tt.raw), FinishOptions{})
		var invalid *mailer.InvalidError
		if !errors.As(err, &invalid) || len(invalid.Fields) != 1 || invalid.Fields[0].String() != tt.field+": "+tt.message {
			t.Errorf("%s: error = %.200v, want %s: %s", name, err, tt.field, tt.message)
		}
	}
}

// TestFindingsLimit: of a million findings a caller learns fifty.
func TestFindingsLimit(t *testing.T) {
	m := mailer.Message{From: mailer.Address{Email: "a@b.example"}, To: make([]mailer.Address, 5000), Text: "x"}
	_, err := composeAny(m)
	var invalid *mailer.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Fields) != maxProblems {
		t.Errorf("error = %.200v, want %d findings", err, maxProblems)
	}
}

// TestConversionEnds: a conversion ends with its context.
func TestConversionEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	raw := []byte("From: a@b.example\r\nTo: é@b.example\r\n\r\né\r\n")
	c := mailer.Content{Data: raw, EightBit: true, UTF8Header: true}
	_, finish := Finish(ctx, raw, FinishOptions{})
	_, seven := SevenBit(ctx, c, nil)
	_, ascii := ASCIIHeader(ctx, c, nil)
	for name, err := range map[string]error{"Finish": finish, "SevenBit": seven, "ASCIIHeader": ascii} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s of an ended context = %v", name, err)
		}
	}
}

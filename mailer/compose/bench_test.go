package compose

import (
	"bytes"
	"strings"
	"testing"

	"mailsidecar/mailer"
)

func BenchmarkCompose(b *testing.B) {
	small := sampleMessage()
	small.Text = strings.Repeat("Your order 1042 is on its way. ", 80)
	small.HTML = strings.Repeat("<p style=\"color:#333\">Grüße</p>\n", 310)
	large := sampleMessage()
	large.Attachments = []mailer.Attachment{{Filename: "large.pdf", Content: bytes.Repeat([]byte("0123456789"), 1_000_000)}}
	for name, m := range map[string]mailer.Message{"small": small, "attachment10MB": large} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := composeAny(m)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(c.Content.Data)))
			}
		})
	}
}

func BenchmarkFinish(b *testing.B) {
	m := sampleMessage()
	m.Attachments = []mailer.Attachment{{Filename: "large.pdf", Content: bytes.Repeat([]byte("0123456789"), 1_000_000)}}
	c, err := composeAny(m)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(c.Content.Data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Finish(b.Context(), c.Content.Data, FinishOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

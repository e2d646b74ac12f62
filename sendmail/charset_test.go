package sendmail

import (
	"fmt"
	"math/rand/v2"
	"net/mail"
	"strings"
	"testing"
)

// TestNamesOfTwoOctets: a name in a charset whose characters may end with an octet of ASCII, such
// as a backslash, a bracket or an @, is read and written as a whole in every address field.
func TestNamesOfTwoOctets(t *testing.T) {
	types := []string{
		"text/plain; charset=%s", "text/plain;\n charset=\"%s\"",
		"multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\nContent-Type: text/plain;\n\tcharset=%s",
	}
	frames := []string{"%s <q@x.test>", "%s<q@x.test>", `"%s" <q@x.test>`, "q@x.test (%s)", "Shop, %s, Ltd. <q@x.test>"}
	for _, name := range []struct{ charset, octets string }{
		{"Shift_JIS", "\x95\x5c\x83\x5c"}, {"cp932", "\x95\x5c \x8e\xa6"}, {"windows-31j", "\x83\x40\x83\x5b\x83\x5d\xb1"}, // 表ソ, 表 示, ァゼゾ and a narrow ｱ
		{"Big5", "\xb3\x5c\xa5\x5c"}, {"big5-hkscs", "\xa5\x5c \xbb\x5c"}, // 許功, 功 蓋
		{"GBK", "\x8b\xc8, \x81\x5c"}, {"gb2312", "\x81\x40\xd5\x5b\x81\x7c"}, {"GB18030", "\x81\x39\xef\x30\x81\x5c"}, // with @, [, | and 㐀
	} {
		for i, kind := range types {
			for _, frame := range frames {
				for _, field := range []string{"From", "To", "Cc", "Reply-To"} {
					server := newRecordingServer(t, acceptedAnswer)
					head := field + ": " + fmt.Sprintf(frame, name.octets) + "\nContent-Type: " + fmt.Sprintf(kind, name.charset)
					if field != "From" {
						head = "From: me@x.test\n" + head
					}
					if got := runWith(t, head+"\n\nx\n", "-t", "ana@example.org"); got != (outcome{}) {
						t.Errorf("%s: %q in %s, type %d = %+v, want status 0 and silence", field, frame, name.charset, i, got)
						continue
					}
					request := server.only(t)
					value := fieldValue(request.body, field)
					if strings.Count(value, name.octets) != 1 {
						t.Errorf("%s: %q in %s, type %d became %q, without its name", field, frame, name.charset, i, value)
						continue
					}
					box, err := mail.ParseAddress(strings.Replace(value, name.octets, "N", 1))
					if err != nil || box.Address != "q@x.test" || !strings.Contains(box.Name, "N") {
						t.Errorf("%s: %q in %s, type %d became %q, which reads as %v (%v)", field, frame, name.charset, i, value, box, err)
					}
					if envelope := request.header.Get("Envelope-To"); (field == "To" || field == "Cc") && !strings.Contains(envelope, "q@x.test") {
						t.Errorf("%s: %q in %s: the envelope is %q", field, frame, name.charset, envelope)
					}
				}
			}
		}
	}
}

// TestPairsAreNoAddress: what is no ASCII is never the address of an envelope.
func TestPairsAreNoAddress(t *testing.T) {
	server := newRecordingServer(t, acceptedAnswer)
	got := runWith(t, "From: me@x.test\nTo: \x95\x5c@x.test, q@x.test\nContent-Type: text/plain; charset=Shift_JIS\n\nx\n", "-t")
	if got.status != 0 || !strings.Contains(got.stderr, "not a valid recipient") {
		t.Errorf("run = %+v, want status 0 and a word about the address", got)
	}
	if to := server.only(t).header.Get("Envelope-To"); to != "q@x.test" {
		t.Errorf("envelope = %q, want q@x.test", to)
	}
}

// TestPairsReturn: whatever octets a field has, they are the same after they were joined.
func TestPairsReturn(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	octets := []byte{0x20, 0x30, 0x40, 0x5c, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0xa1, 0xb1, 0xbf, 0xc3, 0xe0, 0xf4, 0xfc, 0xfe, 0xff}
	for range 20000 {
		text := make([]byte, random.IntN(12))
		for i := range text {
			text[i] = octets[random.IntN(len(octets))]
		}
		for name, begins := range map[string]func(byte) bool{"Shift_JIS": beginsShiftJIS, "GBK": beginsPair} {
			if got := splitPairs(joinPairs(string(text), begins)); got != string(text) {
				t.Fatalf("%s: %q became %q", name, text, got)
			}
		}
	}
}

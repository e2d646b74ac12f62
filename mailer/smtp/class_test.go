package smtp_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
)

// contentKinds are what a relay may be given, by what they need of it. The signed
// ones cannot be converted.
func contentKinds() map[string]mailer.Content {
	const signature = "DKIM-Signature: v=1; h=From; b=x\r\n"
	const from = "From: a@example.com\r\n"
	const eightBit = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\n"
	const international = "To: ü@example.org\r\n"
	return map[string]mailer.Content{
		"plain":         {Data: []byte(from + "\r\nbody\r\n")},
		"8-bit":         {Data: []byte(from + eightBit), EightBit: true},
		"signed 8-bit":  {Data: []byte(signature + from + eightBit), EightBit: true},
		"UTF-8":         {Data: []byte(from + international + "\r\nbody\r\n"), UTF8Header: true},
		"signed UTF-8":  {Data: []byte(signature + from + international + "\r\nbody\r\n"), UTF8Header: true},
		"signed, both":  {Data: []byte(signature + from + international + eightBit), EightBit: true, UTF8Header: true},
		"both, as text": {Data: []byte(from + international + eightBit), EightBit: true, UTF8Header: true},
	}
}

// TestClassOfAnyContent: the class of a reply does not depend on the content, on the
// extensions that the relay offers beside those needed, or on what is doubted of it.
func TestClassOfAnyContent(t *testing.T) {
	want := map[string]string{}
	for _, code := range []int{450, 451, 454, 500, 501, 502, 503, 504, 505, 530, 550, 552, 553, 554, 555} {
		class := mailer.ClassPermanent
		if code < 505 || code == 530 || code == 555 {
			class = mailer.ClassTransient
		}
		for _, detail := range []string{".5.4 no", ".1.7 no", ".7.1 no"} {
			want[fmt.Sprintf("%d %d%s", code, code/100, detail)] = fmt.Sprintf("%s mail %d", class, code)
		}
		want[fmt.Sprintf("%d no", code)] = fmt.Sprintf("%s mail %d", class, code)
	}
	for name, extensions := range map[string][]string{
		"all": nil, "one by one": relaytest.Without("PIPELINING"), "no SIZE": relaytest.Without("SIZE"),
	} {
		for _, doubted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, doubted %v", name, doubted), func(t *testing.T) {
				for reply, outcome := range want {
					for kind, c := range contentKinds() {
						if got := classAfter(t, extensions, reply, doubted, c); got != outcome {
							t.Errorf("MAIL of %s refused with %s: %s, want %s", kind, reply, got, outcome)
						}
					}
				}
			})
		}
	}
}

// classAfter delivers c to a relay that refuses MAIL, and before that, to make the
// relay's extensions doubted, a message that it takes only without parameters.
func classAfter(t *testing.T, extensions []string, reply string, doubted bool, c mailer.Content) (got string) {
	synctest.Test(t, func(t *testing.T) {
		script := relaytest.Script{"MAIL": reply}
		if doubted {
			script["MAIL"] = "555 5.5.4 no parameters then 250 ok then " + reply
		}
		scripted := relaytest.New(t, relaytest.Options{TLSExtensions: extensions}, script)
		relay := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}}))
		if doubted {
			if first := outcomes(relay.Deliver(t.Context(), envelope("b@example.org"), contentKinds()["8-bit"])); first != "accepted 250" {
				t.Errorf("the first message: %s, want accepted", first)
			}
		}
		got = outcomes(relay.Deliver(t.Context(), envelope("b@example.org"), c))
	})
	return got
}

// TestDoubtBouncesNothing: a relay that once took MAIL only without parameters gets
// the next message in whatever form it needs.
func TestDoubtBouncesNothing(t *testing.T) {
	for kind, c := range contentKinds() {
		for _, size := range []int{0, 400} { // between the sizes of some messages as they are and converted
			synctest.Test(t, func(t *testing.T) {
				opts := relaytest.Options{}
				if size > 0 {
					opts.TLSExtensions = append(relaytest.Without("SIZE"), fmt.Sprintf("SIZE %d", size))
				}
				scripted := relaytest.New(t, opts, relaytest.Script{"MAIL": "501 5.5.4 try that again then default"})
				relay := newRelay(t, options(&relaytest.Network{Port: map[int]any{587: scripted}}))
				for i := range 2 {
					first := contentKinds()["8-bit"]
					if i == 1 {
						first = c
					}
					if got := outcomes(relay.Deliver(t.Context(), envelope("b@example.org"), first)); got != "accepted 250" {
						t.Errorf("SIZE %d, message %d, %s: %s, want accepted", size, i, kind, got)
					}
				}
			})
		}
	}
}

package handler

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
)

func TestDecodeMessage(t *testing.T) {
	const in = `{"from":{"email":"a@example.com","name":"A"},"to":"b@example.com","cc":[{"email":"c@example.com"},"D <d@example.com>"],
		"subject":"S","headers":{"X-B":"2","X-A":"1"},"attachments":[{"filename":"f.txt","content":"YWJj","content_type":"text/plain"}],
		"tags":{"order":"1042"},"return_path":"<>","send_at":"2030-01-31T08:00:00Z","expires_in":"2h"}`
	var m messageRequest
	if err := intake.Decode([]byte(in), &m, ""); err != nil {
		t.Fatal(err)
	}
	if m.From != (mailbox{email: "a@example.com", name: "A", given: true, apart: true}) {
		t.Errorf("from = %+v", m.From)
	}
	if !m.To.single || m.To.list[0].text != "b@example.com" {
		t.Errorf("to = %+v", m.To)
	}
	if m.Cc.single || len(m.Cc.list) != 2 || m.Cc.list[0].email != "c@example.com" || m.Cc.list[1].text != "D <d@example.com>" {
		t.Errorf("cc = %+v", m.Cc)
	}
	if want := (members{{Name: "X-B", Value: "2"}, {Name: "X-A", Value: "1"}}); !slices.Equal(m.Headers, want) {
		t.Errorf("headers = %v, want %v in the client's order", m.Headers, want)
	}
	if len(m.Attachments) != 1 || string(m.Attachments[0].Content) != "abc" {
		t.Errorf("attachments = %+v", m.Attachments)
	}
}

// FuzzDecodeMessage: whatever the input, decoding ends in a message or in a
// problem with a known code, and what was decoded can be composed or is invalid.
func FuzzDecodeMessage(f *testing.F) {
	for _, seed := range []string{
		goodMessage, "", "{", "null", "[]", `{"to":[{"email":"a@example.com","name":"A"},null]}`, `{"to":{"email":1}}`,
		`{"headers":{"X-A":"1","X-A":"2"}}`, `{"headers":{"a\r\nb":"c"}}`, `{"attachments":[{"content":"YQ"}]}`,
		`{"from":"\"a\\\"b\" <a@example.com>","to":"ü@exämple.com","text":"x"}`, `{"tags":{"a":"` + "\u2028" + `"}}`,
		`{"send_at":"2030-01-31T08:00:00Z","expires_in":"5d"}`, "{\"subject\":\"\xff\"}", `{"subject":"\ud800"}`, goodMessage + "x",
	} {
		f.Add([]byte(seed))
	}
	s := newTestServer(f, &fakeQueue{durable: true}, nil)
	f.Fuzz(func(t *testing.T, in []byte) {
		var m messageRequest
		if err := intake.Decode(in, &m, ""); err != nil {
			p, ok := errors.AsType[*problem.Error](err)
			if !ok || p.Status() != 400 {
				t.Fatalf("Decode(%q) = %v, want a problem with status 400", in, err)
			}
			for _, field := range p.Fields {
				if len(field.Field) > problem.MaxPath+len("…") {
					t.Fatalf("Decode(%q) names a field of %d octets", in, len(field.Field))
				}
			}
			return
		}
		sub, err := s.compose(t.Context(), &m, nil, nil)
		if err != nil {
			if c := problem.For(err).Code; c == api.CodeInternal {
				t.Fatalf("compose(%q) = %v", in, err)
			}
			return
		}
		if len(sub.Envelope.ForwardPaths) == 0 || len(sub.Content.Data) == 0 {
			t.Fatalf("compose(%q) = %+v", in, sub.Envelope)
		}
		if _, err := mailer.ParseAddress(sub.Sender); err != nil {
			t.Fatalf("compose(%q) has the sender %q: %v", in, sub.Sender, err)
		}
	})
}

// FuzzDecodeForm does the like of FuzzDecodeMessage for forms.
func FuzzDecodeForm(f *testing.F) {
	for _, seed := range []string{
		"--x\r\nContent-Disposition: form-data; name=to\r\n\r\na@example.com\r\n--x--\r\n",
		"--x\r\nContent-Disposition: form-data; name=\"headers[X-A]\"\r\n\r\n1\r\n--x--\r\n",
		"--x\r\nContent-Disposition: form-data; name=headers\r\n\r\n{\"X-A\":\"1\"}\r\n--x--\r\n",
		"--x\r\nContent-Disposition: form-data; name=\"inline[]\"; filename*=utf-8''%C3%A4.png\r\nContent-ID: <a>\r\n\r\n\x00\r\n--x--\r\n",
		"--x", "", "--x--", "--x\r\n\r\n--x--",
	} {
		f.Add([]byte(seed))
	}
	s := newTestServer(f, &fakeQueue{durable: true}, nil)
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := decodeFormOf(s, in)
		if err == nil {
			_, err = s.compose(t.Context(), &m, nil, nil)
		}
		if err != nil && problem.For(err).Code == api.CodeInternal {
			t.Fatalf("decodeForm(%q) = %v", in, err)
		}
	})
}

func TestIsTagName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "A.b_c-9": true, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false,
		"": false, "a b": false, "é": false, "a\n": false, "a/b": false, "a@": false, "[": false, "`": false, "{": false, ":": false,
	} {
		if got := isTagName(name); got != want {
			t.Errorf("isTagName(%q) = %v, want %v", name, got, want)
		}
	}
}

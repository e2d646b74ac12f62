package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/dns/dnsmessage"
)

// dns starts a DNS server for the script and sets DNS to its address. It has the TXT
// records that FILE has, as "mailsidecar dkim record --json" prints them.
func dns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: dns FILE")
	}
	var file struct {
		Records []struct{ Name, Value string }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &file))
	texts := map[string]string{}
	for _, r := range file.Records {
		texts[r.Name+"."] = r.Value
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	go serveDNS(conn, texts)
	ts.Setenv("DNS", conn.LocalAddr().String())
}

// serveDNS answers until conn is closed.
func serveDNS(conn net.PacketConn, texts map[string]string) {
	buf := make([]byte, 1500)
	for {
		n, client, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer, err := answerDNS(buf[:n], texts); err == nil {
			_, _ = conn.WriteTo(answer, client)
		}
	}
}

func answerDNS(query []byte, texts map[string]string) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Additionals = true, nil
	m.RCode = dnsmessage.RCodeNameError
	name := m.Questions[0].Name
	if text, ok := texts[strings.ToLower(name.String())]; ok {
		var parts []string
		for ; len(text) > 255; text = text[255:] {
			parts = append(parts, text[:255])
		}
		m.RCode = dnsmessage.RCodeSuccess
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.TXTResource{TXT: append(parts, text)},
		}}
	}
	return m.Pack()
}

// The server of the scripts answers as it should.
func TestAnswerDNS(t *testing.T) {
	name := dnsmessage.MustNewName("a.example.")
	query := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for texts, want := range map[*map[string]string]dnsmessage.RCode{
		{"a.example.": strings.Repeat("x", 300)}: dnsmessage.RCodeSuccess,
		{}:                                       dnsmessage.RCodeNameError,
	} {
		answer, err := answerDNS(packed, *texts)
		var m dnsmessage.Message
		if err != nil || m.Unpack(answer) != nil || m.RCode != want {
			t.Errorf("it answers %v, %v, want %v", m.RCode, err, want)
		}
	}
}

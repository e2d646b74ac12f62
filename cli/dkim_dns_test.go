package cli

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

// TestDNSFaultIsTold: a DNS server that does not answer as it should is told in words that
// say what is wrong with it, without addresses of ours.
func TestDNSFaultIsTold(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nothing := closed.LocalAddr().String()
	_ = closed.Close()
	for name, tt := range map[string]struct{ server, want string }{
		"SERVFAIL": {answering(t, func(q []byte) []byte { q[2], q[3] = 0x81, 0x82; return q }), "the DNS server answers with an error, or refuses to answer"},
		"REFUSED":  {answering(t, func(q []byte) []byte { q[2], q[3] = 0x81, 0x85; return q }), "the DNS server answers with an error, or refuses to answer"},
		"closed":   {nothing, "no DNS server listens at that address"},
	} {
		findings := dkim.Check(t.Context(), []dkim.Entry{dkimtest.Entry(t, "example.com", "s", dkimtest.Ed25519(t))}, lookupAt(tt.server))
		var b bytes.Buffer
		printFindings(&b, findings)
		text := strings.Join(strings.Fields(b.String()), " ")
		if !strings.Contains(text, tt.want) || strings.Contains(text, "127.0.0.1") || !strings.Contains(text, "--dns SERVER") {
			t.Errorf("%s: %s (%v)\nwant %q in it, and no address", name, text, findings[0].Err, tt.want)
		}
	}
}

// answering starts a DNS server that makes answers of queries.
func answering(t *testing.T, answer func(query []byte) []byte) (addr string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, client, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answer(buf[:n]), client)
		}
	}()
	return conn.LocalAddr().String()
}

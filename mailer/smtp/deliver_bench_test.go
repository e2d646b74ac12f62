package smtp_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
)

// sink is a relay that takes everything, at as little cost as can be: the
// benchmarks are about the client.
func sink(b *testing.B) mailer.Rung {
	b.Helper()
	config := relaytest.ServerConfig()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go swallow(c)
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	number, _ := strconv.Atoi(port)
	return mailer.Rung{Port: number, Implicit: true}
}

// swallow answers a burst of commands with one burst of replies.
func swallow(c net.Conn) {
	defer c.Close()
	br, bw := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	say := func(text string) { _, _ = bw.WriteString(text) } // Flush tells
	say("220 sink\r\n")
	data := false
	for {
		if br.Buffered() == 0 && bw.Flush() != nil {
			return
		}
		line, err := br.ReadSlice('\n')
		if err != nil {
			return
		}
		switch {
		case data:
			if data = string(line) != ".\r\n"; !data {
				say("250 2.0.0 Ok: queued as 4XyZ\r\n")
			}
		case bytes.HasPrefix(line, []byte("EHLO")):
			say("250-sink\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n")
		case bytes.HasPrefix(line, []byte("AUTH")):
			say("235 2.7.0 Ok\r\n")
		case bytes.HasPrefix(line, []byte("DATA")):
			data = true
			say("354 End data with <CR><LF>.<CR><LF>\r\n")
		case bytes.HasPrefix(line, []byte("QUIT")):
			_, _ = io.WriteString(c, "221 bye\r\n")
			return
		default:
			say("250 2.1.0 Ok\r\n")
		}
	}
}

func benchRelay(b *testing.B) *smtp.Relay {
	relay, err := smtp.New(smtp.Options{
		Host: "localhost", Ladder: []mailer.Rung{sink(b)}, Username: "user", Password: "secret",
		RootCAs: relaytest.RootCAs(), MessagesPerConnection: 1 << 30, MaxConnections: 8,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(relay.Close)
	return relay
}

var bodies = []struct {
	name string
	data string
}{
	{"16KB", "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 210)},
	{"1MB", "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 13500)},
}

// BenchmarkDeliverLone is one message after the other on one warm connection.
func BenchmarkDeliverLone(b *testing.B) {
	for _, body := range bodies {
		b.Run(body.name, func(b *testing.B) {
			relay, c := benchRelay(b), content(body.data)
			b.ReportAllocs()
			b.SetBytes(int64(len(body.data)))
			for b.Loop() {
				if a := relay.Deliver(b.Context(), envelope("b@example.org"), c); a.Results[0].Failure != nil {
					b.Fatal(a.Results[0].Failure)
				}
			}
		})
	}
}

// BenchmarkDeliverBacklog has three deliveries for each of eight connections.
func BenchmarkDeliverBacklog(b *testing.B) {
	for _, body := range bodies {
		b.Run(body.name, func(b *testing.B) {
			relay, c := benchRelay(b), content(body.data)
			b.ReportAllocs()
			b.SetBytes(int64(len(body.data)))
			b.SetParallelism(12)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if a := relay.Deliver(b.Context(), envelope("b@example.org"), c); a.Results[0].Failure != nil {
						b.Error(a.Results[0].Failure)
					}
				}
			})
		})
	}
}

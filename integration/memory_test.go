package integration

import (
	"bytes"
	"crypto/rand"
	"debug/buildinfo"
	"encoding/base64"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"mailsidecar/mailer/relaytest"
)

// TestMemory compares the process's resident memory with the product's promises.
// VmHWM is its peak since the process started.
func TestMemory(t *testing.T) {
	lean := leanBinary(t)
	t.Run("idle", func(t *testing.T) {
		s := serveLean(t, lean, durable(t, spacious(t)))
		a := s.send(t, order(nil))
		wantStatus(t, a, http.StatusAccepted)
		s.awaitStatus(t, a.ID, "delivered")
		s.wantMemory(t, "VmRSS", 30)  // of these 22 are the program's own pages, two of them for PostgreSQL
		s.wantMemory(t, "RssAnon", 8) // what it asks the system for
	})
	for _, form := range []struct {
		name string
		make func(*testing.T, int) (contentType string, body []byte, header http.Header)
	}{
		{"JSON", asJSON}, {"form", asForm}, {"finished", asFinished},
	} {
		// In the message the attachment takes 78 octets for each 57.
		contentType, body, header := form.make(t, 25<<20/78*57-(4<<10))
		t.Run("one of 25 MiB as "+form.name, func(t *testing.T) {
			relay := spacious(t)
			s := serveLean(t, lean, durable(t, relay))
			a := s.post(t, contentType, body, header)
			wantStatus(t, a, http.StatusAccepted)
			s.awaitStatus(t, a.ID, "delivered")
			if n := len(relay.Messages()[0].Data); n < 24<<20 {
				t.Errorf("the message has %d octets, too few to tell anything", n)
			}
			s.wantMemory(t, "VmHWM", 200)
		})
	}
	t.Run("64 of 1 MiB", func(t *testing.T) {
		contentType, body, _ := asJSON(t, 1<<20)
		relay := spacious(t)
		s := serveLean(t, lean, durable(t, relay))
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				wantStatus(t, s.post(t, contentType, body, nil), http.StatusAccepted)
			})
		}
		all.Wait()
		awaitMessages(t, relay, 64)
		s.wantMemory(t, "VmHWM", 300)
	})
	t.Run("a growing backlog", func(t *testing.T) {
		contentType, body, _ := asJSON(t, 10<<10)
		relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"MAIL": "silence"})
		s := serveLean(t, lean, durable(t, relay).with(environment{"MAILSIDECAR_SHUTDOWN_TIMEOUT": "4s"}))
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for range 50 {
					wantStatus(t, s.post(t, contentType, body, nil), http.StatusAccepted)
				}
			})
		}
		all.Wait()
		// 45 MiB of messages wait. Those in memory are bounded.
		s.wantMemory(t, "VmHWM", 84)
	})
}

// leanBinary is the product as it is released. The race detector takes several
// times the memory.
func leanBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("BINARY_UNDER_TEST")
	if path == "" {
		path = filepath.Join(scratch, "mailsidecar-lean")
		buildReleased(t, path, "mailsidecar")
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the binary under test has the race detector")
	}
	return path
}

func serveLean(t *testing.T, path string, env environment) *sidecar {
	t.Helper()
	return serveAs(t, env, func(cmd *exec.Cmd) { cmd.Path = path })
}

// spacious is a relay that takes messages of 50 MiB.
func spacious(t *testing.T) *relaytest.Relay {
	return relaytest.New(t, relaytest.Options{TLSExtensions: append(relaytest.Without("SIZE"), "SIZE 52428800")}, nil)
}

var memoryLine = regexp.MustCompile(`(?m)^((?:Vm|Rss)\w+):\s+(\d+) kB$`)

// wantMemory checks a line of /proc/PID/status against a limit in MiB.
func (s *sidecar) wantMemory(t *testing.T, name string, limit int) {
	t.Helper()
	kib := s.memory(t, name)
	t.Logf("%s = %.1f MiB, target %d", name, float64(kib)/1024, limit)
	if kib >= limit<<10 {
		t.Errorf("%s = %d KiB, want under %d MiB", name, kib, limit)
	}
}

// file is n octets that do not compress.
func file(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

func asJSON(t *testing.T, size int) (string, []byte, http.Header) {
	body := []byte(`{"from":"shop@example.com","to":["ana@example.org"],"subject":"Large","text":"See the file.",` +
		`"attachments":[{"filename":"large.bin","content":"`)
	body = base64.StdEncoding.AppendEncode(body, file(t, size))
	return "application/json", append(body, `"}]}`...), nil
}

func asForm(t *testing.T, size int) (string, []byte, http.Header) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for name, value := range map[string]string{"from": "shop@example.com", "to": "ana@example.org", "subject": "Large", "text": "See the file."} {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="attachments"; filename="large.bin"`}, "Content-Type": {"application/octet-stream"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(file(t, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), body.Bytes(), nil
}

func asFinished(t *testing.T, size int) (string, []byte, http.Header) {
	body := bytes.NewBufferString(crlf("From: shop@example.com\nTo: ana@example.org\nSubject: Large\nMIME-Version: 1.0\n" +
		"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"))
	text := base64.StdEncoding.EncodeToString(file(t, size))
	for len(text) > 0 {
		n := min(len(text), 76)
		body.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	return "message/rfc822", body.Bytes(), http.Header{"Envelope-From": {"shop@example.com"}, "Envelope-To": {"ana@example.org"}}
}

package service

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

// sharedText is a log that is read while it may be written.
type sharedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *sharedText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *sharedText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// The start waits for no DNS; the log says what is wrong.
func TestRecordCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entries := append(dkimtest.Entries(t, "example.com"), dkimtest.Entry(t, "example.org", "s", dkimtest.Ed25519(t)))
		var out sharedText
		lookup := func(ctx context.Context, name string) ([]string, error) {
			time.Sleep(time.Second)
			switch name {
			case "rsa._domainkey.example.com.":
				return []string{entries[0].Key.Record()}, nil
			case "ed._domainkey.example.com.":
				return nil, &net.DNSError{IsNotFound: true}
			default:
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		var r recordCheck
		begin := time.Now()
		r.begin(t.Context(), entries, lookup, slog.New(slog.NewTextHandler(&out, nil)))
		if took := time.Since(begin); took > 0 || out.String() != "" {
			t.Errorf("the start waits %v", took)
		}
		<-r.done
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("the check takes %v", took)
		}
		for _, want := range []string{
			`level=INFO msg="DKIM record is published" record=rsa._domainkey.example.com algorithm=rsa-sha256`,
			`level=WARN msg="DKIM record is not right" record=ed._domainkey.example.com state=missing found="there is no DKIM record ed._domainkey.example.com:`,
			`level=INFO msg="DKIM record was not checked" record=s._domainkey.example.org`,
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the log has no %s:\n%s", want, out.String())
			}
		}
		r.stop()
	})
}

// A stop ends the check; without keys nothing is asked.
func TestRecordCheckStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		var r recordCheck
		log := slog.New(slog.NewTextHandler(&out, nil))
		begin := time.Now()
		r.begin(t.Context(), dkimtest.Entries(t, "example.com"), func(ctx context.Context, _ string) ([]string, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, log)
		r.stop()
		if took := time.Since(begin); took > 0 || out.Len() > 0 {
			t.Errorf("it stops after %v, and logs %s", took, out.String())
		}
		var none recordCheck
		none.begin(t.Context(), nil, func(context.Context, string) ([]string, error) { t.Error("the DNS is asked"); return nil, nil }, log)
		none.stop()
	})
}

func TestSigners(t *testing.T) {
	if newSigner(nil) != nil || newResigner(nil) != nil {
		t.Error("without keys there is a signer")
	}
	keys := []dkim.Entry{dkimtest.Entry(t, "example.com", "s", dkimtest.Ed25519(t))}
	if newSigner(keys).Room("a@example.com") == 0 || newResigner(keys) == nil {
		t.Error("with a key there is none")
	}
}

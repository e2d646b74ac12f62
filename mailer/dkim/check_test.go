package dkim_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/dkim/dkimtest"
)

func TestCheck(t *testing.T) {
	e := dkimtest.Entry(t, "example.com", "s1", dkimtest.RSA(t))
	good := e.Key.Record()
	ed := dkimtest.Entry(t, "example.com", "s1", dkimtest.Ed25519(t)).Key.Record()
	p := good[strings.Index(good, "p="):]
	for _, c := range []struct {
		texts []string
		want  dkim.State
	}{
		{[]string{good}, dkim.Published},
		{[]string{p}, dkim.Published},
		{[]string{"v=DKIM1;t=s;h=sha1:sha256;s=email; n=note;" + p + ";"}, dkim.Published},
		{[]string{"v=spf1 -all", good}, dkim.Published},
		{[]string{" v = DKIM1 ; k = RSA ; " + strings.ReplaceAll(p, "A", " A")}, dkim.Published},
		{nil, dkim.Missing},
		{[]string{"v=spf1 -all"}, dkim.Missing},
		{[]string{"v=DKIM1; k=rsa"}, dkim.Malformed},
		{[]string{"v=DKIM2; " + p}, dkim.Malformed},
		{[]string{"v=DKIM1; k=rsa; p=MIIB!"}, dkim.Malformed},
		{[]string{"v=DKIM1; v=DKIM1; " + p}, dkim.Malformed},
		{[]string{"v=DKIM1; k=rsa; p=AAAA"}, dkim.Differs},
		{[]string{strings.Replace(good, "p=MII", "p=MIJ", 1)}, dkim.Differs},
		{[]string{ed}, dkim.WrongType},
		{[]string{"v=DKIM1; k=ed25519; " + p}, dkim.WrongType},
		{[]string{"v=DKIM1; p="}, dkim.Revoked},
		{[]string{good + "; h=sha1"}, dkim.Excluded},
		{[]string{good + "; s=tlsrpt"}, dkim.Excluded},
		{[]string{good + "; t=s:y"}, dkim.Testing},
		{[]string{good, ed}, dkim.Several},
	} {
		findings := dkim.Check(t.Context(), []dkim.Entry{e}, func(_ context.Context, name string) ([]string, error) {
			if name != "s1._domainkey.example.com." {
				t.Errorf("it asks for %s", name)
			}
			return c.texts, nil
		})
		if got := findings[0]; got.State != c.want {
			t.Errorf("Check(%.80q) = %s, %v, want %s", c.texts, got.State, got.Err, c.want)
		}
	}
}

func TestCheckFails(t *testing.T) {
	e := dkimtest.Entry(t, "example.com", "s1", dkimtest.Ed25519(t))
	for err, want := range map[error]dkim.State{
		&net.DNSError{IsNotFound: true}:                      dkim.Missing,
		&net.DNSError{IsTimeout: true}:                       dkim.Unknown,
		&net.DNSError{Err: "server misbehaving"}:             dkim.Unknown,
		errors.New("no network"):                             dkim.Unknown,
		fmt.Errorf("x: %w", &net.DNSError{IsNotFound: true}): dkim.Missing,
	} {
		if got := dkim.Check(t.Context(), []dkim.Entry{e}, func(context.Context, string) ([]string, error) { return nil, err }); got[0].State != want {
			t.Errorf("Check, where the DNS says %v, = %s, want %s", err, got[0].State, want)
		}
	}
}

// A check takes its time at most, and asks a few questions at once.
func TestCheckEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entries := make([]dkim.Entry, 20)
		for i := range entries {
			entries[i] = dkimtest.Entry(t, fmt.Sprintf("d%d.example", i), "s", dkimtest.Ed25519(t))
		}
		var now, most atomic.Int32
		silent := func(ctx context.Context, _ string) ([]string, error) {
			most.Store(max(most.Load(), now.Add(1)))
			<-ctx.Done()
			now.Add(-1)
			return nil, ctx.Err()
		}
		begin := time.Now()
		for _, f := range dkim.Check(t.Context(), entries, silent) {
			if f.State != dkim.Unknown {
				t.Errorf("%s is %s", f.Entry.Name(), f.State)
			}
		}
		if took := time.Since(begin); took != 15*time.Second || most.Load() != 8 {
			t.Errorf("it takes %v, and asks %d questions at once", took, most.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		dkim.Check(ctx, entries, silent)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it ends %v after its context began", took)
		}
	})
}

// FuzzCheck: whatever is published, a check says something of it.
func FuzzCheck(f *testing.F) {
	e := dkimtest.Entry(f, "example.com", "s1", dkimtest.Ed25519(f))
	f.Add(e.Key.Record(), "v=spf1 -all")
	f.Add("v=DKIM1; p=; t=y:s; h=sha256", "v=DKIM1; k=rsa; p=a b=")
	f.Add("; ; =; v", "=")
	f.Fuzz(func(t *testing.T, a, b string) {
		got := dkim.Check(t.Context(), []dkim.Entry{e}, func(context.Context, string) ([]string, error) { return []string{a, b}, nil })[0]
		if got.State == "" || got.State == dkim.Unknown || (got.State == dkim.Malformed) != (got.Err != nil) {
			t.Errorf("Check(%q, %q) = %s, %v", a, b, got.State, got.Err)
		}
	})
}

func TestZoneText(t *testing.T) {
	for text, want := range map[string]string{
		"v=DKIM1; p=":                  `"v=DKIM1; p="`,
		strings.Repeat("a", 255) + "b": `"` + strings.Repeat("a", 255) + `" "b"`,
	} {
		if got := dkim.ZoneText(text); got != want {
			t.Errorf("ZoneText(%q) = %s, want %s", text, got, want)
		}
	}
}

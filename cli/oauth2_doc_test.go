package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"mailsidecar/diagnosis"
	"mailsidecar/mailer/smtp"
)

const oauth2Doc = "../docs/oauth2.md"

// TestOAuth2Document: the example of a good answer in docs/oauth2.md is what check
// prints.
func TestOAuth2Document(t *testing.T) {
	doc, err := os.ReadFile(oauth2Doc)
	if err != nil {
		t.Fatal(err)
	}
	report := smtp.Report{
		Name: "smtp.office365.com", Host: "smtp.office365.com", Addresses: []string{"192.0.2.25"}, DNSMillis: 4, OK: true,
		Rungs: []smtp.RungCheck{{
			Port: 587, Mode: "starttls", TCP: "open", Auth: "accepted", Mechanism: "XOAUTH2", Mechanisms: []string{"LOGIN", "XOAUTH2"}, Millis: 412,
			TLS: &smtp.TLSCheck{Version: "TLS 1.3", DaysLeft: 201},
		}},
	}
	report.Rungs[0].TLS.NotAfter = report.Rungs[0].TLS.NotAfter.AddDate(2026, 0, 0)
	var want bytes.Buffer
	printReport(&want, report, diagnosis.OfReport(report, diagnosis.Settings{Grant: diagnosis.GrantClient, Issuer: "microsoft"}))
	const mark = "<!-- check: good -->\n```text\n"
	before, rest, _ := strings.Cut(string(doc), mark)
	text, after, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("%s has no example", oauth2Doc)
	}
	if text == want.String() {
		return
	}
	if !*update {
		t.Errorf("%s: %s\ncheck prints (go test ./cli -run Document -update writes it):\n%s", oauth2Doc, text, want.String())
		return
	}
	if err := os.WriteFile(oauth2Doc, []byte(before+mark+want.String()+"```"+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

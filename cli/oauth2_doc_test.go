package cli

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/api"
	"mailsidecar/config"
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
	printReport(&want, checked{
		Report: report, Advice: diagnosis.OfReport(report, diagnosis.Settings{Grant: diagnosis.GrantClient, Issuer: "microsoft"}),
		OAuth2: &api.OAuth2{
			TokenExpires: time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC), CertificateExpires: time.Date(2028, 11, 29, 0, 0, 0, 0, time.UTC),
		},
	})
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

// TestOAuth2DocumentSettings: every variable that docs/oauth2.md names exists.
func TestOAuth2DocumentSettings(t *testing.T) {
	var help bytes.Buffer
	if err := config.WriteHelp(&help); err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(strings.ReplaceAll(help.String(), ",", " "))
	names := regexp.MustCompile(`\b(?:SMTP|MAILSIDECAR)_[A-Z0-9_]*[A-Z0-9]\b`).FindAllString(readOAuth2Doc(t), -1)
	if len(names) < 50 {
		t.Errorf("%s names %d variables, want many", oauth2Doc, len(names))
	}
	for _, name := range names {
		if !slices.Contains(known, name) && !slices.Contains(known, strings.TrimSuffix(name, "_FILE")) {
			t.Errorf("%s names %s, which does not exist", oauth2Doc, name)
		}
	}
}

func readOAuth2Doc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(oauth2Doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// blocks returns the code blocks of that language.
func blocks(doc, language string) []string {
	var all []string
	for _, found := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		all = append(all, found[1])
	}
	return all
}

// TestOAuth2DocumentBlocks: each block of variables is a whole configuration, without a
// problem or a warning.
func TestOAuth2DocumentBlocks(t *testing.T) {
	all := blocks(readOAuth2Doc(t), "env")
	if len(all) < 8 {
		t.Errorf("%s has %d blocks of variables, want one for each way", oauth2Doc, len(all))
	}
	for i, block := range all {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			for _, setting := range os.Environ() {
				if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "SMTP") || strings.HasPrefix(name, "MAILSIDECAR_") {
					t.Setenv(name, "")
				}
			}
			t.Setenv("MAILSIDECAR_DATA_DIR", t.TempDir())
			t.Setenv("MAILSIDECAR_ADDR", "127.0.0.1:8587")
			for line := range strings.Lines(block) {
				name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
				if !ok {
					t.Fatalf("%q is no setting", line)
				}
				if strings.HasPrefix(value, "/") {
					value = exampleFile(t, filepath.Base(value))
				}
				t.Setenv(name, value)
			}
			_, warnings, err := config.Load()
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s\nis not right: %v, warnings %q", block, err, warnings)
			}
		})
	}
}

// exampleFile makes a file like the one of that name in docs/oauth2.md.
func exampleFile(t *testing.T, name string) string {
	t.Helper()
	cert, key := exampleKey()
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "mailsidecar@example.iam.gserviceaccount.com", "client_id": "123",
		"private_key_id": "1", "private_key": string(key),
	})
	if err != nil {
		t.Fatal(err)
	}
	content, ok := map[string][]byte{
		"client_secret": []byte("secret"), "token": []byte("token"), "azure-identity-token": []byte("e30.e30.c2ln\n"),
		"key.pem": key, "cert.pem": cert, "service-account.json": account,
	}[name]
	if !ok {
		t.Fatalf("%s names the file %s, for which there is no example", oauth2Doc, name)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// exampleKey is a certificate and its key, in PEM form.
var exampleKey = sync.OnceValues(func() (cert, key []byte) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(2, 0, 0)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
})

// TestOAuth2DocumentCommands: every command that docs/oauth2.md shows is understood, and
// every option that it names is one of login.
func TestOAuth2DocumentCommands(t *testing.T) {
	doc := readOAuth2Doc(t)
	var lines []string
	for _, block := range blocks(doc, "sh") {
		lines = append(lines, strings.Split(block, "\n")...)
	}
	shown := 0
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimPrefix(strings.TrimSpace(line), "docker compose exec mailsidecar ")
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "mailsidecar" {
			continue
		}
		shown++
		cmd, rest, err := newRoot().Find(fields[1:])
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err != nil || cmd.Name() != fields[1] {
			t.Errorf("%s shows %q, which is no command: %v", oauth2Doc, line, err)
		}
	}
	if shown < 8 {
		t.Errorf("%s shows %d commands, want some for each way", oauth2Doc, shown)
	}
	login, _, err := newRoot().Find([]string{"login"})
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile("`--([a-z]+)").FindAllStringSubmatch(doc, -1) {
		if login.Flags().Lookup(found[1]) == nil {
			t.Errorf("%s names --%s, which login does not have", oauth2Doc, found[1])
		}
	}
}

// TestOAuth2DocumentLinks: each link to a section of docs/oauth2.md leads to one, and
// each way of the table has a section with a block of variables.
func TestOAuth2DocumentLinks(t *testing.T) {
	doc := readOAuth2Doc(t)
	notInAnchor := regexp.MustCompile(`[^a-z0-9 -]`)
	var anchors []string
	for _, found := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(doc, -1) {
		anchors = append(anchors, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-"))
	}
	for _, found := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(doc, -1) {
		if !slices.Contains(anchors, found[1]) {
			t.Errorf("%s links to #%s, which is no section", oauth2Doc, found[1])
		}
	}
	for _, section := range []string{"with-workload-identity-federation", "another-server", "files-in-compose"} {
		if !strings.Contains(doc, "(#"+section+")") {
			t.Errorf("%s has no link to #%s", oauth2Doc, section)
		}
	}
	for _, number := range []string{"70021", "700211", "700213", "7000215", "53003"} {
		if !strings.Contains(doc, "`AADSTS"+number+"`") {
			t.Errorf("%s does not name AADSTS%s", oauth2Doc, number)
		}
	}
}

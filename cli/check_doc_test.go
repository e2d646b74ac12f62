package cli

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/diagnosis"
)

var update = flag.Bool("update", false, "rewrite the examples in docs/check.md")

const checkDoc = "../docs/check.md"

// The examples in docs/check.md are what check prints, with other names for the
// relay and its ports. Times differ from run to run.
func TestCheckDocument(t *testing.T) {
	relay := startRelay(t)
	refused := refusedPort(t)
	dead, dead2 := blackHole(t), blackHole(t)
	examples := map[string]string{
		"good":           record(t, relay, relay.password, relay.port),
		"blocked":        record(t, relay, relay.password, dead, relay.port),
		"all blocked":    record(t, relay, relay.password, dead, dead2),
		"refused":        record(t, relay, relay.password, refused),
		"wrong password": record(t, relay, "wrong", relay.port),
	}
	doc, err := os.ReadFile(checkDoc)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- check: ([a-z ]+) -->\n```text\n(.*?)```")
	for _, found := range block.FindAllStringSubmatch(string(doc), -1) {
		name, text := found[1], found[2]
		if timeless(text) != timeless(examples[name]) && !*update {
			t.Errorf("docs/check.md, %s:\n%s\ncheck prints (go test ./cli -run Document -update writes it):\n%s", name, text, examples[name])
		}
		doc = bytes.Replace(doc, []byte(found[0]), []byte("<!-- check: "+name+" -->\n```text\n"+examples[name]+"```"), 1)
		delete(examples, name)
	}
	if len(examples) > 0 {
		t.Errorf("docs/check.md lacks examples: %v", examples)
	}
	if *update {
		if err := os.WriteFile(checkDoc, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// record checks the relay at the ports and returns what is printed when they
// were 587 and 2525 of smtp.example.com.
func record(t *testing.T, relay *demoRelay, password string, ports ...int) string {
	t.Helper()
	checkEnv(t, relay, password, ports...)
	configs, _, err := config.LoadRelays()
	if err != nil {
		t.Fatal(err)
	}
	timeout := time.Second
	if *update {
		timeout = 20 * time.Second // as it is for users
	}
	results, err := checkAll(t.Context(), configs, timeout)
	if err != nil {
		t.Fatal(err)
	}
	r := results[0].Report
	r.Name, r.Host, r.Addresses = "smtp.example.com", "smtp.example.com", []string{"192.0.2.25"}
	shown := []int{587, 2525}
	if len(ports) == 1 && ports[0] == relay.port {
		shown = []int{2525}
	}
	for i := range r.Rungs {
		r.Rungs[i].Port = shown[slices.Index(ports, r.Rungs[i].Port)]
	}
	var b bytes.Buffer
	printReport(&b, checked{Report: r, Advice: diagnosis.OfReport(r, diagnosis.Settings{})})
	return b.String()
}

// timeless is text without what differs from run to run.
func timeless(text string) string {
	text = regexp.MustCompile(`[0-9.]+ m?s\b`).ReplaceAllString(text, "TIME")
	return strings.Join(strings.Fields(text), " ")
}

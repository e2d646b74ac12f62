package cli

import (
	"bytes"
	"flag"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer/smtp"
)

var update = flag.Bool("update", false, "rewrite the examples in docs/check.md")

const checkDoc = "../docs/check.md"

// The examples in docs/check.md are what check prints, with other names for the
// relay and its ports. Times differ from run to run.
func TestCheckDocument(t *testing.T) {
	relay := startRelay(t)
	second := forward(t, relay.port)
	dead, dead2 := blackHole(t), blackHole(t)
	good := examine(t, relay, relay.password, relay.port, second)
	blocked := examine(t, relay, relay.password, dead, dead2)
	otherPort := blocked
	otherPort.Others = slices.Clone(good.Rungs[1:])
	otherPort.Others[0].Port, otherPort.Others[0].Mode = 465, "tls"
	examples := map[string]string{
		"good":           record(good),
		"blocked":        record(examine(t, relay, relay.password, dead, relay.port)),
		"all blocked":    record(blocked),
		"another port":   record(otherPort),
		"refused":        record(examine(t, relay, relay.password, refusedPort(t), refusedPort(t))),
		"wrong password": record(examine(t, relay, "wrong", relay.port, second)),
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

// examine checks the relay at two ports as if they were 587 and 2525 of
// smtp.example.com.
func examine(t *testing.T, relay *demoRelay, password string, ports ...int) smtp.Report {
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
	results, err := checkAll(t.Context(), configs, checkOptions{timeout: timeout, from: "shop@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	r := results[0].Report
	r.Name, r.Host, r.Addresses = "smtp.example.com", "smtp.example.com", []string{"192.0.2.25"}
	for i := range r.Rungs {
		r.Rungs[i].Port = []int{587, 2525}[i]
	}
	r.Others = slices.DeleteFunc(r.Others, func(o smtp.RungCheck) bool { return o.Port == 587 || o.Port == 2525 })
	return r
}

// record returns what is printed of the report.
func record(r smtp.Report) string {
	var b bytes.Buffer
	printReport(&b, checked{Report: r, Advice: diagnosis.OfReport(r, diagnosis.Settings{Ends: true})})
	return b.String()
}

// forward listens on a port that leads to another one of this machine, and returns it.
func forward(t *testing.T, port int) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				_ = from.Close()
				continue
			}
			go pump(from, to)
			go pump(to, from)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// pump copies until one side closes, and closes both.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
}

// timeless is text without what differs from run to run.
func timeless(text string) string {
	text = regexp.MustCompile(`[0-9.]+ m?s\b`).ReplaceAllString(text, "TIME")
	return strings.Join(strings.Fields(text), " ")
}

package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"mailsidecar/config"
)

// wrongValues are values that no flag of that name takes; "-" says that the flag takes any text.
var wrongValues = map[string]string{
	"status": "gone", "id": "xyz!", "recipient": "a b@", "domain": "a@b", "recipient-state": "gone", "sender": "a b@", "message-id": "-", "tag": "a b=c",
	"since": "soon", "until": "soon", "relay": "-", "code": "999", "enhanced": "-", "key": "-", "limit": "0", "instead-of": "a b@", "format": "pst",
	"output": "-", "for": "soon", "reason": strings.Repeat("x", 300), "timeout": "soon", "max-age": "soon", "wait": "soon",
	"from": "a b@", "cc": "a b@", "bcc": "a b@", "reply-to": "a b@", "subject": "a\x00b", "html": "-", "calendar": "/none", "attach": "/none", "header": "From: x",
	"return-path": "a b@", "eml": "/none", "priority": "urgent", "idempotency-key": strings.Repeat("x", 300), "send-at": "soon", "expires-in": "999d",
}

// wrongIn are those that differ by command.
var wrongIn = map[string]string{
	"queue list text": strings.Repeat("x", 1001), "queue retry text": strings.Repeat("x", 1001), "queue cancel text": strings.Repeat("x", 1001), "queue export text": strings.Repeat("x", 1001),
	"queue list subject": " ", "queue retry subject": " ", "queue cancel subject": " ", "queue export subject": " ",
	"queue retry to": "a b@", "queue export to": "-", "send to": "a b@", "send text": "-", "send tag": "a b",
}

// serveWithQueue runs a service whose relay cannot be reached, for the commands of the test.
func serveWithQueue(t *testing.T) {
	t.Helper()
	clearEnv(t)
	t.Chdir(t.TempDir())
	cfg := config.Default()
	cfg.Relays[0].Host, cfg.Relays[0].Ports = "127.0.0.1", config.Ladder{{Port: refusedPort(t)}}
	cfg.Service.Addr = "127.0.0.1:0"
	cfg.Service.Queue = config.Queue{Store: "sqlite", Path: filepath.Join(t.TempDir(), "queue.db")}
	url, stop := startService(t, cfg)
	t.Cleanup(func() { _ = stop() }) // nothing was sent
	t.Setenv("MAILSIDECAR_URL", url)
}

// TestErrorsNameFlags: each flag with a wrong value is an error that names the flag, and no field of the HTTP
// interface, which a person at a terminal does not know.
func TestErrorsNameFlags(t *testing.T) {
	serveWithQueue(t)
	_, out, _ := run(t.Context(), "send", "--from", "a@example.com", "--to", "b@example.org", "--text", "x")
	id := strings.TrimSuffix(strings.Fields(out)[1], ":")
	others := map[string][]string{ // what a flag goes with
		"queue retry instead-of": {id, "--to", "new@example.org"}, "queue retry to": {id}, "queue export": {"--to", "x"},
		"send": {"--from", "a@example.com", "--to", "b@example.org", "--text", "x"},
	}
	fields := regexp.MustCompile(`\b[a-z]+_[a-z_]+\b`)
	for _, path := range []string{"queue list", "queue retry", "queue cancel", "queue export", "relay pause", "send", "status", "drain", "healthcheck"} {
		cmd, _, err := newRoot().Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^ +(?:-[a-z], )?--([a-z-]+)`).FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
			f := cmd.Flags().Lookup(found[1])
			wrong := wrongIn[path+" "+f.Name]
			if wrong == "" {
				wrong = wrongValues[f.Name]
			}
			if f.Value.Type() == "bool" || wrong == "-" {
				continue
			}
			if wrong == "" {
				t.Fatalf("%s --%s: write a value that it does not take into this test", path, f.Name)
			}
			args := append(strings.Fields(path), others[path]...)
			args = append(append(args, others[path+" "+f.Name]...), "--"+f.Name, wrong)
			status, out, errOut := run(t.Context(), args...)
			said := regexp.MustCompile(`(?m)^  \(.*\)$`).ReplaceAllString(out+errOut, "") // the origin, for a search in logs
			if status != exitUsage && status != exitRefused || !strings.Contains(said, "--"+f.Name) || fields.MatchString(said) {
				t.Errorf("%s --%s %.20q = %d, says\n%s\nwant the flag and no field", path, f.Name, wrong, status, out+errOut)
			}
		}
	}
	for _, c := range []struct {
		args []string
		say  string
	}{
		{[]string{"queue", "retry", id, "--to", "new@example.org", "--instead-of", "nobody@example.org"}, "--instead-of: is no recipient"},
		{[]string{"queue", "retry", id, "--to", "new@example.org", "--instead-of", "b@example.org"}, "leave out --instead-of"},
		{[]string{"send", "--from", "a@example.com", "--to", "b@example.org", "--to", "a b@", "--text", "x"}, "--to (number 2): "},
		{[]string{"send", "--from", "a@example.com", "--to", "b@example.org", "--header", "From: x", "--text", "x"}, "--header From: "},
	} {
		if status, out, errOut := run(t.Context(), c.args...); status == 0 || !strings.Contains(errOut, c.say) {
			t.Errorf("%q = %d, says\n%s%s\nwant %q", c.args, status, out, errOut, c.say)
		}
	}
}

func TestFlagOf(t *testing.T) {
	cmd := &cobra.Command{}
	for _, name := range []string{"code", "to", "attach", "header", "send-at", "return-path"} {
		cmd.Flags().String(name, "", "")
	}
	for field, want := range map[string]string{
		"reply_code": "--code", "to": "--to", "to[1]": "--to (number 2)", "attachments[0].content": "--attach (number 1)", "headers.X-A": "--header X-A",
		"send_at": "--send-at", "Envelope-From": "--return-path", "cursor": "", "": "",
	} {
		if got := flagOf(cmd, field); got != want {
			t.Errorf("flagOf(%q) = %q, want %q", field, got, want)
		}
	}
	if got := flagOf(nil, "to"); got != "" {
		t.Errorf("flagOf without a command = %q", got)
	}
	const text = "instead of reply_code the field some_thing and to"
	if got, want := inFlags(cmd, text), "instead of --code the field some_thing and to"; got != want {
		t.Errorf("inFlags(%q) = %q, want %q", text, got, want)
	}
}

// TestIDOnALaterPage: a page of a busy server may be empty, and the message be on the next one.
func TestIDOnALaterPage(t *testing.T) {
	clearEnv(t)
	const id = "0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/messages/"+id:
			answerWith(200, `{"id":"`+id+`","status":"canceled"}`)(w, r)
		case r.URL.Query().Get("cursor") == "":
			answerWith(200, `{"messages":[],"next":"c"}`)(w, r)
		default:
			answerWith(200, `{"messages":[{"id":"`+id+`"}]}`)(w, r)
		}
	}))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	if status, out, errOut := run(t.Context(), "queue", "cancel", "0196a3c2"); status != 0 || !strings.Contains(out, "message "+id+": canceled") {
		t.Errorf("queue cancel = %d, says\n%s%s\nwant %s", status, out, errOut, id)
	}
}

// TestCancelTells: the answer to the cancel of a message that is being tried says what becomes of it.
func TestCancelTells(t *testing.T) {
	clearEnv(t)
	const id = "0196a3c2-7d1e-7c40-9f0e-3b1d6a1f2c55"
	for state, tells := range map[string]bool{"queued": true, "deferred": true, "canceled": false, "delivered": false} {
		server := httptest.NewServer(answerWith(200, `{"id":"`+id+`","status":"`+state+`","recipients":[{"email":"ana@example.org","state":"`+state+`"}]}`))
		defer server.Close()
		t.Setenv("MAILSIDECAR_URL", server.URL)
		status, out, errOut := run(t.Context(), "queue", "cancel", id)
		if status != 0 || strings.Contains(out, "the outcome of that attempt counts") != tells {
			t.Errorf("queue cancel of a message that is %s afterwards = %d, says\n%s%s\nwant it to tell of an attempt: %v", state, status, out, errOut, tells)
		}
	}
}

// TestIDsByTheirBeginning: the commands for single messages take the beginning of an id where it is that of one
// message, and do nothing where it is that of several.
func TestIDsByTheirBeginning(t *testing.T) {
	serveWithQueue(t)
	var ids []string
	for i := range 12 {
		_, out, _ := run(t.Context(), "send", "--from", "a@example.com", "--to", fmt.Sprintf("b%d@example.org", i), "--text", "x", "--wait", "0")
		ids = append(ids, strings.TrimSuffix(strings.Fields(out)[1], ":"))
	}
	one, all := ids[3][:30], ids[0][:6]
	for _, c := range []struct {
		args   []string
		status int
		say    []string
	}{
		{[]string{"queue", "show", one}, 0, []string{"message " + ids[3] + ": "}},
		{[]string{"queue", "show", strings.ToUpper(strings.ReplaceAll(one, "-", ""))}, 0, []string{"message " + ids[3] + ": "}},
		{[]string{"queue", "retry", one, ids[4]}, 0, []string{"message " + ids[3], "message " + ids[4]}},
		{[]string{"queue", "export", one}, 0, []string{ids[3] + ".eml: "}},
		{[]string{"queue", "export", one, ids[4], "--to", "two.mbox"}, 0, []string{"messages exported: 2"}},
		{[]string{"queue", "retry", one, "--to", "new@example.org"}, 0, []string{"new@example.org"}},
		{[]string{"queue", "cancel", one}, 0, []string{"message " + ids[3] + ": canceled"}},
		{[]string{"queue", "show", all}, 64, []string{"several messages have an id that begins with " + all, ids[11] + "  ", "b11@example.org", "and more"}},
		{[]string{"queue", "cancel", ids[5], all}, 64, []string{"nothing was done"}},
		{[]string{"queue", "retry", all}, 64, []string{"several messages"}},
		{[]string{"queue", "export", all}, 64, []string{"several messages"}},
		{[]string{"queue", "show", ids[5]}, 0, []string{"message " + ids[5] + ": "}}, // not canceled
		{[]string{"queue", "show", "01a"}, 64, []string{"is too short for a message: write its id, or the first 4 or more digits"}},
		{[]string{"queue", "show", "0000"}, 65, []string{"no message has an id that begins with 0000"}},
		{[]string{"queue", "show", "x" + ids[5]}, 65, []string{"no such message"}},
	} {
		status, out, errOut := run(t.Context(), c.args...)
		for _, say := range c.say {
			if status != c.status || !strings.Contains(out+errOut, say) {
				t.Errorf("Run(%q) = %d, want %d and %q; it says\n%s%s", c.args, status, c.status, say, out, errOut)
			}
		}
	}
	if _, out, _ := run(t.Context(), "queue", "show", ids[5]); strings.Contains(out, "canceled") {
		t.Errorf("a cancel whose second id is not clear has canceled the first: %s", out)
	}
}

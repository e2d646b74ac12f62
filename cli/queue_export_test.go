package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exportServer has so many messages, in pages of two. The content of those that gone names is
// gone. at is called before the content of a message is answered.
func exportServer(t *testing.T, n int, gone string, at func(id string)) {
	t.Helper()
	clearEnv(t)
	t.Chdir(t.TempDir())
	message := func(i int) string {
		return fmt.Sprintf(`{"id": "id-%d", "status": "failed", "subject": "=HYPERLINK(\"x\")", "sender": "a@example.com", "tags": {"b": "2", "a": "1"},
			"envelope": {"reverse_path": "", "forward_paths": ["+x@example.org", "b@example.org"]}, "created_at": "2030-01-31T08:00:00Z",
			"recipients": [{"email": "+x@example.org", "state": "bounced", "reply_code": 550, "text": "@no, \"never\""}, {"email": "b@example.org", "state": "delivered"}]}`, i)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/messages/count":
			if r.URL.Query().Get("cursor") == "" {
				answerWith(200, fmt.Sprintf(`{"matching": %d, "next": "c"}`, n-1))(w, r)
			} else {
				answerWith(200, `{"matching": 1}`)(w, r)
			}
		case r.URL.Path == "/v1/messages":
			var from int
			_, _ = fmt.Sscan(r.URL.Query().Get("cursor"), &from)
			var page []string
			for i := from; i < min(from+2, n); i++ {
				page = append(page, message(i))
			}
			next := ""
			if from+2 < n {
				next = fmt.Sprintf(`, "next": "%d"`, from+2)
			}
			answerWith(200, `{"messages": [`+strings.Join(page, ",")+`]`+next+`}`)(w, r)
		case strings.HasSuffix(r.URL.Path, "/content"):
			id := strings.Split(r.URL.Path, "/")[3]
			at(id)
			if strings.Contains(gone, id) {
				answerWith(410, `{"title": "The content was removed", "status": 410, "code": "content_gone"}`)(w, r)
				return
			}
			answerWith(200, "Subject: "+id+"\r\n\r\nFrom here\r\n>From there\r\n> From no\r\nend")(w, r)
		default:
			answerWith(200, message(7))(w, r)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("MAILSIDECAR_URL", server.URL)
}

func fileText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func TestExportMany(t *testing.T) {
	exportServer(t, 5, "id-3", func(string) {})
	wantRun := func(status int, say string, args ...string) (stdout string) {
		t.Helper()
		got, out, errOut := run(t.Context(), append([]string{"queue", "export"}, args...)...)
		if got != status || !strings.Contains(out+errOut, say) {
			t.Errorf("queue export %s = %d, says\n%s%s\nwant %d, %q", strings.Join(args, " "), got, out, errOut, status, say)
		}
		return out
	}
	wantRun(65, "1 message left out: the content is gone", "--status", "failed", "--to", "mail/")
	if names, _ := filepath.Glob("mail/*"); len(names) != 4 || !strings.HasPrefix(fileText(t, "mail/id-4.eml"), "Subject: id-4\r\n\r\nFrom here\r\n") {
		t.Errorf("files = %v", names)
	}
	if info, err := os.Stat("mail/id-0.eml"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of a file = %v, %v, want 0600", info.Mode(), err)
	}
	wantRun(1, "mail/id-0.eml exists; --force overwrites it", "--status", "failed", "--to", "mail")
	wantRun(65, "messages exported: 4", "--status", "failed", "--to", "mail", "--force")

	wantRun(65, "messages exported: 4", "--to", "all.mbox")
	mbox := "From MAILER-DAEMON Thu Jan 31 08:00:00 2030\nSubject: id-0\n\n>From here\n>>From there\n> From no\nend\n\nFrom MAILER-DAEMON"
	if got := fileText(t, "all.mbox"); !strings.HasPrefix(got, mbox) || strings.Count(got, "\n\nFrom ") != 3 || strings.Contains(got, "\r") {
		t.Errorf("mbox =\n%s", got)
	}
	wantRun(1, "all.mbox exists; --force", "--to", "all.mbox")
	wantRun(65, "", "--to", "all.mbox", "--force")

	wantRun(0, "messages exported: 5", "--recipient-state", "bounced", "--to", "all.csv")
	rows, err := csv.NewReader(strings.NewReader(fileText(t, "all.csv"))).ReadAll()
	if err != nil || len(rows) != 1+2*5 {
		t.Fatalf("csv has %d lines, %v, want one for each recipient", len(rows), err)
	}
	first := map[string]string{}
	for i, name := range rows[0] {
		first[name] = rows[1][i]
	}
	for name, want := range map[string]string{"id": "id-0", "subject": `'=HYPERLINK("x")`, "recipient": "'+x@example.org", "text": `'@no, "never"`, "tags": "a=1 b=2", "reply_code": "550", "state": "bounced"} {
		if first[name] != want {
			t.Errorf("csv has %s = %q, want %q", name, first[name], want)
		}
	}
	out := wantRun(0, "messages exported: 5", "--format", "ndjson", "--to", "-")
	if lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[4], `{"id":"id-4",`) {
		t.Errorf("ndjson =\n%s", out)
	}
	wantRun(0, "Export: 5 messages match. Nothing was written.", "--status", "failed", "--dry-run")
	wantRun(0, "id-1.eml: ", "id-1")
	wantRun(1, "id-1.eml exists", "id-1")
	wantRun(65, "content_gone", "id-3")
	wantRun(0, "messages exported: 2", "id-1", "id-2", "--format", "csv", "--to", "two.csv")
	wantRun(64, "--to is missing", "--status", "failed")
	wantRun(64, "--to is missing", "id-1", "id-2")
	wantRun(64, "name messages by their ids")
	wantRun(64, "not both", "id-1", "--status", "failed", "--to", "x/")
	wantRun(64, "none of eml", "--status", "failed", "--to", "x/", "--format", "pst")
	wantRun(64, "standard output takes one message", "--status", "failed", "--to", "-")
	wantNothingLeft(t, ".", "mail")
}

// wantNothingLeft looks for files that are not complete.
func wantNothingLeft(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || strings.Contains(e.Name(), ".partial") {
				t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
}

// TestExportTargets: no file but the one that is named is written to, whatever was put beside it, and what is
// no regular file is not replaced.
func TestExportTargets(t *testing.T) {
	exportServer(t, 2, "", func(string) {})
	const secret = "of somebody else"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile("victim", []byte(secret), 0o644))
	must(os.Mkdir("mail", 0o755))
	for _, name := range []string{"all.mbox", "all.mbox.partial", "mail/id-0.eml", "mail/id-0.eml.partial"} {
		must(os.Symlink(strings.Repeat("../", strings.Count(name, "/"))+"victim", name))
	}
	must(os.Symlink("nowhere", "dangling.mbox"))
	for _, to := range []string{"all.mbox", "mail", "dangling.mbox"} {
		for _, force := range []string{"--force=false", "--force"} {
			status, out, errOut := run(t.Context(), "queue", "export", "--to", to, force)
			if status != exitFailure || !strings.Contains(errOut, "no regular file") {
				t.Errorf("export to %s %s = %d, says\n%s%s", to, force, status, out, errOut)
			}
		}
	}
	must(os.Remove("all.mbox"))
	must(os.Remove("mail/id-0.eml"))
	for _, to := range []string{"all.mbox", "mail"} {
		if status, out, errOut := run(t.Context(), "queue", "export", "--to", to); status != 0 {
			t.Errorf("export to %s = %d, says\n%s%s", to, status, out, errOut)
		}
	}
	if got := fileText(t, "victim"); got != secret {
		t.Errorf("another file has %q now", got)
	}
	if _, err := os.Lstat("nowhere"); err == nil {
		t.Error("the target of a symbolic link was made")
	}
	// A file that all may read, in the place of the one to write.
	must(os.Remove("all.mbox"))
	must(os.WriteFile("all.mbox", nil, 0o644))
	must(os.Chmod("all.mbox", 0o644))
	if status, _, errOut := run(t.Context(), "queue", "export", "--to", "all.mbox", "--force"); status != 0 {
		t.Errorf("export = %d %s", status, errOut)
	}
	for _, name := range []string{"all.mbox", "mail/id-0.eml"} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s = %v, %v, want a file of mode 0600", name, info.Mode(), err)
		}
	}
	// Not a device, but a thing that a rename would replace as well.
	socket, err := net.Listen("unix", "socket")
	must(err)
	t.Cleanup(func() { _ = socket.Close() })
	if status, _, errOut := run(t.Context(), "queue", "export", "--to", "socket", "--format", "csv", "--force"); status != exitFailure || !strings.Contains(errOut, "no regular file") {
		t.Errorf("export to a socket = %d %s", status, errOut)
	}
}

// TestExportWithoutDirectory: the error names what is missing, not a file of ours.
func TestExportWithoutDirectory(t *testing.T) {
	exportServer(t, 2, "", func(string) {})
	status, _, errOut := run(t.Context(), "queue", "export", "--to", filepath.Join("away", "all.mbox"))
	if status != exitFailure || !strings.Contains(errOut, "no directory away") || strings.Contains(errOut, ".export-") {
		t.Errorf("export = %d, says\n%s", status, errOut)
	}
}

// TestExportBesideAnother: a file that appears while the export goes on stays, and so it does on a file
// system without links.
func TestExportBesideAnother(t *testing.T) {
	exportServer(t, 2, "", func(id string) {
		if id == "id-1" {
			if err := os.WriteFile("all.mbox", []byte("theirs"), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	if status, _, errOut := run(t.Context(), "queue", "export", "--to", "all.mbox"); status != exitFailure || !strings.Contains(errOut, "all.mbox exists") || fileText(t, "all.mbox") != "theirs" {
		t.Errorf("export = %d, says\n%s", status, errOut)
	}
	wantNothingLeft(t, ".")

	noLinks := func(string, string) error { return errors.ErrUnsupported }
	late := func(_, to string) error { // it appears after the last look
		if err := os.WriteFile(to, []byte("theirs"), 0o600); err != nil {
			t.Error(err)
		}
		return errors.ErrUnsupported
	}
	for name, link := range map[string]func(from, to string) error{"new.mbox": noLinks, "late.mbox": late, "linked.mbox": os.Link} {
		if err := os.WriteFile("complete", []byte("ours"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := (&exportFlags{}).publish("complete", name, link)
		if want := map[bool]string{true: "theirs", false: "ours"}[name == "late.mbox"]; (err != nil) != (name == "late.mbox") || fileText(t, name) != want {
			t.Errorf("publish to %s = %v, the file has %q", name, err, fileText(t, name))
		}
	}
}

// TestExportInterrupted: what is not complete is not left behind, and the command says what there is.
func TestExportInterrupted(t *testing.T) {
	for to, want := range map[string]string{
		"all.mbox": "stopped: all.mbox was not written", "mail/": ".eml files in mail/ are complete",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		exportServer(t, 5, "", func(id string) {
			if id == "id-2" {
				cancel()
			}
		})
		status, out, errOut := run(ctx, "queue", "export", "--to", to)
		if status != exitTransient || !strings.Contains(errOut, want) {
			t.Errorf("export to %s that is interrupted = %d, says\n%s%s", to, status, out, errOut)
		}
		names, _ := filepath.Glob("*.mbox*")
		if len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
		wantNothingLeft(t, ".")
		if to == "mail/" {
			wantNothingLeft(t, to)
		}
	}
}

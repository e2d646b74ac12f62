package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/api"
)

// bulkServer has messages of which a command by filter changes a thousand in each request. It
// notes what it was asked.
func bulkServer(t *testing.T, matching int, asked func(r api.Bulk)) (requests *[]api.Bulk) {
	t.Helper()
	clearEnv(t)
	requests = &[]api.Bulk{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b api.Bulk
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &b); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s %s: %v", r.Method, r.URL, body, err)
		}
		*requests = append(*requests, b)
		asked(b)
		if b.DryRun { // in two answers
			next := "c1"
			if b.Cursor == "c1" {
				next = ""
			}
			answer, _ := json.Marshal(api.Matching{Matching: matching / 2, Next: next})
			answerWith(200, string(answer))(w, r)
			return
		}
		n, next := min(matching, b.Limit), "c"
		if matching -= n; matching == 0 {
			next = ""
		}
		var answer []byte
		if r.URL.Path == "/v1/messages/cancel" {
			answer, _ = json.Marshal(api.CanceledMessages{Canceled: n, Matched: n, Next: next})
		} else {
			answer, _ = json.Marshal(api.Retried{Retried: n, Matched: n, Next: next})
		}
		answerWith(200, string(answer))(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("MAILSIDECAR_URL", server.URL)
	return requests
}

// TestBulkCommands: what flags select is counted first, and changed in steps; a cancel is asked
// about or needs --yes.
func TestBulkCommands(t *testing.T) {
	for _, tc := range []struct {
		args     []string
		matching int
		status   int
		out      string
		requests int
	}{
		{[]string{"queue", "retry", "--status", "failed"}, 2502, 0, "messages to be tried again: 2502\nMessages that were delivered to some", 5},
		{[]string{"queue", "cancel", "--domain", "example.org", "--yes"}, 2502, 0, "messages canceled: 2502.", 5},
		{[]string{"queue", "cancel", "--domain", "example.org"}, 2502, 64, "nothing was changed: there is no terminal to ask on, and --yes goes on without asking", 2},
		{[]string{"queue", "cancel", "--domain", "example.org"}, 0, 0, "messages canceled: 0\n", 3},
		{[]string{"queue", "cancel", "--id", "01a2", "--dry-run"}, 10502, 0, "Cancel: 10,502 messages match. Nothing was changed.", 2},
		{[]string{"queue", "retry", "--status", "held", "--dry-run"}, 0, 0, "Retry: 0 messages match. Nothing was changed.", 2},
		{[]string{"queue", "retry", "--status", "held", "--dry-run"}, 1300, 0, "Retry: up to 1,300 messages, for so many match, and one that has nothing to retry by then is left as it is. Nothing was changed.", 2},
		{[]string{"queue", "cancel"}, 0, 64, "name messages by their ids, or select", 0},
		{[]string{"queue", "cancel", "--yes"}, 0, 64, "name messages by their ids, or select", 0},
		{[]string{"queue", "cancel", "id-1", "--dry-run"}, 0, 64, "--dry-run says how many messages flags select, and takes no ids", 0},
		{[]string{"queue", "cancel", "id-1", "--status", "held"}, 0, 64, "name messages by their ids, or select them with flags such as --status failed, not both", 0},
		{[]string{"queue", "retry", "id-1", "--instead-of", "b@example.org"}, 0, 64, "--instead-of goes with --to", 0},
		{[]string{"queue", "retry", "id-1", "--to", "b@example.org", "--to", "c@example.org"}, 0, 64, `it is given twice, and was "b@example.org" before`, 0},
		{[]string{"queue", "retry", "id-1", "--to", ""}, 0, 64, "it is empty", 0},
		{[]string{"queue", "export", "--status", "failed", "--to", "x.csv", "-o", "y"}, 0, 64, `it is given twice, and was "x.csv" before`, 0},
		{[]string{"queue", "list", "--limit", "ten"}, 0, 64, "must be a number", 0},
		{[]string{"queue", "retry", "--text", "550 5.1.1 No such user"}, 0, 0, "--text asks for the words alone", 3},
		{[]string{"queue", "retry", "--text", "No such user"}, 0, 0, "messages to be tried again: 0\n", 3},
	} {
		requests := bulkServer(t, tc.matching, func(api.Bulk) {})
		status, out, errOut := run(t.Context(), tc.args...)
		if status != tc.status || !strings.Contains(out+errOut, tc.out) || len(*requests) != tc.requests {
			t.Errorf("%s = %d in %d requests, says\n%s%s\nwant %d, %q in %d", strings.Join(tc.args, " "), status, len(*requests), out, errOut, tc.status, tc.out, tc.requests)
		}
		if slices.ContainsFunc(*requests, func(b api.Bulk) bool { return b.Filter == api.Filter{} || !b.DryRun && b.Limit != bulkStep }) {
			t.Errorf("%s asked %+v, want the filter and a limit each time", strings.Join(tc.args, " "), *requests)
		}
	}
}

// TestRetryTellsPausedRelays: relays that a retry did not get asked are told though its last step had nothing to retry.
func TestRetryTellsPausedRelays(t *testing.T) {
	clearEnv(t)
	answers := []string{
		`{"matching":1001}`, `{"retried":1000,"matched":1000,"next":"c","paused_relays":[{"relay":"main","found":"relay paused by an operator"}]}`, `{"retried":0,"matched":1}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerWith(200, answers[0])(w, r)
		answers = answers[1:]
	}))
	defer server.Close()
	t.Setenv("MAILSIDECAR_URL", server.URL)
	status, out, errOut := run(t.Context(), "queue", "retry", "--status", "deferred")
	if want := "messages to be tried again: 1000\nRelay main is not asked: relay paused by an operator\n"; status != 0 || out != want {
		t.Errorf("queue retry = %d, says\n%s%s\nwant\n%s", status, out, errOut, want)
	}
}

// TestBulkInterrupted: Ctrl-C lets the step under way end, and says what was done.
func TestBulkInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	bulkServer(t, 5000, func(b api.Bulk) {
		if !b.DryRun && b.Cursor == "c" {
			cancel() // during the second step
		}
	})
	status, out, errOut := run(ctx, "queue", "cancel", "--status", "deferred", "--yes")
	if status != exitTransient || out != "" || !strings.Contains(errOut, "stopped: canceled 2,000 messages, and no other was changed; the same command goes on with the rest") {
		t.Errorf("queue cancel that is interrupted = %d, says\n%s%s", status, out, errOut)
	}
}

// TestRetryInterrupted: a retry that was stopped begins anew, and does not say otherwise.
func TestRetryInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	bulkServer(t, 5000, func(b api.Bulk) {
		if !b.DryRun {
			cancel()
		}
	})
	status, _, errOut := run(ctx, "queue", "retry", "--status", "deferred")
	if status != exitTransient || !strings.Contains(errOut, "stopped: retried 1,000 messages, and no other was changed; the same command begins at the newest again") {
		t.Errorf("queue retry that is interrupted = %d, says\n%s", status, errOut)
	}
}

// TestCancelUntil: what is accepted after the count is not canceled: the count is what a person agrees to.
func TestCancelUntil(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string // empty: the time of the command
	}{
		{[]string{"queue", "cancel", "--status", "deferred", "--yes"}, ""},
		{[]string{"queue", "cancel", "--status", "deferred", "--yes", "--until", "2999-01-01T00:00:00Z"}, ""},
		{[]string{"queue", "cancel", "--status", "deferred", "--yes", "--until", "2020-01-01T00:00:00Z"}, "2020-01-01T00:00:00Z"},
		{[]string{"queue", "cancel", "--status", "deferred", "--dry-run"}, ""},
	} {
		before := time.Now()
		requests := bulkServer(t, 10, func(api.Bulk) {})
		if status, _, errOut := run(t.Context(), tc.args...); status != 0 {
			t.Errorf("%s = %d %s", strings.Join(tc.args, " "), status, errOut)
		}
		until := (*requests)[0].Until
		at, err := time.Parse(time.RFC3339Nano, until)
		if tc.want != "" && until != tc.want || tc.want == "" && (err != nil || at.Before(before) || at.After(time.Now())) {
			t.Errorf("%s asked until %q", strings.Join(tc.args, " "), until)
		}
		if slices.ContainsFunc(*requests, func(b api.Bulk) bool { return b.Until != until }) {
			t.Errorf("%s asked %+v, want the same filter each time", strings.Join(tc.args, " "), *requests)
		}
	}
}

// TestProgressOnTerminal: each line is written over the one before it, and ended once.
func TestProgressOnTerminal(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, terminal: true, did: "Retried", total: 3, upTo: true}
	p.add(1)
	p.add(1)
	p.end()
	p.end()
	if got, want := b.String(), "\rRetried 1 of up to 3 \rRetried 2 of up to 3 \n"; got != want {
		t.Errorf("progress wrote %q, want %q", got, want)
	}
	b.Reset()
	show := copyProgress(&b, "copied")
	show(1024, 2048)
	show(2048, 2048)
	show(2048, 2048) // as SQLite does where the last piece is a whole one
	if got, want := b.String(), "\rcopied 1.0 KiB of 2.0 KiB \rcopied 2.0 KiB of 2.0 KiB \n"; got != want {
		t.Errorf("the progress of a copy wrote %q, want %q", got, want)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 10501: "10,501", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %s, want %s", n, got, want)
		}
	}
}

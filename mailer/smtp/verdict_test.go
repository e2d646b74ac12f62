package smtp_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
	"mailsidecar/mailer/smtp"
	"mailsidecar/relays"
)

// corpus returns the replies of relays/testdata/replies.tsv to MAIL and later commands,
// each with its preset, stage, and step of a script.
func corpus(t *testing.T) (rows [][4]string) {
	t.Helper()
	data, err := os.ReadFile("../../relays/testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{"mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "content": "."}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		c := strings.Split(line, "\t")
		reply := strings.Join(strings.Fields(c[3]+" "+c[4]+" "+strings.ReplaceAll(c[5], `\n`, " ")), " ")
		if step := steps[c[2]]; step != "" && !strings.Contains(reply, " then ") {
			rows = append(rows, [4]string{c[1], c[2], step, reply})
		}
	}
	return rows
}

// TestCorpusOverTheWire: a relay that gives the replies of the corpus gets the class and
// scope that follow from the verdict, with the cause, and the time of a pause. The verdict
// "less", or 421 without a reason, makes the window smaller, and nothing else does.
func TestCorpusOverTheWire(t *testing.T) {
	rows := corpus(t)
	if len(rows) < 120 {
		t.Fatalf("%d rows of the corpus are from MAIL on, want 120 at least", len(rows))
	}
	less := 0
	for _, row := range rows {
		hosts := []string{relaytest.Host}
		if p, ok := relays.PresetNamed(row[0]); ok && !p.Regional() {
			hosts = append(hosts, p.Host)
		}
		for _, host := range hosts {
			synctest.Test(t, func(t *testing.T) {
				scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{row[2]: row[3]})
				opts := options(&relaytest.Network{Port: map[int]any{587: scripted}})
				opts.ServerName, opts.Host = relaytest.Host, host
				r := newRelay(t, opts)
				before := r.Connections().Limit
				f := r.Deliver(t.Context(), envelope("b@example.org"), content(messageText)).Results[0].Failure
				if f == nil {
					t.Fatalf("%s at %s is no failure", row[3], row[1])
				}
				j := relays.Judge(host, f.Stage, f.Reply, time.Now())
				checkJudged(t, f, j)
				checkPushback(t, f, j, before, r.Connections())
				if j.Verdict == relays.Less {
					less++
				}
			})
		}
	}
	if less < 10 {
		t.Errorf("%d replies asked for less, want 10 at least", less)
	}
}

// checkJudged compares a failure with the verdict on its reply, by the table in
// docs/operating.md.
func checkJudged(t *testing.T, f *mailer.Failure, j relays.Judgement) {
	t.Helper()
	class, scope := mailer.ClassTransient, mailer.ScopeMessage
	switch v := j.Verdict; {
	case f.Stage == mailer.StageMail && j.Relay == "" && (f.Reply.Code <= 504 && f.Reply.Code >= 500 || f.Reply.Code == 530 || f.Reply.Code == 555):
		scope = mailer.ScopeSender
	case v == relays.Pause, v == relays.Login:
		class, scope = mailer.ClassRelay, mailer.ScopeRelay
	case v == relays.Permanent, v == relays.Suppressed, v == relays.Sender && f.Reply.Code/100 == 5:
		class = mailer.ClassPermanent
	case v == relays.Sender, f.Stage == mailer.StageMail && f.Reply.Code/100 == 5:
		scope = mailer.ScopeSender
	case f.Reply.Code == 421:
		scope = mailer.ScopeConnection
	}
	if f.Class != class || f.Scope() != scope {
		t.Errorf("%s: %s is %s with scope %s, want %s with scope %s (%s)", f.Stage, f.Reply, f.Class, f.Scope(), class, scope, j.Verdict)
	}
	if errors.Is(f, mailer.ErrSenderRefused) != (j.Verdict == relays.Sender) {
		t.Errorf("%s: %s: %v, want that the sender is refused where the verdict is %s", f.Stage, f.Reply, f.Err, j.Verdict)
	}
	if f.Cause != j.Cause || f.Remedy != j.Remedy || f.Until.IsZero() != j.Until.IsZero() {
		t.Errorf("%s: %s: cause %q, remedy %q, until %s, want those of %+v", f.Stage, f.Reply, f.Cause, f.Remedy, f.Until, j)
	}
}

// checkPushback compares the window after a failure with the verdict on its reply.
func checkPushback(t *testing.T, f *mailer.Failure, j relays.Judgement, before int, after smtp.Connections) {
	t.Helper()
	want := before
	if j.Verdict == relays.Less || j.Verdict == relays.Retry && f.Reply.Code == 421 && !j.EndsConnection {
		want = before / 2
	}
	if after.Limit != want {
		t.Errorf("%s: %s: the limit is %d (%s), want %d after %s", f.Stage, f.Reply, after.Limit, after.Reason, want, j.Verdict)
	}
	if want < before && !strings.Contains(after.Reason, strconv.Itoa(f.Reply.Code)) {
		t.Errorf("%s: %s: the reason is %q, want the reply", f.Stage, f.Reply, after.Reason)
	}
}

// TestUnknownReplyIsLoggedOnce: a reply that nothing is known of is logged once, whatever
// ids it has, and a known one never.
func TestUnknownReplyIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		replies := []string{"550 5.1.1 user unknown"}
		for i := range 4 {
			replies = append(replies, "554 5.0.0 Frobnicated <user"+strconv.Itoa(i)+"@example.org> id="+strconv.Itoa(i))
		}
		replies = append(replies, "554 5.0.0 Defenestrated", "250 ok")
		scripted := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": strings.Join(replies, " then ")})
		opts := options(&relaytest.Network{Port: map[int]any{587: scripted}})
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		r := newRelay(t, opts)
		for range replies {
			r.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
		}
		if got := log.String(); strings.Count(got, `msg="unknown reply"`) != 2 || strings.Count(got, "Frobnicated") != 1 || !strings.Contains(got, "code=554") {
			t.Errorf("log = %s, want each unknown reply once", got)
		}
	})
}

// TestUnknownRepliesAreFew: a relay that has new words for each message does not fill the
// log: a few texts of a stage and code in an hour, and a limited number of all.
func TestUnknownRepliesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var replies []string
		for n := range 300 {
			replies = append(replies, strconv.Itoa(550+n/100)+" Frobnicated the "+strings.Repeat("x", n%100+1))
		}
		p := newPoolTest(t, relaytest.Options{}, relaytest.Script{".": strings.Join(replies, " then ")}, func(o *smtp.Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		for range replies {
			p.relay.Deliver(t.Context(), envelope("b@example.org"), content(messageText))
		}
		if got := strings.Count(log.String(), `msg="unknown reply"`); got != 15 {
			t.Errorf("%d lines for 300 texts of 3 codes, want 5 for each code", got)
		}
	})
}

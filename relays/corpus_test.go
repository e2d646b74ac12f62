package relays

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// corpusRow is a reply that a relay was seen to give, with the verdict that it should
// get. testdata/replies.tsv has the source of each.
type corpusRow struct {
	line   int
	relay  string
	host   string // of the preset; empty where there is none
	stage  mailer.Stage
	reply  mailer.Reply
	wanted []string // the verdict, and those that are right, too
	source string
}

// readCorpus reads testdata/replies.tsv: relay, preset, stage, code, enhanced, text,
// verdict, also, reason, source, date. Lines of a text are separated by \n. A question
// mark behind a verdict says that the sources do not settle it.
func readCorpus(t testing.TB) []corpusRow {
	t.Helper()
	data, err := os.ReadFile("testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var rows []corpusRow
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n")[1:] {
		c := strings.Split(line, "\t")
		if len(c) != 11 || c[9] == "" || c[10] == "" {
			t.Fatalf("replies.tsv:%d has not all 11 columns, source and date among them", i+2)
		}
		code, _ := strconv.Atoi(c[3])
		row := corpusRow{line: i + 2, relay: c[0], stage: stageNamed(c[2]), source: c[9]}
		row.reply = mailer.Reply{Code: code, Enhanced: c[4], Text: strings.Join(strings.Fields(strings.ReplaceAll(c[5], `\n`, " ")), " ")}
		row.wanted = append([]string{strings.TrimSuffix(c[6], "?")}, strings.FieldsFunc(c[7], func(r rune) bool { return r == ',' })...)
		if p, ok := PresetNamed(c[1]); ok {
			row.host = p.InRegion("eu-west-1").Host
		}
		rows = append(rows, row)
	}
	return rows
}

func stageNamed(name string) mailer.Stage {
	for s := mailer.StageCompose; s <= mailer.StageContent; s++ {
		if s.String() == name {
			return s
		}
	}
	return mailer.StageCompose
}

// TestCorpus: each reply gets its verdict, at the relay that gave it and at a host that
// is not known. What should wait is never judged permanent.
func TestCorpus(t *testing.T) {
	rows := readCorpus(t)
	if len(rows) < 300 {
		t.Errorf("the corpus has %d rows, want 300 at least", len(rows))
	}
	for _, row := range rows {
		for _, host := range slices.Compact([]string{row.host, ""}) {
			j := Judge(host, row.stage, row.reply, time.Time{})
			if !slices.Contains(row.wanted, j.Verdict.String()) {
				t.Errorf("replies.tsv:%d: Judge(%q, %s, %s) = %s (known %v), want %s\n%s", row.line, host, row.stage, row.reply, j.Verdict, j.Known, strings.Join(row.wanted, " or "), j.Cause)
			}
			if j.Known && (j.Cause == "" || j.Remedy == "" || j.Source == "") {
				t.Errorf("replies.tsv:%d: Judge(%q, %s, %s) has no cause, remedy or source", row.line, host, row.stage, row.reply)
			}
		}
	}
}

// TestLookalikesPauseNothing: what is said of a recipient never holds up others.
func TestLookalikesPauseNothing(t *testing.T) {
	looked := 0
	data, _ := os.ReadFile("testdata/replies.tsv")
	lines := strings.Split(string(data), "\n")
	for _, row := range readCorpus(t) {
		if !strings.Contains(lines[row.line-1], "look-alike: the recipient") {
			continue
		}
		looked++
		if v := Judge(row.host, row.stage, row.reply, time.Time{}).Verdict; v != Retry && v != Permanent {
			t.Errorf("replies.tsv:%d: Judge(%s, %s) = %s, want retry or permanent", row.line, row.stage, row.reply, v)
		}
	}
	if looked < 20 {
		t.Errorf("%d look-alikes, want 20 at least", looked)
	}
}

// TestVerdictOfAnyForm: case, how a reply is split into lines, and other ids, numbers
// and addresses do not change the verdict.
func TestVerdictOfAnyForm(t *testing.T) {
	for _, row := range readCorpus(t) {
		want := Judge(row.host, row.stage, row.reply, time.Time{}).Verdict
		for name, text := range forms(row.reply.Text) {
			r := row.reply
			r.Text = text
			if got := Judge(row.host, row.stage, r, time.Time{}).Verdict; got != want {
				t.Errorf("replies.tsv:%d, %s: Judge(%s, %s) = %s, want %s", row.line, name, row.stage, r, got, want)
			}
		}
	}
}

// forms returns the text in other forms that say the same.
func forms(text string) map[string]string {
	return map[string]string{
		"upper case":      strings.ToUpper(text),
		"lower case":      strings.ToLower(text),
		"more blanks":     "  " + strings.ReplaceAll(text, " ", "   ") + " ",
		"other addresses": strings.NewReplacer("user@example.org", "quota.limit@suspended.example.com", "noreply@example.org", "disabled@full.example.net").Replace(text),
		"an id":           text + " 4f9c2d7e-11aa.20261130",
		"a long tail":     text + strings.Repeat(" x", 300),
	}
}

// FuzzJudge: no reply makes Judge panic, or judge it otherwise than by its code without a
// rule that names its source.
func FuzzJudge(f *testing.F) {
	for _, row := range readCorpus(f) {
		f.Add(row.host, int(row.stage), row.reply.Code, row.reply.Enhanced, row.reply.Text)
	}
	now := time.Date(2026, 11, 30, 7, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, host string, stage, code int, enhanced, text string) {
		s := mailer.Stage(min(max(stage, 0), int(mailer.StageContent)))
		code = 200 + max(code, -code)%400
		j := Judge(host, s, mailer.Reply{Code: code, Enhanced: enhanced, Text: text}, now)
		if passed := j.Verdict == Permanent && j.OfRecipient; !j.Known && (j.Verdict != byCode(s, code) && !passed || j.Verdict == Permanent && code/100 != 5) {
			t.Errorf("Judge(%s, %d %s) = %s without a rule", s, code, text, j.Verdict)
		}
		if j.Known && j.Source == "" {
			t.Errorf("Judge(%s, %d %s) = %s without a source", s, code, text, j.Verdict)
		}
		if !j.Until.IsZero() && (!j.Until.After(now) || j.Until.After(now.Add(longestPause))) {
			t.Errorf("Judge(%s, %d %s) pauses until %s, want within a day", s, code, text, j.Until)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	rows := readCorpus(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		row := &rows[i%len(rows)]
		Judge(row.host, row.stage, row.reply, time.Time{})
	}
}

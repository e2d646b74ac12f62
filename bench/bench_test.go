package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailsidecar/bench/peers/message"
)

func TestNewSample(t *testing.T) {
	start := time.Now()
	l := &load{answers: []answer{
		{0, start.Add(-time.Second), time.Second}, // in front of the window
		{1, start.Add(time.Second), 10 * time.Millisecond},
		{2, start.Add(time.Second), 30 * time.Millisecond},
		{3, start.Add(time.Second), 20 * time.Millisecond},
	}}
	w := window{from: start, to: start.Add(2 * time.Second), arrived: 7}
	// The relay has 0, twice 1, and 4, which was not answered.
	s := newSample(l, w, []byte{1, 2, 0, 0, 1})
	want := Sample{
		AnswersPerSecond: 1.5, P50Millis: 20, P99Millis: 30, RelayPerSecond: 7,
		Accepted: 4, Arrived: 3, Lost: 2, Duplicates: 1,
	}
	if *s != want {
		t.Errorf("newSample = %+v, want %+v", *s, want)
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// TestOver: a ratio is that of rounds side by side, not of two medians.
func TestOver(t *testing.T) {
	rates := func(values ...float64) (rounds []Sample) {
		for _, v := range values {
			rounds = append(rounds, Sample{RelayPerSecond: v})
		}
		return rounds
	}
	r := &Results{Cases: []*CaseResult{{Name: caseFar16, Systems: []SystemResult{
		{Name: mailsidecar.name, Rounds: rates(10, 100, 30)},
		{Name: node8.name, Rounds: rates(5, 10, 30)},
	}}}}
	if got, ok := over(caseFar16, node8.name, relayRate)(r); !ok || got != 2 {
		t.Errorf("over node8 = %v, %t, want 2, true", got, ok)
	}
	if _, ok := over(caseFar16, postfix.name, relayRate)(r); ok {
		t.Error("over a peer that was left out is a figure, want none")
	}
}

// TestCompareCase: a ratio is over 1 where this checkout is better, be it by more
// or by less.
func TestCompareCase(t *testing.T) {
	all := compareCase(&CaseResult{Name: caseFar16, Systems: []SystemResult{
		{Name: mailsidecar.name, Rounds: []Sample{{RelayPerSecond: 100, P50Millis: 2}, {RelayPerSecond: 300, P50Millis: 4}, {RelayPerSecond: 50, P50Millis: 1}}},
		{Name: other.name, Rounds: []Sample{{RelayPerSecond: 50, P50Millis: 1}, {RelayPerSecond: 100, P50Millis: 2}, {RelayPerSecond: 100, P50Millis: 1}}},
	}})
	want := map[string]comparison{
		"at relay/s": {caseFar16, "at relay/s", 100, 100, 2},
		"p50 ms":     {caseFar16, "p50 ms", 2, 1, 0.5},
	}
	for _, c := range all {
		if w, ok := want[c.figure]; ok && c != w {
			t.Errorf("%s = %+v, want %+v", c.figure, c, w)
		}
		delete(want, c.figure)
	}
	if len(want) > 0 {
		t.Errorf("not compared: %v", want)
	}
}

func TestParseOptions(t *testing.T) {
	for _, test := range []struct {
		args   []string
		rounds int
		window time.Duration
		write  bool
	}{
		{nil, 3, 3 * time.Second, true},
		{[]string{"-short"}, 1, time.Second, false},
		{[]string{"-short", "-rounds", "5"}, 5, time.Second, false},
		{[]string{"-against", "x"}, 3, 3 * time.Second, false},
	} {
		o, err := parseOptions(test.args)
		if err != nil || o.rounds != test.rounds || o.window != test.window || o.write != test.write {
			t.Errorf("parseOptions(%v) = %d rounds of %v, write %t, %v; want %d of %v, %t",
				test.args, o.rounds, o.window, o.write, err, test.rounds, test.window, test.write)
		}
	}
}

// TestJudge: a target that was not measured is not met.
func TestJudge(t *testing.T) {
	r := &Results{Singles: []Figure{{Key: "start", Value: 51}, {Key: "idle_rss", Value: 25}}}
	states := map[string]string{}
	for _, v := range judge(r) {
		states[v.name] = v.state()
	}
	for name, want := range map[string]string{"start": "**missed**", "idle": "met", "587 black-holed": "not measured"} {
		if states[name] != want {
			t.Errorf("state of %q = %q, want %q", name, states[name], want)
		}
	}
}

func TestPayload(t *testing.T) {
	p, err := newPayload(1000)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Join([][]byte{p.jsonBefore, []byte("1-2"), p.jsonAfter}, nil)
	if !json.Valid(body) {
		t.Errorf("the body is no JSON: %s", body)
	}
	m, err := message.Decode(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if m.Headers["X-Bench"] != "1-2" || len(m.Attachments) != 1 {
		t.Errorf("decoded = %+v", m)
	}
	if len(m.Text) < 2500 || len(m.HTML) < 10_000 || len(m.HTML) > 12_000 {
		t.Errorf("text has %d octets, html %d", len(m.Text), len(m.HTML))
	}
	mime := string(p.mimeBefore) + "1-2" + string(p.mimeAfter)
	if !strings.Contains(mime, "\r\nX-Bench: 1-2\r\n") || strings.Contains(mime, "\r\n.\r\n") {
		t.Error("the composed message lacks its id, or ends early")
	}
}

func TestReplaceMarked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	page := "before\n" + markBegin + "\nold\n" + markEnd + "\nafter\n"
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceMarked(path, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + markBegin + "\n\nnew\n\n" + markEnd + "\nafter\n"
	if string(got) != want {
		t.Errorf("page = %q, want %q", got, want)
	}
	if err := os.WriteFile(path, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceMarked(path, "new\n"); err == nil {
		t.Error("a page without markers is replaced, want an error")
	}
}

// TestUsage: the CPU of a child that has ended is its parent's.
func TestUsage(t *testing.T) {
	p, err := startProcess(processSpec{
		name: "/bin/sh", log: filepath.Join(t.TempDir(), "log"),
		args: []string{"-c", `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; sleep 60 & wait`},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range p.tree()[1:] {
			if child, err := os.FindProcess(pid); err == nil {
				_ = child.Kill()
			}
		}
		p.stop()
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if log, _ := os.ReadFile(p.spec.log); len(log) > 0 {
			break
		}
	}
	u := p.usage()
	if u.cpu < 20*time.Millisecond || u.peak == 0 || u.rss == 0 {
		t.Errorf("usage = %+v, want CPU of the child that has ended, and memory", u)
	}
}

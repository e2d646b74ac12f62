package smtp_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/relaytest"
)

// dialogueReplies is what FuzzDialogue lets a relay do. None of them is a
// permanent mark of the fuzzed order: any can come at any stage.
var dialogueReplies = []string{
	"default", "default", "default", "default",
	"250 2.0.0 ok", "250", "251 2.1.5 elsewhere", "254 4.7.1 Suppression for user x",
	"354 go", "421 4.3.2 down", "bye 421 4.3.2 down", "450 4.2.1 busy", "452 4.5.3 too many", "500 what", "503 5.5.1 order",
	"530 5.7.0 AUTH first", "535 5.7.8 no", "550 5.1.1 unknown", "552 5.5.3 too many", "554 5.7.1 no", "220 odd", "334 ",
	"drop", "silence", "part 250 o", "split 250-a\n250 b", "drip 250 ok", "endless line", "endless reply", "bye 250 ok",
	"lf 250 ok", "nonsense", "199 low", "250-a\n550 b",
}

var dialogueStages = []string{
	"greeting", "EHLO", "STARTTLS", "AUTH", "AUTH+", "MAIL", "RCPT TO:<r0@", "RCPT TO:<r1@", "RCPT TO:<r2@", "RCPT", "DATA",
	".", "RSET", "QUIT",
}

func dialogueScript(data []byte) relaytest.Script {
	script := relaytest.Script{}
	for ; len(data) >= 2 && len(script) < 20; data = data[2:] {
		stage := dialogueStages[int(data[0])%len(dialogueStages)]
		reply := dialogueReplies[int(data[1])%len(dialogueReplies)]
		if before, ok := script[stage]; ok {
			reply = before + " then " + reply
		}
		script[stage] = reply
	}
	return script
}

// FuzzBacklog is the same for several messages that share connections: each has
// its own verdict.
func FuzzBacklog(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte{11, 0, 11, 22}, uint8(0))
	f.Add([]byte{5, 0, 5, 10, 10, 0, 10, 4}, uint8(1))
	f.Add([]byte{11, 0, 11, 9, 9, 0, 9, 13}, uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, connections uint8) {
		script := dialogueScript(data)
		synctest.Test(t, func(t *testing.T) {
			scripted := relaytest.New(t, relaytest.Options{}, script)
			network := &relaytest.Network{Port: map[int]any{587: scripted}}
			o := options(network)
			o.Ladder, o.MaxConnections, o.MessagesPerConnection = o.Ladder[:1], int(connections%3)+1, 4
			relay := newRelay(t, o)
			results := deliverMany(t.Context(), relay, 8)
			relay.Close()
			if n := network.Open(); n != 0 {
				t.Errorf("%v: %d connections left open", script, n)
			}
			checkVerdicts(t, script, scripted, results)
		})
	})
}

// checkVerdicts compares results with the messages that the relay took whole.
func checkVerdicts(t *testing.T, script relaytest.Script, scripted *relaytest.Relay, results map[string]mailer.Result) {
	t.Helper()
	copies := map[string]int{}
	for _, m := range scripted.Messages() {
		for _, path := range m.ForwardPaths {
			copies[path]++
			if string(m.Data) != numbered(path) {
				t.Errorf("%v: %s got %q", script, path, m.Data)
			}
		}
	}
	for path, r := range results {
		n := copies[path]
		switch {
		case n > 1, r.Failure == nil && n != 1:
			t.Errorf("%v: %s got %d copies, and its result is %s", script, path, n, outcome(r))
		case r.Failure == nil:
		case r.Failure.Relay == "":
			t.Errorf("%v: %s has no verdict", script, path)
		case r.Failure.Stage != mailer.StageContent && n > 0 && r.Failure.Reply.Code != 254:
			t.Errorf("%v: %s failed at %s, and yet the relay got it", script, path, r.Failure.Stage)
		case r.Failure.Class != mailer.ClassUncertain && r.Failure.Reply.Code == 0 && n > 0:
			t.Errorf("%v: %s is %s without a reply, and yet the relay got it", script, path, r.Failure.Class)
		}
	}
}

// A fault is one reply too many or too few in each envelope, or in the first one, beside
// what the script says. One 354 too many is not among them: it is a request for content.
var (
	faultStages  = []string{"MAIL", "RCPT TO:<r0@", "RCPT TO:<r1@", "RCPT TO:<r2@", "RCPT TO:<r3@", "RCPT TO:<r4@", "DATA", ".", "AUTH", "RSET"}
	faultReplies = []string{"250 2.0.0 ok", "550 5.1.1 unknown", "251 2.1.5 elsewhere", "450 4.2.1 busy", "503 5.5.1 order", "501 5.5.4 what", "554 5.7.1 no", "250-a\n250 b"}
	faultKinds   = []string{"", "extra %s | %s", "stray %[2]s | %[1]s", "unsaid %s", "later %s"}
)

// addFault adds a fault to what the script says first at a stage.
func addFault(script relaytest.Script, fault uint16) {
	kind := faultKinds[int(fault)%len(faultKinds)]
	fault /= uint16(len(faultKinds))
	stage := faultStages[int(fault)%len(faultStages)]
	fault /= uint16(len(faultStages))
	more := faultReplies[int(fault)%len(faultReplies)]
	always := int(fault)/len(faultReplies)%2 == 1
	if kind == "" {
		return
	}
	for at, reply := range script { // that would be a second fault
		if at != "DATA" {
			script[at] = strings.ReplaceAll(reply, "354 go", "250 ok")
		}
	}
	own, rest, found := strings.Cut(script[stage], " then ")
	if own == "" {
		own = "default"
	}
	switch {
	case kind != "unsaid %s":
	case own == "default" && stage == "DATA":
		own = "354 go"
	case own == "default":
		own = "250 2.0.0 ok"
	}
	if !found {
		rest = "default"
	}
	args := []any{own, more}
	if strings.Count(kind, "%") == 1 {
		args = args[:1]
	}
	script[stage] = fmt.Sprintf(kind, args...)
	if !always {
		script[stage] += " then " + rest
	}
}

// FuzzDialogue: whatever a relay says, when and how often, each recipient gets
// a verdict, accepted means exactly one copy, nothing secret crosses in clear,
// the attempt ends in time and leaves nothing open. A recipient fails for good only by a
// reply that is the relay's own to its RCPT, or to the MAIL, DATA or final dot of its
// envelope.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte{}, true, uint8(100), uint16(0))
	f.Add([]byte{5, 9, 6, 11}, true, uint8(2), uint16(0))
	f.Add([]byte{7, 12, 8, 12, 7, 0}, false, uint8(1), uint16(0))
	f.Add([]byte{10, 14, 13, 13, 12, 29}, true, uint8(3), uint16(0))
	f.Add([]byte{12, 11, 12, 29, 5, 10}, true, uint8(2), uint16(0))
	refusals := [][]byte{{}, {7, 17}, {9, 17, 10, 0}, {10, 17, 7, 17}}  // none, of one recipient, of all, of DATA and one
	for fault := range uint16(len(faultKinds) * len(faultStages) * 2) { // 250 or 550 too many
		if fault%uint16(len(faultKinds)) > 0 {
			f.Add(refusals[fault/2%4], fault%3 > 0, uint8(3), fault)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, pipelining bool, recipients uint8, fault uint16) {
		script := dialogueScript(data)
		addFault(script, fault)
		synctest.Test(t, func(t *testing.T) {
			opts := relaytest.Options{}
			if !pipelining {
				opts.TLSExtensions = relaytest.Without("PIPELINING")
			}
			scripted := relaytest.New(t, opts, script)
			network := &relaytest.Network{Port: map[int]any{587: scripted}}
			o := options(network)
			o.Ladder, o.MaxRecipients = o.Ladder[:1], int(recipients%4)+1
			relay := newRelay(t, o)
			begin := time.Now()
			a := relay.Deliver(t.Context(), envelope(manyRecipients(5)...), content(messageText))
			if took := time.Since(begin); took > 2*time.Hour {
				t.Errorf("%v: Deliver() took %v", script, took)
			}
			relay.Close()
			if n := network.Open(); n != 0 {
				t.Errorf("%v: %d connections left open", script, n)
			}
			checkCopies(t, script, scripted, a)
			synctest.Wait()
			checkOwnReplies(t, script, scripted, a)
			if clear := string(scripted.Clear()); strings.Contains(clear, "AUTH") || strings.Contains(clear, "three") {
				t.Errorf("%v: %q crossed in clear", script, clear)
			}
		})
	})
}

// checkOwnReplies: a recipient that failed for good was refused by a reply of its own.
func checkOwnReplies(t *testing.T, script relaytest.Script, scripted *relaytest.Relay, a mailer.Attempt) {
	t.Helper()
	for _, r := range a.Results {
		if r.Failure == nil || r.Failure.Class != mailer.ClassPermanent {
			continue
		}
		verdicts := scripted.Verdicts(r.ForwardPath)
		if r.Failure.Stage == mailer.StageMail {
			verdicts = scripted.Verdicts("")
		}
		if !slices.ContainsFunc(verdicts, refuses) && !endedAtDot(verdicts) {
			t.Errorf("%v: %s is %s by %q, and yet the relay's own replies were %q", script, r.ForwardPath, outcome(r), r.Reply, verdicts)
		}
	}
}

// refuses reports whether a reply of the relay refuses for good: 5yz, or what a known
// relay means by another code.
func refuses(reply string) bool {
	last := reply[strings.LastIndexByte(reply, '\n')+1:]
	return strings.HasPrefix(last, "5") || strings.HasPrefix(last, "254 4.7.1 Suppress")
}

// endedAtDot reports whether the relay closed the connection at the final dot: what came
// before is then taken for the reply to that.
func endedAtDot(verdicts []string) bool {
	for i, v := range verdicts[:max(0, len(verdicts)-1)] {
		if strings.HasPrefix(v, "354") && verdicts[i+1] == "" {
			return true
		}
	}
	return false
}

// checkCopies compares the results with what the relay took. A message whose
// last reply was lost may or may not have been taken: that is uncertain.
func checkCopies(t *testing.T, script relaytest.Script, scripted *relaytest.Relay, a mailer.Attempt) {
	t.Helper()
	copies := map[string]int{}
	for _, m := range scripted.Messages() {
		for _, path := range m.ForwardPaths {
			copies[path]++
		}
		if string(m.Data) != messageText {
			t.Errorf("%v: relay got %q", script, m.Data)
		}
	}
	for _, r := range a.Results {
		switch {
		case r.Failure == nil && (copies[r.ForwardPath] != 1 || r.Reply.Code/100 != 2):
			t.Errorf("%v: %s is accepted with %d copies and reply %v", script, r.ForwardPath, copies[r.ForwardPath], r.Reply)
		case r.Failure == nil, r.Failure.Reply.Code == 254: // 254 is dropped by the relay
		case r.Failure.Relay == "":
			t.Errorf("%v: %s has no verdict", script, r.ForwardPath)
		case r.Failure.Stage != mailer.StageContent && copies[r.ForwardPath] > 0:
			t.Errorf("%v: %s failed at %s, and yet the relay got it", script, r.ForwardPath, r.Failure.Stage)
		case copies[r.ForwardPath] > 1:
			t.Errorf("%v: %s got %d copies", script, r.ForwardPath, copies[r.ForwardPath])
		}
	}
}

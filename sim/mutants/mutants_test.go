// Package mutants proves that the simulator can fail: it plants faults into the product,
// one at a time, and lets the simulator find them.
//
// The faults are changes of the source, made in a copy that only the build sees. Each
// names a text that stands once in its file, so a change of the product that takes a
// fault's place away is noticed by every test run.
package mutants

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	count = flag.Int("mutants", 0, "how many of the planted faults to have found; all of them take 30 minutes")
	from  = flag.Int("from", 0, "the number of the first one; more than there are begin anew")
	only  = flag.String("mutant", "", "the name of the one to have found")
	limit = flag.String("seeds", "500", "within how many seeds")
	files = flag.Bool("sqlite", false, "have them found with the queues in SQLite files, too, which takes several times as long")
)

const root = "../.."

// mutant is a planted fault.
type mutant struct {
	name     string
	file     string
	old, new string
	also     *mutant // a change of another file that belongs to it
}

// planted are the faults that are found within 500 seeds; docs/testing.md has by which.
var planted = slices.Concat(alone, together)

// alone are faults that one instance shows.
var alone = []mutant{
	{
		"outcome of the wrong recipient", "queue/outcome.go",
		"d.change(l, last[l.ForwardPath], ", "d.change(l, last[w.Recipients[0].ForwardPath], ", nil,
	},
	{
		"lease not released", "queue/recorder.go",
		"r.leased = append(r.leased, jobs...)", "r.leased = append(r.leased, jobs[1:]...)",
		// Otherwise it is given back within a minute, as one whose commit seemed to fail.
		&mutant{
			file: "queue/leases.go",
			old:  "err == nil && len(unknown) > 0 {", new: "err == nil && len(unknown) > 1000 {",
		},
	},
	{
		"outcome dropped", "queue/recorder.go",
		"r.pending = append(r.pending, pendingOutcome{o, j})", "if len(o.Changes) < 3 {\n\t\tr.pending = append(r.pending, pendingOutcome{o, j})\n\t}", nil,
	},
	{
		"memory not given back", "queue/driver.go",
		"d.NotStored(inMemory(jobs))", "_ = d", nil,
	},
	{
		"cancel forgotten", "queue/driver.go",
		"for _, j := range d.Trying(ids...) {", "for _, j := range d.Trying(ids...)[:0] {", nil,
	},
	{
		"rate window off by one", "mailer/smtp/rate.go",
		"if len(p.sent) == p.rate.Messages {", "if len(p.sent) >= max(1, p.rate.Messages-1) {", nil,
	},
	{
		"rate forgotten at a restart", "queue/turns.go",
		"rated.Used(times)", "_ = times", nil,
	},
	{
		"retry after uncertain under hold", "queue/outcome.go",
		"case r.Failure.Class == mailer.ClassUncertain && d.hold:", "case r.Failure.Class == mailer.ClassUncertain && d.hold && l.Tries > 0:", nil,
	},
	{
		"hold forgotten at a crash", "queue/house.go",
		"h.store.Recover(ctx, h.owner.now(), h.now(), h.opts.HoldUncertain)", "h.store.Recover(ctx, h.owner.now(), h.now(), false)", nil,
	},
	{
		"content sent without a mark", "queue/attempt.go",
		"if !marks(work.owner, j.Route) {", "if !marks(work.owner, j.Route) || len(forwardPaths) == 1 {", nil,
	},
	{
		"tried elsewhere after uncertain", "queue/outcome.go",
		"changes[i].Route = TakenRoute(relays[l.ForwardPath])", "_ = relays", nil,
	},
	{
		"relay forgotten at a crash", "queue/taken.go",
		"if relay != \"\" {\n\t\tc.Route", "if false {\n\t\tc.Route", nil,
	},
	{
		"idempotency key forgotten at a restart", "queue/intake.go",
		"i := idempotency(s, now)", "i := idempotency(s, now)\n\t\ti.Name += in.owner.now()", nil,
	},
	{
		"idempotency key for any body", "handler/intake/fingerprint.go",
		"f.hash.Sum(sum[:0])", "sum[0] = 1", nil,
	},
	{
		"reply mapped one off", "mailer/smtp/dialogue.go",
		"d.t.rcpt(d.conn, r, reply)", "_ = r\n\t\t\td.t.rcpt(d.conn, d.t.results[(i+1)%len(d.t.results)], reply)", nil,
	},
	{
		"delivered though refused", "mailer/smtp/transaction.go",
		"if !a.reply.Positive() || c.notAcceptedFor(", "if a.reply.Code >= 500 || c.notAcceptedFor(", nil,
	},
	{
		"lost reply taken for a failure", "mailer/smtp/transaction.go",
		"c.failure(mailer.ClassUncertain, mailer.StageContent, why)", "c.failure(mailer.ClassTransient, mailer.StageContent, why)", nil,
	},
	{
		"refusal at the greeting bounces", "mailer/smtp/classify.go",
		"case stage < mailer.StageMail:\n", "case stage < mailer.StageMail:\n\t\tif r.Code/100 == 5 {\n\t\t\treturn mailer.ClassPermanent\n\t\t}\n", nil,
	},
	{
		"quota bounces", "mailer/smtp/classify.go",
		"case relays.Pause, relays.Login:", "case relays.Pause:\n\t\treturn mailer.ClassPermanent\n\tcase relays.Login:", nil,
	},
	{
		"next relay asked after one took it", "queue/attempt.go",
		"env.ForwardPaths = untouched(a)", "env.ForwardPaths = work.Envelope.ForwardPaths", nil,
	},
	{
		"recipient in two transactions", "mailer/smtp/deliver.go",
		"d.open = d.open[n:]\n\tt.last", "d.open = d.open[max(1, n-len(d.open)/4):]\n\tt.last", nil,
	},
	{
		"Bcc left in the content", "mailer/compose/finish.go",
		`case field.key == "bcc" || field.key`, "case field.key", nil,
	},
	{
		"dots not doubled", "mailer/smtp/transaction.go",
		"dst = append(append(dst, data[:i+2]...), '.')", "dst = append(dst, data[:i+2]...)", nil,
	},
	{
		"wake-up late", "queue/scheduler.go",
		"return min(max(dr.armed.Sub(dr.now()), 0), longest)", "return min(max(dr.armed.Sub(dr.now()), 2*time.Hour), longest)", nil,
	},
	{
		"failed look forgotten", "queue/dispatch/store.go",
		"d.expiry = earliest(d.expiry, now)\n\td.lookAt(now.Add(storeTrouble))", "d.expiry = earliest(d.expiry, now)", nil,
	},
	{
		"lost leases never looked for", "queue/leases.go",
		"err == nil && len(unknown) > 0 {", "err == nil && len(unknown) > 1000 {", nil,
	},
	{
		"room not given back", "queue/account.go",
		"a.reserved = a.reserved.minus(reserved)", "if known {\n\t\ta.reserved = a.reserved.minus(reserved)\n\t}", nil,
	},
	{
		"client not woken", "queue/recorder.go",
		"for _, o := range outcomes {\n\t\tr.waiters.wake(o.ID)\n\t}\n\tr.driver.recorded", "r.driver.recorded", nil,
	},
	{
		"ids of a batch in another order", "queue/intake.go",
		"receipts[i].Message = e.Message", "receipts[len(subs)-1-i].Message = e.Message", nil,
	},
	{
		"key forgotten by what waits", "queue/route.go",
		"name, relays = r.route(w.Key, w.Sender)", "name, relays = r.route(\"\", w.Sender)", nil,
	},
	{
		"only relay of a key forgotten", "queue/route.go",
		"if found == nil {\n\t\treturn relays", "if len(found) < 2 {\n\t\treturn relays", nil,
	},
	{
		"standby has a share", "queue/dispatch/dispatch.go",
		"weights[i] = d.opts.Weights[r]", "weights[i] = max(1, d.opts.Weights[r])", nil,
	},
	{
		"cancel keeps what comes late", "queue/commands.go",
		"d.recorder.release(append(jobs, late...))", "d.recorder.release(append(jobs, late[:0]...))",
		&mutant{
			file: "queue/leases.go",
			old:  "err == nil && len(unknown) > 0 {", new: "err == nil && len(unknown) > 1000 {",
		},
	},
	{
		"expired before its end", "queue/retry.go",
		"const worthTrying = 10 * time.Second", "const worthTrying = 10 * time.Minute", nil,
	},
	{
		"login tried without end", "mailer/smtp/breaker.go",
		"refusalPause     = time.Minute", "refusalPause     = time.Second", nil,
	},
	{
		"connections left open", "mailer/smtp/relay.go",
		"r.pool.close()\n", "_ = &r.pool\n", nil,
	},
	{
		"newest first", "queue/dispatch/group.go",
		"l.fresh = append(l.fresh, j)", "l.fresh = append([]*Job{j}, l.fresh...)", nil,
	},
	{
		"operator's pause not heeded", "queue/dispatch/relay.go",
		"h.pause.opens()), h.manual.Opens())", "h.pause.opens()), time.Time{})", nil,
	},
	{
		"operator's pause forgotten at a restart", "queue/manual.go",
		"case p.Over(m.now()):", "case true:", nil,
	},
	{
		"drain lets mail in", "queue/drain.go",
		"func (d *drain) refuses() error {", "func (d *drain) refuses() error {\n\tif time.Since(d.since()) < time.Second {\n\t\treturn nil\n\t}", nil,
	},
}

// together are faults that only instances which share a store show.
var together = []mutant{
	{
		"fence not asked before content", "queue/owner.go",
		"return func() bool { return dr.mayKeep(work) }", "return func() bool { return true }", nil,
	},
	{
		"lost mark not heeded", "queue/attempt.go",
		"case errors.Is(err, ErrLeaseLost):\n\t\t\tdr.owner.doubt()", "case errors.Is(err, ErrLeaseLost):\n\t\t\treturn nil\n\t\t\tdr.owner.doubt()",
		&mutant{
			file: "queue/owner.go",
			old:  "return func() bool { return dr.mayKeep(work) }", new: "return func() bool { return true }",
		},
	},
	{
		"taken over from an instance that lives", "queue/memory/recover.go",
		"!slices.Contains(owners, r.owner) && !t.alive(r.owner, 0) {", "!slices.Contains(owners, r.owner) && !t.alive(r.owner, 20*time.Second) {",
		&mutant{
			file: "queue/memory/recover.go",
			old:  "if other != owner && !t.alive(other, 0) {", new: "if other != owner && !t.alive(other, 20*time.Second) {",
		},
	},
	{
		"marked mail taken over as if it was not", "queue/taken.go",
		"if !marked && marks(owner, route) {", "if marks(owner, route) {", nil,
	},
	{
		"never taken over", "queue/house.go",
		"if r := h.takeOver(ctx); r.Any() {", "if r := (Recovered{}); r.Any() {", nil,
	},
	{
		"outcome of a lost lease counts", "queue/memory/lease.go",
		"(r.owner != o.Owner || !r.has(o.Lease)) && c.State != queue.Delivered {", "r.State.Final() && c.State != queue.Delivered {", nil,
	},
	{
		"unknown insert taken for stored", "queue/intake.go",
		"replayed, err := in.store.Insert(ctx, r.batch)", "replayed, err := in.store.Insert(ctx, r.batch)\n\tif errors.Is(err, ErrUnavailable) {\n\t\terr = nil\n\t}", nil,
	},
	{
		"unknown outcome taken for stored", "queue/recorder.go",
		"r.account.end(Usage{}.minus(settled), err == nil)\n\t\tif err != nil {", "r.account.end(Usage{}.minus(settled), err == nil)\n\t\tif err != nil && certain(err) {", nil,
	},
	{
		"rate for each instance", "queue/turns.go",
		"if sharing, ok := r.(sharingRelay); ok && s.owner.store != nil {", "if sharing, ok := r.(sharingRelay); ok && len(times) > 1000 {", nil,
	},
	{
		"cancel at another instance forgotten", "queue/attempt.go",
		"case errors.Is(err, ErrCanceled): // at another instance", "case errors.Is(err, ErrCanceled):\n\t\t\treturn nil", nil,
	},
	{
		"goes on with a lost lease", "queue/owner.go",
		"next := h.owner.another()", "if true {\n\t\treturn nil\n\t}\n\tnext := h.owner.another()", nil,
	},
	{
		"outcome at another instance not seen", "queue/owner.go",
		"d.waiters.wake(tried...)", "d.waiters.wake(tried[:0]...)", nil,
	},
	{
		"lease trusted too long", "queue/memory/shared.go",
		"b.until = sent.Add(s.database.lease - s.margin())", "b.until = sent.Add(3 * s.database.lease)", nil,
	},
	{
		"pause at another instance not seen", "queue/manual.go",
		"if !slices.Contains(m.list, p) {", "if len(m.list) > 100 {", nil,
	},
}

// escaping are faults that the simulator does not find within 500 seeds. Unit tests find
// them. Name one with -mutant to try it.
var escaping = []mutant{
	{
		"sent after its end", "mailer/smtp/deliver.go",
		"case d.expired() && (", "case false && (", nil,
	},
	{
		"all mail to the heaviest", "queue/dispatch/shares.go",
		"if credit := s.credit[i] + w; next < 0", "if credit := w; next < 0", nil,
	},
	{
		"missed turns made up for", "queue/dispatch/shares.go",
		"if w > 0 && may(other) {", "if w > 0 {", nil,
	},
}

// TestPlanted: each fault still has its place, and is Go.
func TestPlanted(t *testing.T) {
	packages := listPackages(t)
	for _, m := range slices.Concat(planted, escaping) {
		for part := &m; part != nil; part = part.also {
			source := read(t, part.file)
			if n := strings.Count(source, part.old); n != 1 {
				t.Errorf("%s: %q stands %d times in %s, want once", m.name, part.old, n, part.file)
				continue
			}
			if err := packages.check(part.file, strings.Replace(source, part.old, part.new, 1)); err != nil {
				t.Errorf("%s: %v", m.name, err)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	return readFile(t, filepath.Join(root, file))
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestCaught: the simulator finds each fault that was chosen.
func TestCaught(t *testing.T) {
	for _, m := range chosen() {
		began := time.Now()
		binary := build(t, m)
		if binary == "" {
			continue
		}
		shared := slices.ContainsFunc(together, func(other mutant) bool { return other.name == m.name })
		for _, inSQLite := range []bool{false, true} {
			if inSQLite && (shared || !*files) {
				continue
			}
			seed, output := search(t, binary, shared, inSQLite)
			if seed == "" {
				t.Errorf("%s, SQLite %t: not found within %s seeds (%.0f s)\n%s", m.name, inSQLite, *limit, time.Since(began).Seconds(), output)
				continue
			}
			t.Logf("%s, SQLite %t: seed %s (%.0f s)", m.name, inSQLite, seed, time.Since(began).Seconds())
		}
	}
}

// chosen are the faults that the flags name.
func chosen() []mutant {
	if *only != "" {
		return slices.DeleteFunc(slices.Concat(planted, escaping), func(m mutant) bool { return m.name != *only })
	}
	var list []mutant
	for n := range min(*count, len(planted)) {
		list = append(list, planted[(*from+n)%len(planted)])
	}
	return list
}

// build returns the simulator with the fault in the product.
func build(t *testing.T, m mutant) string {
	t.Helper()
	dir, replaced := t.TempDir(), map[string]string{}
	for part := &m; part != nil; part = part.also {
		path, err := filepath.Abs(filepath.Join(root, part.file))
		if err != nil {
			t.Fatal(err)
		}
		source := read(t, part.file)
		if before, ok := replaced[path]; ok { // another part of the same file
			source = readFile(t, before)
		}
		replaced[path] = filepath.Join(dir, fmt.Sprintf("changed%d.go", len(replaced)))
		write(t, replaced[path], []byte(strings.Replace(source, part.old, part.new, 1)))
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), overlay)
	binary := filepath.Join(dir, "sim.test")
	c := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./sim")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", m.name, err, out)
		return ""
	}
	return binary
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

var seedFound = regexp.MustCompile(`(?m)seed (\d+) fails: (\S+)`)

// search returns the first seed that fails, and the check; or "" and the end of the
// output. A run that ends in a panic, or does not end, has found the fault, too. Of the seeds only those of
// several instances are played where shared says so.
func search(t *testing.T, binary string, shared, inSQLite bool) (seed, output string) {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command(binary, "-test.run", "TestHistories$", "-test.timeout", "10m", "-sim.seeds", *limit, "-sim.shrink", "0", "-sim.failures", "1", "-sim.out", dir, fmt.Sprintf("-sim.sqlite=%t", inSQLite), fmt.Sprintf("-sim.instances=%t", shared))
	c.Dir = filepath.Join(root, "sim")
	c.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off")
	out, err := c.CombinedOutput()
	if found := seedFound.FindStringSubmatch(string(out)); found != nil {
		return found[1] + " by " + found[2], ""
	}
	text := string(out)
	if err != nil {
		current, _ := os.ReadFile(filepath.Join(dir, "current-1.txt"))
		return strings.TrimSpace(string(current)) + " ended the process", text
	}
	return "", text[max(0, len(text)-2000):]
}

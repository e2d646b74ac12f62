package dispatch

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// world is a dispatcher with all that it deals with: a store, a ledger that
// writes to it, a scheduler that reads it, workers, and relays. Each action is
// one event in the life of the queue, and checks what it led to.
type world struct {
	config   *setting
	d        *Dispatcher
	now      time.Time
	messages []message
	claims   []int // the messages that the scheduler has claimed, and the dispatcher does not know of
	relays   []relay
	arrivals int    // how many jobs came into memory
	broken   string // what an action found wrong
}

// setting is what a search varies.
type setting struct {
	name     string
	options  Options
	routes   map[string][]int
	messages []Job     // without Fresh
	useful   []int     // deliveries at a time, by relay; zero: no limit
	outcomes []outcome // what a relay may say
	failing  bool      // the store may fail to write
	commands bool      // relays may be resumed and messages canceled
}

// message is one message and where it is.
type message struct {
	place place
	job   *Job      // leased work in memory, from storing to recording
	due   time.Time // when it may be tried, once it waits
	final bool      // what will be recorded
	relay int       // in flight: the relay that has it, as an index into its route
	tried bool      // in flight: a relay was asked
	came  int       // in memory: its number among all jobs that came there
}

type place byte

const (
	outside   place = iota
	storing         // the store inserts it; job is nil where it will wait
	waiting         // in the store
	claimed         // leased from the store, on the way to the dispatcher
	inMemory        // in line
	inFlight        // a delivery goes on
	recording       // its outcome is to be written
	releasing       // its lease is to be given back
	ended           // it is delivered, or canceled
)

// relay is what the world knows of a relay by what it said.
type relay struct {
	trouble bool      // since it took mail last
	until   time.Time // when its pause ends
	probed  bool      // a probe began, and no delivery ended there since
	rests   [levels]time.Time
}

type outcome byte

const (
	delivered outcome = iota
	deferred
	inTrouble
	ratedOut
)

func (s *setting) start() *world {
	w := &world{config: s, d: New(s.options), now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	w.messages = make([]message, len(s.messages))
	w.relays = make([]relay, len(s.options.Relays))
	for _, name := range []string{"one", "other"} {
		if relays := s.routes[name]; relays != nil {
			w.d.Route(name, relays)
		}
	}
	for i, n := range s.useful {
		w.d.Useful(i, n)
	}
	w.obey(w.d.Start(w.now))
	return w
}

// action is an event that may come next, about a message or relay.
type action struct {
	name    string
	about   int
	outcome outcome
	do      func(w *world, about int, o outcome)
}

func (a action) String() string {
	if a.name == "report" {
		return fmt.Sprintf("report %d %s", a.about, [...]string{"delivered", "deferred", "in trouble", "rated out"}[a.outcome])
	}
	return fmt.Sprintf("%s %d", a.name, a.about)
}

// actions adds the events that may come next to all.
func (w *world) actions(all []action) []action {
	add := func(name string, about int, do func(*world, int, outcome)) {
		all = append(all, action{name, about, 0, do})
	}
	for i, m := range w.messages {
		switch m.place {
		case outside:
			if i == 0 || w.messages[i-1].place != outside {
				add("reserve", i, (*world).reserve)
			}
		case storing:
			add("stored", i, (*world).stored)
			if w.config.failing {
				add("not stored", i, (*world).notStored)
			}
		case inFlight:
			for _, o := range w.config.outcomes {
				all = append(all, action{"report", i, o, (*world).report})
			}
		case waiting, inMemory:
			if w.config.commands {
				add("cancel", i, (*world).cancel)
			}
		case claimed, recording, releasing, ended:
		}
	}
	if len(w.claims) > 0 {
		add("claimed", len(w.claims), (*world).claimed)
	} else if wake := w.d.Wake(); !wake.IsZero() && !wake.After(w.now) {
		add("look", 0, (*world).look)
	}
	if w.writes() {
		add("write", 0, (*world).write)
		if w.config.failing && !w.d.stuck {
			add("cannot write", 0, (*world).cannotWrite)
		}
	}
	if !w.nextDeadline().IsZero() {
		add("time passes", 0, (*world).pass)
	}
	for i, r := range w.relays {
		if w.config.commands && r.trouble {
			add("resume", i, (*world).resume)
		}
	}
	return all
}

func (w *world) pass(int, outcome) { w.now = w.nextDeadline() }

func (w *world) cannotWrite(int, outcome) { w.obey(w.d.Stuck(true, w.now)) }

// nextDeadline is the first time to come at which something may change.
func (w *world) nextDeadline() time.Time {
	var next time.Time
	soonest := func(t time.Time) {
		if t.After(w.now) {
			next = earliest(next, t)
		}
	}
	soonest(w.d.Wake())
	for _, h := range w.d.relays {
		soonest(h.pausedUntil)
		for _, rests := range h.restsUntil {
			soonest(rests)
		}
	}
	for _, m := range w.messages {
		if m.place == waiting {
			soonest(m.due)
		}
	}
	return next
}

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

func (w *world) index(j *Job) int { return int(j.ID[0] - '0') }

func (w *world) newJob(i int, fresh bool) *Job {
	j := w.config.messages[i]
	j.ID, j.Fresh, j.Expires = string(rune('0'+i)), fresh, w.now.Add(100*time.Hour)
	return &j
}

func (w *world) reserve(i int, _ outcome) {
	j := w.newJob(i, true)
	w.messages[i] = message{place: storing, job: j, due: w.now}
	if !w.d.Reserve(j, w.now) {
		w.messages[i].job = nil
	}
}

func (w *world) stored(i int, _ outcome) {
	m := &w.messages[i]
	if m.job == nil {
		m.place = waiting
		w.waits(i)
		w.obey(w.d.Stored(nil, w.now))
		return
	}
	w.arrive(i)
	w.obey(w.d.Stored([]*Job{m.job}, w.now))
}

func (w *world) arrive(i int) {
	w.arrivals++
	w.messages[i].place, w.messages[i].came = inMemory, w.arrivals
}

func (w *world) waits(i int) {
	j, m := &w.config.messages[i], &w.messages[i]
	w.d.Waits(j.Route, j.Lane, m.due, m.due.Add(100*time.Hour), w.now)
}

func (w *world) notStored(i int, _ outcome) {
	if j := w.messages[i].job; j != nil {
		w.d.NotStored([]*Job{j})
	}
	w.messages[i] = message{}
}

// look reads the store, and claims.
func (w *world) look(int, outcome) {
	w.d.Look(w.now)
	var store Waiting
	for _, l := range w.lanes() {
		var due []int
		for i, m := range w.messages {
			if j := w.config.messages[i]; m.place == waiting && j.Route == l.Route && j.Lane == l.Lane {
				due = append(due, i)
			}
		}
		if len(due) > 0 {
			l.At = w.messages[slices.MinFunc(due, w.byDue)].due
			store.Lanes = append(store.Lanes, l)
		}
	}
	wants, o := w.d.Looked(store, w.now)
	w.obey(o)
	for _, want := range wants {
		var due []int
		for i, m := range w.messages {
			j := w.config.messages[i]
			if m.place == waiting && j.Route == want.Route && j.Lane == want.Lane && !m.due.After(w.now) {
				due = append(due, i)
			}
		}
		slices.SortFunc(due, w.byDue)
		for _, i := range due[:min(len(due), want.Limit)] {
			w.messages[i].place, w.messages[i].job = claimed, w.newJob(i, false)
			w.claims = append(w.claims, i)
		}
	}
}

func (w *world) byDue(i, j int) int { return w.messages[i].due.Compare(w.messages[j].due) }

// lanes are those of the messages, by route and priority.
func (w *world) lanes() []LaneDue {
	var lanes []LaneDue
	for _, j := range w.config.messages {
		if l := (LaneDue{Route: j.Route, Lane: j.Lane}); !slices.Contains(lanes, l) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// claimed brings what was claimed to the dispatcher. The scheduler looks again
// after that.
func (w *world) claimed(int, outcome) {
	var jobs []*Job
	for _, i := range w.claims {
		w.arrive(i)
		jobs = append(jobs, w.messages[i].job)
	}
	w.claims = nil
	o := w.d.Claimed(jobs, w.now)
	w.d.LookAt(w.now)
	w.obey(o)
}

// report ends the attempt at a relay, and begins the next one or ends the
// delivery.
func (w *world) report(i int, o outcome) {
	m := &w.messages[i]
	r := w.route(m.job)[m.relay]
	model := &w.relays[r]
	model.probed = false
	switch o {
	case delivered, deferred:
		model.trouble = false
	case inTrouble:
		model.trouble = true
	case ratedOut:
		until := w.now.Add(10 * time.Second)
		for at := level(m.job.Lane.Priority); at < levels; at++ {
			model.rests[at] = until
		}
	}
	w.obey(w.d.Report(r, m.job, attempt(o, w.now), w.now, 0.5))
	model.until = w.d.relays[r].pausedUntil
	m.tried = m.tried || o != ratedOut
	if o == inTrouble || o == ratedOut {
		if m.relay++; w.nextRelay(m) {
			return
		}
	}
	switch {
	case !m.tried:
		m.place = releasing
	default:
		m.place, m.final, m.due = recording, o == delivered, w.now
		if o == deferred {
			m.due = w.now.Add(time.Minute)
		}
	}
	w.obey(w.d.Done(m.job, w.now))
}

func attempt(o outcome, now time.Time) mailer.Attempt {
	var f *mailer.Failure
	switch o {
	case delivered:
	case deferred:
		f = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 450}}
	case inTrouble:
		f = &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect}
	case ratedOut:
		f = &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Err: &mailer.RateError{At: now.Add(10 * time.Second)}}
	}
	return mailer.Attempt{Results: []mailer.Result{{Failure: f}}}
}

func (w *world) route(j *Job) []int { return w.config.routes[j.Route] }

// nextRelay gives a message in flight to the next relay that takes it, and says
// whether there is one.
func (w *world) nextRelay(m *message) bool {
	relays, p := w.route(m.job), m.job.Lane.Priority
	for ; m.relay < len(relays); m.relay++ {
		r := relays[m.relay]
		if !w.d.Take(r, p, w.now) {
			continue
		}
		model := &w.relays[r]
		if rests := model.rests[level(p)]; w.now.Before(rests) {
			w.fail("relay %d was given a message before its rate allows one", r)
		}
		if model.trouble && (w.now.Before(model.until) || model.probed) {
			w.fail("relay %d was given a message in its pause, or a second probe", r)
		}
		model.probed = model.trouble
		return true
	}
	return false
}

// write lets the ledger write all that there is.
func (w *world) write(int, outcome) {
	for i := range w.messages {
		switch m := &w.messages[i]; m.place {
		case recording:
			m.place, m.job = waiting, nil
			if m.final {
				m.place = ended
			} else {
				w.waits(i)
			}
		case releasing:
			w.d.Released([]*Job{m.job}, w.now)
			m.place, m.job = waiting, nil
		default:
		}
	}
	if w.d.stuck {
		w.obey(w.d.Stuck(false, w.now))
	}
}

func (w *world) writes() bool {
	return slices.ContainsFunc(w.messages, func(m message) bool { return m.place == recording || m.place == releasing })
}

func (w *world) cancel(i int, _ outcome) {
	jobs := w.d.Withdraw(string(rune('0' + i)))
	if want := w.messages[i].place == inMemory; (len(jobs) == 1) != want {
		w.fail("message %d: %d jobs were withdrawn, in memory %v", i, len(jobs), want)
	}
	w.messages[i] = message{place: ended}
}

func (w *world) resume(i int, _ outcome) {
	w.relays[i].trouble, w.relays[i].probed = false, false
	w.obey(w.d.Resume(i, w.now))
}

// obey carries out orders.
func (w *world) obey(o Orders) {
	for _, j := range o.Release {
		m := &w.messages[w.index(j)]
		if m.place != inMemory || m.job != j {
			w.fail("message %s is released though it is not in memory", j.ID)
		}
		m.place = releasing
	}
	for n, j := range o.Begin {
		m := &w.messages[w.index(j)]
		if m.place != inMemory || m.job != j {
			w.fail("message %s begins though it is not in memory", j.ID)
		}
		m.place, m.relay, m.tried = inFlight, 0, false
		w.checkTurn(j, o.Begin[n:])
	}
	for _, j := range o.Begin {
		m := &w.messages[w.index(j)]
		if !w.nextRelay(m) { // no relay took it: its lease goes back
			m.place = releasing
			w.obey(w.d.Done(j, w.now))
		}
	}
}

// checkTurn checks that no job in line, nor of those that begin after j, had to
// go before it.
func (w *world) checkTurn(j *Job, rest []*Job) {
	if g := w.d.group(j.Route); !g.sound() && g.active > 1 {
		w.fail("message %s begins beside another, though all its relays are in trouble", j.ID)
	}
	if w.d.inFlight[j] {
		return // by an extra worker
	}
	for i, m := range w.messages {
		if m.place != inMemory || m.job.Route != j.Route || m.job == j || w.lacksMemory(m.job, j) {
			continue
		}
		k := m.job
		later := slices.Contains(rest, k)
		byExtra := later && w.d.inFlight[k]
		switch g := w.d.group(j.Route); {
		case k.Lane.Priority > j.Lane.Priority && g.open(k.Lane.Priority, w.now) && !byExtra:
			w.fail("message %s begins before %d, which is more urgent", j.ID, i)
		case k.Lane == j.Lane && k.Fresh == j.Fresh && !later && m.came < w.messages[w.index(j)].came:
			w.fail("message %s begins before %d, which came earlier", j.ID, i)
		}
	}
}

// lacksMemory says that there was no room for the content of job k when j began.
func (w *world) lacksMemory(k, j *Job) bool {
	used := w.d.loaded
	if !j.Fresh {
		used -= w.d.memoryCost(j.Size)
	}
	g := w.d.group(k.Route)
	cramped := g.cramped != nil && g.cramped.Lane != k.Lane
	return !k.Fresh && (cramped || !w.d.fits(used, w.d.memoryCost(k.Size), false))
}

// check returns what is wrong with a world between two events.
func (w *world) check() string {
	if w.broken != "" {
		return w.broken
	}
	if wrong := w.checkPlaces(); wrong != "" {
		return wrong
	}
	if wrong := w.checkAccounts(); wrong != "" {
		return wrong
	}
	if w.quiet() {
		return w.stranded()
	}
	return ""
}

// checkPlaces checks that the dispatcher has each message where it is, once.
func (w *world) checkPlaces() string {
	lined, flying := map[*Job]int{}, 0
	for _, g := range w.d.groups {
		for _, l := range g.lines {
			for _, j := range slices.Concat(l.fresh, l.claimed) {
				lined[j]++
			}
		}
	}
	for i, m := range w.messages {
		want := 0
		if m.place == inMemory {
			want = 1
		}
		_, flies := w.d.inFlight[m.job]
		if m.job != nil && lined[m.job] != want || flies != (m.place == inFlight) {
			return fmt.Sprintf("message %d is at place %d, in line %d times, in flight %v", i, m.place, lined[m.job], flies)
		}
		if flies {
			flying++
		}
		delete(lined, m.job)
	}
	if len(lined) > 0 || flying != len(w.d.inFlight) {
		return fmt.Sprintf("%d jobs in line and %d in flight are no message's", len(lined), len(w.d.inFlight)-flying)
	}
	return ""
}

// checkAccounts checks what the dispatcher counts.
func (w *world) checkAccounts() string {
	var fresh, loaded int64
	active, extra := map[string]int{}, map[string]int{}
	for _, m := range w.messages {
		if m.job == nil || m.place == claimed || m.place == recording || m.place == releasing {
			continue
		}
		switch cost := w.d.memoryCost(m.job.Size); {
		case m.job.Fresh:
			fresh += cost
		case m.place == inFlight:
			loaded += cost
		}
		if m.place == inFlight {
			active[m.job.Route]++
			if w.d.inFlight[m.job] {
				extra[m.job.Route]++
			}
		}
	}
	if fresh != w.d.fresh || loaded != w.d.loaded {
		return fmt.Sprintf("memory counted as %d and %d, want %d and %d", w.d.fresh, w.d.loaded, fresh, loaded)
	}
	for _, g := range w.d.groups {
		if g.active != active[g.route] || g.extra != extra[g.route] || g.extra > 1 || g.active-g.extra > w.d.opts.Workers {
			return fmt.Sprintf("workers of %s counted as %d and %d, want %d and %d", g.route, g.active, g.extra, active[g.route], extra[g.route])
		}
	}
	return ""
}

// quiet says that nothing goes on by itself: the next event is a look, a new
// message, or none.
func (w *world) quiet() bool {
	return len(w.claims) == 0 && !slices.ContainsFunc(w.messages, func(m message) bool {
		return m.place == storing || m.place == inFlight || m.place == recording || m.place == releasing
	})
}

// stranded names a message that could be given to a relay that would take it, now
// or by itself later, and for which no look at the store is due by then.
func (w *world) stranded() string {
	wake := w.d.Wake()
	for i, m := range w.messages {
		if m.place != waiting && m.place != inMemory {
			continue
		}
		j := w.config.messages[i]
		g := w.d.group(j.Route)
		at := latest(w.now, m.due)
		if !g.open(j.Lane.Priority, at) {
			at = latest(at, g.reopens(j.Lane.Priority))
		}
		if wake.IsZero() || wake.After(at) {
			return fmt.Sprintf("message %d could go out in %v, and the store is looked at in %v", i, at.Sub(w.now), wake.Sub(w.now))
		}
	}
	return ""
}

// clone copies a world, but for its jobs, which do not change.
func (w *world) clone() *world {
	c := *w
	c.d = w.d.clone()
	c.messages, c.claims = slices.Clone(w.messages), slices.Clone(w.claims)
	c.relays = slices.Clone(w.relays)
	return &c
}

func (d *Dispatcher) clone() *Dispatcher {
	c := *d
	c.relays = make([]*health, len(d.relays))
	for i, h := range d.relays {
		twin := *h
		c.relays[i] = &twin
	}
	c.groups = make([]*group, len(d.groups))
	for i, g := range d.groups {
		twin := *g
		twin.relays = make([]*health, len(g.relays))
		for n, h := range g.relays {
			twin.relays[n] = c.relays[slices.Index(d.relays, h)]
		}
		twin.lines = make([]*line, len(g.lines))
		twins := map[*line]*line{}
		for n, l := range g.lines {
			twinLine := *l
			twinLine.fresh, twinLine.claimed = slices.Clone(l.fresh), slices.Clone(l.claimed)
			twin.lines[n], twins[l] = &twinLine, &twinLine
		}
		for at, turns := range g.turns {
			twin.turns[at] = nil
			for _, l := range turns {
				twin.turns[at] = append(twin.turns[at], twins[l])
			}
		}
		twin.cramped = twins[g.cramped]
		c.groups[i] = &twin
	}
	c.inFlight = make(map[*Job]bool, len(d.inFlight))
	for j, extra := range d.inFlight {
		c.inFlight[j] = extra
	}
	return &c
}

// TestStateIsWhole fails when a part of the state has a new field: clone and key
// must know it.
func TestStateIsWhole(t *testing.T) {
	for _, c := range []struct {
		of   any
		want int
	}{{Dispatcher{}, 10}, {group{}, 9}, {line{}, 8}, {health{}, 7}} {
		if n := reflect.TypeOf(c.of).NumField(); n != c.want {
			t.Errorf("%T has %d fields, and clone and key were made for %d", c.of, n, c.want)
		}
	}
}

// key makes the key of a world: alike worlds have the same. Of times it keeps the
// order.
type key struct {
	w     *world
	times []time.Time
	out   []byte
}

func (w *world) key(buffer []byte) []byte {
	k := key{w: w, out: buffer[:0]}
	k.collect()
	k.ints(w.claims...)
	k.bools(w.d.running, w.d.stuck)
	k.time(w.d.wake, false)
	for i, h := range w.d.relays {
		k.ints(min(h.failures, 3))
		k.bools(h.probing)
		k.time(h.pausedUntil, true)
		for _, rests := range h.restsUntil {
			k.time(rests, true)
		}
		k.bools(w.relays[i].trouble, w.relays[i].probed)
	}
	for _, g := range w.d.groups {
		k.group(g)
	}
	for _, m := range w.messages {
		k.ints(int(m.place), m.relay)
		k.bools(m.job == nil, m.final, m.tried, w.d.inFlight[m.job])
		k.time(m.due, false)
	}
	return k.out
}

// collect sorts the times that matter.
func (k *key) collect() {
	k.times = append(k.times, k.w.now, k.w.d.wake)
	for _, h := range k.w.d.relays {
		k.times = append(append(k.times, h.pausedUntil), h.restsUntil[:]...)
	}
	for _, m := range k.w.messages {
		k.times = append(k.times, m.due)
	}
	slices.SortFunc(k.times, time.Time.Compare)
	k.times = slices.CompactFunc(k.times, time.Time.Equal)
}

// time adds the rank of a time. Where past times are all alike, they get one rank.
func (k *key) time(t time.Time, pastIsPast bool) {
	if pastIsPast && !t.After(k.w.now) {
		k.ints(-1)
		return
	}
	now, _ := slices.BinarySearchFunc(k.times, k.w.now, time.Time.Compare)
	n, _ := slices.BinarySearchFunc(k.times, t, time.Time.Compare)
	if t.IsZero() {
		n = now - 100
	}
	k.ints(n - now)
}

func (k *key) group(g *group) {
	for _, lane := range k.w.lanes() {
		l := g.line(lane.Lane)
		k.bools(l.claimedNext, l.backlog, g.cramped == l)
		k.ints(l.room, l.storing, l.inFlight, slices.Index(g.turns[level(l.Priority)], l))
		k.jobs(l.fresh)
		k.jobs(l.claimed)
	}
	k.ints(g.passed[:]...)
	k.ints(g.probes % 12)
}

func (k *key) jobs(jobs []*Job) {
	k.ints(len(jobs))
	for _, j := range jobs {
		k.ints(k.w.index(j))
	}
}

func (k *key) ints(all ...int) {
	for _, n := range all {
		k.out = binary.AppendVarint(k.out, int64(n))
	}
}

func (k *key) bools(all ...bool) {
	for _, b := range all {
		n := byte(0)
		if b {
			n = 1
		}
		k.out = append(k.out, n)
	}
}

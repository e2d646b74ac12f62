package dispatch

import (
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"mailsidecar/mailer"
)

// world is a dispatcher with all that it deals with: a store, a recorder that
// writes to it, a scheduler that reads it, workers, and relays. Each action is
// one event in the life of the queue, and checks what it led to.
type world struct {
	config   *setting
	d        *Dispatcher
	now      time.Time
	messages []message
	claims   []int // the messages that the scheduler has claimed, and the dispatcher does not know of
	relays   []relay
	useful   []int  // deliveries at a time that are of use, by relay; zero: no limit
	arrivals int    // how many jobs came into memory
	wrong    string // what an action found
}

// setting is what a search varies.
type setting struct {
	name     string
	options  Options
	routes   map[string][]int
	messages []Job           // without Fresh
	useful   []int           // at first, by relay; zero: no limit
	grown    int             // how many a relay can make use of later, without an event
	lives    []time.Duration // how long a message does; zero: long
	outcomes []outcome       // what a relay may say
	failing  bool            // the store may fail to write
	begun    bool            // all messages are in memory at first
	commands bool            // relays may be resumed and messages canceled
	operator bool            // a person may pause relays, for a while or without an end
}

// message is one message and where it is.
type message struct {
	place place
	job   *Job      // leased work in memory, from storing to recording
	due   time.Time // when it may be tried, once it waits
	final bool      // what will be recorded
	order []int     // in flight: the relays that may have it
	relay int       // in flight: the relay that has it, as an index into its order
	tried bool      // in flight: a relay was asked
	probe bool      // in flight: the relay was in trouble when it got it
	since time.Time // in flight: when the relay got it
	came  int       // in memory: its number among all jobs that came there

	expires time.Time
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
	// row are the different messages that met what may be about them or the relay,
	// since it took mail last, and rows those of each reverse-path since it took mail
	// of that.
	row   []met
	rows  map[string][]met
	rests [levels]time.Time
	held  time.Time // until when a person keeps mail from it
	// quota says that the last trouble was a quota: no pause ends by anything but a probe
	// that gets further. moved says that it had other trouble then.
	quota, moved bool
	// taken are the messages that it took mail of, and met has how many there were when a
	// message met the quota last.
	taken []int
	met   map[int]int
}

// met is a message that met such a failure.
type met struct {
	message int
	broken  bool
}

// add adds a message to a row once. The row may be shared.
func add(row []met, m met) []met {
	if slices.ContainsFunc(row, func(o met) bool { return o.message == m.message }) {
		return row
	}
	return append(slices.Clone(row), m)
}

type outcome byte

const (
	delivered outcome = iota
	deferred
	inTrouble
	ratedOut
	refused // at MAIL
	broken  // the connection
	alike   // unrelated messages, with the same words
	quota   // at the content, until ten minutes later
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
	w.useful = slices.Clone(s.useful)
	w.prepare()
	w.obey(w.d.Start(w.now))
	if s.begun {
		for i := range w.messages {
			w.reserve(i, 0)
			w.stored(i, 0)
		}
	}
	return w
}

// prepare tells the dispatcher the facts that it cannot ask for, before an event.
func (w *world) prepare() {
	for i, n := range w.useful {
		w.d.Useful(i, n)
	}
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
		return fmt.Sprintf("report %d %s", a.about, [...]string{"delivered", "deferred", "in trouble", "rated out", "refused", "broken", "alike", "quota"}[a.outcome])
	}
	return fmt.Sprintf("%s %d", a.name, a.about)
}

// actions adds the events that may come next to all.
func (w *world) actions(all []action) []action {
	add := func(name string, about int, do func(*world, int, outcome)) {
		all = append(all, action{name, about, 0, do})
	}
	if j := w.d.suspects.alone; j != nil {
		add("harmless", w.index(j), (*world).harmless)
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
	for i, r := range w.relays {
		if !w.config.operator {
			break
		}
		if r.held.After(w.now) {
			add("let go", i, (*world).letGo)
		} else {
			add("hold", i, (*world).hold)
			add("hold for a while", i, (*world).holdForAWhile)
		}
	}
	for i, n := range w.useful {
		if n < w.config.grown {
			add("grow", i, (*world).grow)
		}
	}
	return all
}

func (w *world) pass(int, outcome) { w.now = w.nextDeadline() }

func (w *world) grow(relay int, _ outcome) { w.useful[relay]++ }

// harmless is when a suspect has been in flight for a while.
func (w *world) harmless(i int, _ outcome) { w.obey(w.d.Harmless(w.messages[i].job, w.now)) }

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
	for i, h := range w.d.relays {
		if held := w.relays[i].held; held.Before(Never) {
			soonest(held)
		}
		soonest(h.pause.opens())
		for _, s := range h.blame.senders {
			soonest(s.pause.opens())
		}
		for _, rests := range h.restsUntil {
			soonest(rests)
		}
	}
	for _, m := range w.messages {
		if m.place == waiting {
			soonest(m.due)
		}
		if m.place == waiting || m.place == inMemory {
			soonest(m.expires)
		}
	}
	return next
}

func (w *world) fail(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
	}
}

func (w *world) index(j *Job) int { return int(j.ID[0] - '0') }

func (w *world) newJob(i int, fresh bool) *Job {
	j := w.config.messages[i]
	j.ID, j.Fresh, j.Expires = string(rune('0'+i)), fresh, w.messages[i].expires
	j.Alone = j.Alone && !fresh // what has just been accepted is no suspect
	return &j
}

func (w *world) life(i int) time.Duration {
	if len(w.config.lives) > i && w.config.lives[i] > 0 {
		return w.config.lives[i]
	}
	return 100 * time.Hour
}

func (w *world) reserve(i int, _ outcome) {
	w.messages[i] = message{place: storing, due: w.now, expires: w.now.Add(w.life(i))}
	j := w.newJob(i, true)
	w.messages[i].job = j
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
	w.d.Waits(j.Route, j.Lane, m.due, m.expires, w.now)
}

func (w *world) notStored(i int, _ outcome) {
	if j := w.messages[i].job; j != nil {
		w.d.NotStored([]*Job{j})
	}
	w.messages[i] = message{}
}

// look wakes the dispatcher. When that says so it reads the store, and claims.
func (w *world) look(int, outcome) {
	look, o := w.d.Tick(w.now)
	w.obey(o)
	if !look {
		return
	}
	expire := w.d.Look(w.now)
	var store Waiting
	for i := range w.messages {
		m := &w.messages[i]
		if expire && m.place == waiting && !w.now.Before(m.expires) {
			m.place = ended
		}
		if m.place == waiting && m.expires.After(w.now) {
			store.Expiry = earliest(store.Expiry, m.expires)
		}
	}
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
	r := m.order[m.relay]
	model := &w.relays[r]
	probe := w.d.relays[r].pause.probedBy(m.job)
	n := w.index(m.job)
	ofMessage := o == quota && w.refusedBefore(model, n)
	model.met = maps.Clone(model.met)
	if model.met == nil {
		model.met = map[int]int{}
	}
	switch o {
	case quota:
		model.met[n] = len(model.taken)
	case inTrouble, ratedOut:
	default:
		delete(model.met, n)
	}
	if o == delivered {
		model.taken = append(slices.Clone(model.taken), n)
	}
	m.probe = false
	switch o {
	case delivered, deferred:
		alike := w.d.relays[r].resting() && isAlike(w.d.relays[r].reason)
		if o == delivered && (probe || !model.quota) || o == deferred && !model.quota && !alike {
			w.well(r)
		}
		w.relays[r].rows = maps.Clone(w.relays[r].rows)
		delete(w.relays[r].rows, m.job.ReversePath)
	case inTrouble, refused, broken, alike:
		model.moved = model.moved || model.quota && probe
		model.quota = model.quota && !probe
	case quota:
		if ofMessage {
			break
		}
		model.quota, model.moved = model.quota || !model.trouble || probe || w.d.relays[r].pause.until.Before(w.now.Add(10*time.Minute)), false
	case ratedOut:
		until := w.now.Add(10 * time.Second)
		for at := level(m.job.Lane.Priority); at < levels; at++ {
			model.rests[at] = until
		}
	}
	if o == refused || o == broken || o == alike {
		i := met{w.index(m.job), o == broken}
		model.row = add(model.row, i)
		model.rows = maps.Clone(model.rows)
		if model.rows == nil {
			model.rows = map[string][]met{}
		}
		model.rows[m.job.ReversePath] = add(model.rows[m.job.ReversePath], i)
	}
	orders := w.d.Report(r, m.job, attempt(o, w.now), w.now, 0.5)
	if orders.OfMessage != ofMessage {
		w.fail("message %d met a quota, and it is its own: %v, want %v", n, orders.OfMessage, ofMessage)
	}
	w.obey(orders)
	model.trouble = w.d.relays[r].pause.failures > 0
	model.until = w.d.relays[r].pause.until
	m.tried = m.tried || o != ratedOut
	if probe && o == quota && !ofMessage && w.now.Add(9*time.Minute).After(model.until) {
		w.fail("relay %d has no quota for ten minutes, and is asked in %v", r, model.until.Sub(w.now))
	}
	if model.quota && !model.trouble {
		w.fail("relay %d has no quota, and is not paused", r)
	}
	if o >= inTrouble {
		if m.relay++; w.nextRelay(m) {
			return
		}
	}
	switch {
	case !m.tried:
		m.place = releasing
	default:
		m.place, m.final, m.due = recording, o == delivered, w.now
		if o == deferred || o >= refused && o != quota || ofMessage {
			m.due = w.now.Add(time.Minute)
		}
	}
	w.obey(w.d.Done(m.job, w.now))
}

// refusedBefore says that a message, one to its recipient or one of its reverse-path met
// the quota before, and that mail was taken since, but none of the same.
func (w *world) refusedBefore(r *relay, n int) bool {
	job := func(i int) *Job { return &w.config.messages[i] }
	sharesTo := func(i, k int) bool {
		return slices.ContainsFunc(job(i).Recipients, func(to string) bool { return slices.Contains(job(k).Recipients, to) })
	}
	for m, at := range r.met {
		since := r.taken[at:]
		if len(since) == 0 {
			continue
		}
		sameFrom := slices.ContainsFunc(since, func(k int) bool { return job(k).ReversePath == job(m).ReversePath })
		sameTo := slices.ContainsFunc(since, func(k int) bool { return sharesTo(m, k) })
		if m == n || job(m).ReversePath == job(n).ReversePath && !sameFrom || sharesTo(m, n) && !sameTo {
			return true
		}
	}
	return false
}

func attempt(o outcome, now time.Time) mailer.Attempt {
	var f *mailer.Failure
	switch o {
	case delivered:
	case deferred:
		f = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt, Reply: mailer.Reply{Code: 450}}
	case inTrouble:
		f = &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect}
	case refused:
		f = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Reply: mailer.Reply{Code: 501}}
	case broken:
		f = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageRcpt}
	case alike:
		f = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageContent, Reply: mailer.Reply{Code: 550}, Err: mailer.ErrRefusesMany}
	case quota:
		f = &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageContent, Reply: mailer.Reply{Code: 550}, Until: now.Add(10 * time.Minute)}
	case ratedOut:
		f = &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Err: &mailer.RateError{At: now.Add(10 * time.Second)}}
	}
	return mailer.Attempt{Results: []mailer.Result{{Failure: f}}}
}

// nextRelay gives a message in flight to the next relay that takes it, and says
// whether there is one.
func (w *world) nextRelay(m *message) bool {
	relays, p := m.order, m.job.Lane.Priority
	for ; m.relay < len(relays); m.relay++ {
		r := relays[m.relay]
		opens := latest(w.opens(r, p), w.d.relays[r].blame.opens(m.job))
		if w.d.relays[r].promised(m.job) {
			opens = latest(w.now, w.relays[r].held) // it was checked when it began, but for a person's pause
		}
		taken, o := w.d.Take(r, m.job, w.now)
		if !taken {
			continue
		}
		if w.now.Before(opens) {
			w.fail("relay %d was given a message %v too early", r, opens.Sub(w.now))
		}
		m.probe, m.since = w.relays[r].trouble, w.now
		w.obey(o)
		return true
	}
	return false
}

// opens is when a message of priority p may be given to a relay.
func (w *world) opens(r int, p mailer.Priority) time.Time {
	model := &w.relays[r]
	opens := latest(model.rests[level(p)], model.held)
	if !model.trouble {
		return opens
	}
	probes, last := 0, time.Time{}
	for _, m := range w.messages {
		if w.at(m, r) && m.probe {
			probes, last = probes+1, latest(last, m.since)
		}
	}
	if probes > 0 {
		opens = latest(opens, last.Add(probePatience.Delay(probes, 0.5)))
	}
	return latest(opens, model.until)
}

// at says whether a relay has a message in hand.
func (w *world) at(m message, r int) bool {
	return m.place == inFlight && m.relay < len(m.order) && m.order[m.relay] == r && !m.since.IsZero()
}

// well notes that a relay is in no trouble.
func (w *world) well(r int) {
	w.relays[r].trouble, w.relays[r].row, w.relays[r].quota, w.relays[r].moved = false, nil, false, false
	for i := range w.messages {
		if w.at(w.messages[i], r) {
			w.messages[i].probe = false
		}
	}
}

// write lets the recorder write all that there is.
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
	if !w.d.relays[i].refusesMail() {
		w.well(i)
	}
	w.obey(w.d.Resume(i, w.now))
	w.relays[i].until = w.d.relays[i].pause.until
}

func (w *world) hold(i int, _ outcome)          { w.holdUntil(i, time.Time{}) }
func (w *world) holdForAWhile(i int, _ outcome) { w.holdUntil(i, w.now.Add(30*time.Second)) }

// holdUntil pauses a relay as a person does; a zero time means no end.
func (w *world) holdUntil(i int, until time.Time) {
	p := ManualPause{Relay: w.config.options.Relays[i], Since: w.now, Until: until}
	w.relays[i].held = p.Opens()
	w.obey(w.d.Pause(i, p, w.now))
}

func (w *world) letGo(i int, _ outcome) {
	w.relays[i].held = time.Time{}
	w.obey(w.d.EndPause(i, w.now))
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
	for _, p := range o.Postpone {
		m := &w.messages[w.index(p.Job)]
		if m.place != inMemory || m.job != p.Job || !p.Until.After(w.now) {
			w.fail("message %s is postponed though it is not in memory, or to the past", p.Job.ID)
		}
		m.place, m.final, m.due = recording, false, p.Until
	}
	for _, j := range o.Expired {
		m := &w.messages[w.index(j)]
		if m.place != inMemory || m.job != j || w.now.Before(m.expires) {
			w.fail("message %s expires though it is not in memory, or early", j.ID)
		}
		m.place, m.final = recording, true
	}
	for n, j := range o.Begin {
		m := &w.messages[w.index(j)]
		if m.place != inMemory || m.job != j {
			w.fail("message %s begins though it is not in memory", j.ID)
		}
		m.place, m.relay, m.tried, m.probe, m.since = inFlight, 0, false, false, time.Time{}
		m.order, _ = w.d.Chosen(j)
		if at := w.d.relays[m.order[0]]; at != w.d.inFlight[j].at || len(m.order) != len(w.config.routes[j.Route]) {
			w.fail("message %s is to go to the relays %v", j.ID, m.order)
		}
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
	if f := w.d.inFlight[j]; f.extra || f.probe || j.Alone {
		return // it takes no worker from others
	}
	for i, m := range w.messages {
		if m.place != inMemory || m.job.Route != j.Route || m.job == j || m.job.Alone || w.lacksMemory(m.job, j) {
			continue
		}
		k := m.job
		later := slices.Contains(rest, k)
		byExtra := later && w.d.inFlight[k].extra
		switch g := w.d.group(j.Route); {
		case k.Lane.Priority > j.Lane.Priority && g.relayFor(k, w.now) == w.d.inFlight[j].at && !byExtra:
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
	if w.wrong != "" {
		return w.wrong
	}
	if wrong := w.checkPlaces(); wrong != "" {
		return wrong
	}
	if wrong := w.checkAccounts(); wrong != "" {
		return wrong
	}
	if wrong := w.checkBlame(); wrong != "" {
		return wrong
	}
	if w.quiet() {
		return w.stranded()
	}
	return ""
}

// checkBlame checks that no reverse-path and no relay rests for less than there must
// be for it: no message waits because of what others met, else.
func (w *world) checkBlame() string {
	least := 3
	if slices.Contains(w.config.outcomes, alike) {
		least = 2
	}
	for i, h := range w.d.relays {
		model := &w.relays[i]
		for _, s := range h.blame.senders {
			if n := len(model.rows[s.reversePath]); s.pause.failures > 0 && n < least {
				return fmt.Sprintf("%s rests at relay %d because of %d messages", s.reversePath, i, n)
			}
		}
		several, breaks := false, 0
		for _, m := range model.row {
			several = several || w.config.messages[m.message].ReversePath != w.config.messages[model.row[0].message].ReversePath
			if m.broken {
				breaks++
			}
		}
		if h.resting() && !model.moved && (len(model.row) < least || !several && breaks < 3) {
			return fmt.Sprintf("relay %d rests because of %v", i, model.row)
		}
	}
	return ""
}

// checkPlaces checks that the dispatcher has each message where it is, once.
func (w *world) checkPlaces() string {
	lined, flying := map[*Job]int{}, 0
	for _, j := range w.d.suspects.waiting {
		lined[j]++
	}
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
	loads := map[*load]load{}
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
			f := w.d.inFlight[m.job]
			l := w.d.group(m.job.Route).load(f.at)
			is := loads[l]
			if !f.probe {
				is.active++
			}
			if f.extra && !f.probe {
				is.extra++
			}
			loads[l] = is
		}
	}
	if fresh != w.d.fresh || loaded != w.d.loaded {
		return fmt.Sprintf("memory counted as %d and %d, want %d and %d", w.d.fresh, w.d.loaded, fresh, loaded)
	}
	for _, g := range w.d.groups {
		for i := range g.loads {
			if l := &g.loads[i]; *l != loads[l] {
				return fmt.Sprintf("workers of %s at relay %d counted as %v, want %v", g.route, i, *l, loads[l])
			}
		}
	}
	return ""
}

// quiet says that nothing goes on by itself: the next event is a look, a new
// message, or none. Deliveries may hang for ever, and so are nothing that goes on.
func (w *world) quiet() bool {
	return w.d.suspects.alone == nil && len(w.claims) == 0 && !slices.ContainsFunc(w.messages, func(m message) bool {
		return m.place == storing || m.place == recording || m.place == releasing
	})
}

// stranded names a message that could be given to a relay that would take it, now
// or by itself later, while the dispatcher sleeps on. Those in hand hang.
func (w *world) stranded() string {
	wake := w.d.Wake()
	late := func(at time.Time) bool { return wake.IsZero() || wake.After(at) }
	for i, m := range w.messages {
		if m.place != waiting && m.place != inMemory {
			continue
		}
		if late(latest(w.now, m.expires)) {
			return fmt.Sprintf("message %d expires in %v, and the dispatcher is woken in %v", i, m.expires.Sub(w.now), wake.Sub(w.now))
		}
		j := w.config.messages[i]
		at, takes := w.takenAt(&j, latest(w.now, m.due))
		if !takes || !at.Before(Never) || w.full(&j, m.place) {
			continue
		}
		if len(w.useful) > 0 {
			at = latest(at, w.now.Add(growthInterval))
		}
		if s := w.d.suspects; j.Alone || s.stopped() {
			at = latest(at, latest(latest(w.now, s.until), s.since).Add(AloneTime))
		}
		if late(at) {
			return fmt.Sprintf("message %d could go out in %v, and the dispatcher is woken in %v", i, at.Sub(w.now), wake.Sub(w.now))
		}
	}
	return ""
}

// takenAt is when a relay could first be given a message that is due then, while those in
// hand hang. One with a weight may have it as soon as it is open; one without only while
// none before it is, busy or not: those with a weight, and then those in front of it.
func (w *world) takenAt(j *Job, due time.Time) (at time.Time, takes bool) {
	var before []time.Time // when those before it open
	for _, weighted := range []bool{true, false} {
		for _, r := range w.config.routes[j.Route] {
			if (w.config.weight(r) > 0) != weighted {
				continue
			}
			opens := latest(due, latest(w.opens(r, j.Lane.Priority), w.d.relays[r].blame.opens(j)))
			preferred := weighted || !slices.ContainsFunc(before, func(other time.Time) bool { return !other.After(opens) })
			before = append(before, opens)
			if preferred && w.slot(*j, r) {
				at, takes = earliest(at, opens), true
			}
		}
	}
	return at, takes
}

// weight is a relay's share.
func (s *setting) weight(relay int) int {
	if len(s.options.Weights) == 0 {
		return 0
	}
	return s.options.Weights[relay]
}

// slot says whether a relay has a worker for a message, while those in hand hang.
func (w *world) slot(j Job, r int) bool {
	if w.relays[r].trouble {
		return true // for a probe
	}
	limit, n := w.config.options.Workers, 0
	if len(w.useful) > 0 {
		limit = min(limit, w.useful[r])
	}
	for _, m := range w.messages {
		if f := w.d.inFlight[m.job]; w.at(m, r) && m.job.Route == j.Route && !f.extra && !f.probe {
			n++
		}
	}
	return n < limit
}

// full says whether there is no room for the content of a message, or for that of
// one that was claimed before it.
func (w *world) full(j *Job, p place) bool {
	g := w.d.group(j.Route)
	claimed := len(g.line(j.Lane).claimed) > 0
	switch {
	case p == waiting && claimed:
		return true
	case p == inMemory && !claimed: // it has come with its content
		return false
	}
	return !w.d.fits(w.d.loaded, w.d.memoryCost(j.Size), false)
}

// clone copies a world, but for its jobs, which do not change.
func (w *world) clone() *world {
	c := *w
	c.d = w.d.clone()
	c.messages, c.claims = slices.Clone(w.messages), slices.Clone(w.claims)
	c.relays, c.useful = slices.Clone(w.relays), slices.Clone(w.useful)
	return &c
}

func (d *Dispatcher) clone() *Dispatcher {
	c := *d
	c.suspects.waiting = slices.Clone(d.suspects.waiting)
	c.relays = make([]*health, len(d.relays))
	for i, h := range d.relays {
		twin := *h
		twin.pause.probes = slices.Clone(h.pause.probes)
		twin.blame.met, twin.blame.row = slices.Clone(h.blame.met), slices.Clone(h.blame.row)
		twin.blame.senders = maps.Clone(h.blame.senders)
		for path, s := range h.blame.senders {
			twinSender := *s
			twinSender.row, twinSender.pause.probes = slices.Clone(s.row), slices.Clone(s.pause.probes)
			twin.blame.senders[path] = &twinSender
		}
		c.relays[i] = &twin
	}
	c.groups = make([]*group, len(d.groups))
	for i, g := range d.groups {
		twin := *g
		twin.relays = make([]*health, len(g.relays))
		for n, h := range g.relays {
			twin.relays[n] = c.relays[slices.Index(d.relays, h)]
		}
		twin.loads, twin.shares.credit = slices.Clone(g.loads), slices.Clone(g.shares.credit)
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
	c.inFlight = make(map[*Job]flight, len(d.inFlight))
	for j, f := range d.inFlight {
		f.at = c.relays[slices.Index(d.relays, f.at)]
		c.inFlight[j] = f
	}
	return &c
}

// TestStateIsWhole fails when a part of the state has a new field: clone and key
// must know it.
func TestStateIsWhole(t *testing.T) {
	for _, c := range []struct {
		of   any
		want int
	}{{Dispatcher{}, 12}, {suspects{}, 4}, {group{}, 9}, {Shares{}, 2}, {line{}, 8}, {health{}, 10}, {pause{}, 5}, {flight{}, 4}, {blame{}, 5}, {sender{}, 9}, {meeting{}, 7}} {
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
	k.ints(w.useful...)
	k.time(w.d.wake, false)
	k.time(w.d.tick, false)
	k.time(w.d.expiry, false)
	k.jobs(w.d.suspects.waiting)
	k.bools(w.d.suspects.alone == nil)
	if j := w.d.suspects.alone; j != nil {
		k.ints(w.index(j))
	}
	k.time(w.d.suspects.since, false)
	k.time(w.d.suspects.harmless(), true)
	k.time(w.d.suspects.until, true)
	for i, h := range w.d.relays { // but not since when: nothing follows from that
		k.ints(min(h.pause.failures, 3), h.useful, len(h.pause.probes))
		k.time(h.pause.until, true)
		k.time(h.pause.cut, true)
		for _, p := range h.pause.probes {
			k.ints(w.index(p.job))
			k.time(p.since, false)
		}
		k.time(h.pause.opens(), true)
		k.time(h.manual.Opens(), true)
		for _, rests := range h.restsUntil {
			k.time(rests, true)
		}
		k.bools(w.relays[i].trouble, w.relays[i].quota, w.relays[i].moved, h.severalKeys, h.key == nil, h.refusesMail(), h.resting())
		k.blame(&h.blame)
		for _, m := range h.blame.met {
			k.bools(m.all.message <= h.taken, m.all.to <= h.taken, m.all.from <= h.taken)
		}
	}
	for _, g := range w.d.groups {
		k.group(g)
	}
	for _, m := range w.messages {
		k.ints(int(m.place), m.relay)
		k.ints(m.order...)
		f := w.d.inFlight[m.job]
		k.bools(m.job == nil, m.final, m.tried, m.probe, f.extra, f.probe)
		k.ints(slices.Index(w.d.relays, f.at))
		k.time(m.due, false)
		k.time(m.expires, true)
	}
	return k.out
}

// collect sorts the times that matter.
func (k *key) collect() {
	k.times = append(k.times, k.w.now, k.w.d.wake, k.w.d.tick, k.w.d.expiry)
	k.times = append(k.times, k.w.d.suspects.since, k.w.d.suspects.harmless(), k.w.d.suspects.until)
	for _, h := range k.w.d.relays {
		k.times = append(append(k.times, h.pause.until, h.pause.cut, h.pause.opens(), h.manual.Opens()), h.restsUntil[:]...)
		for _, p := range h.pause.probes {
			k.times = append(k.times, p.since)
		}
		for _, s := range h.blame.senders {
			k.times = append(k.times, s.pause.until, s.pause.cut, s.slot, s.pause.opens())
			for _, p := range s.pause.probes {
				k.times = append(k.times, p.since)
			}
		}
	}
	for _, m := range k.w.messages {
		k.times = append(k.times, m.due, m.expires)
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

// blame adds what is held against messages. The model's rows say no less.
func (k *key) blame(b *blame) {
	k.ints(len(b.met), len(b.row), len(b.senders), b.resting)
	for _, m := range slices.Concat(b.met, b.row) {
		k.ints(int(m.id[0]))
		k.bools(m.broken, m.alike, m.all.message == 0, m.all.to == 0, m.all.from == 0)
	}
	for _, path := range slices.Sorted(maps.Keys(b.senders)) {
		s := b.senders[path]
		k.ints(len(s.reversePath), len(s.row), min(s.pause.failures, 3), s.postponed%restBatch, len(s.pause.probes), len(s.key))
		k.bools(s.severalKeys, isAlike(s.reason))
		for _, id := range s.row {
			k.ints(int(id[0]))
		}
		k.time(s.pause.until, true)
		k.time(s.pause.cut, true)
		k.time(s.slot, true)
		k.time(s.pause.opens(), true)
		for _, p := range s.pause.probes {
			k.ints(k.w.index(p.job))
			k.time(p.since, false)
		}
	}
}

func (k *key) group(g *group) {
	for _, lane := range k.w.lanes() {
		l := g.line(lane.Lane)
		k.bools(l.claimedNext, l.backlog, g.cramped == l)
		k.ints(l.share, l.storing, l.inFlight, slices.Index(g.turns[level(l.Priority)], l))
		k.jobs(l.fresh)
		k.jobs(l.claimed)
	}
	k.ints(g.shares.credit...)
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

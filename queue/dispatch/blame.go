package dispatch

import (
	"slices"
	"time"

	"mailsidecar/mailer"
)

// A relay that refuses MAIL with 500–504, 530 or 555, or lets the connection break
// in the transaction, may mean the message, its reverse-path or all mail (see
// [mailer.Failure.Scope]). What else it does tells which:
//
//   - One message meets it: it is tried again on its own schedule, and holds up no
//     other.
//   - Three different messages of one reverse-path meet it in a row, without a
//     success of that reverse-path: the reverse-path rests at this relay.
//   - Three different messages of several reverse-paths meet it in a row, or the
//     connection breaks over three different messages in a row, without a success at
//     this relay: the relay rests.
//
// A message that met it before is no new evidence. A rest lasts 1, 2, 4 and then
// 5 s; five minutes once 20 different messages have met it. After each one message
// goes through as a probe: one that has not met it if there is one, first of a
// reverse-path that has not, then to recipients that were in none which has, then
// of an API key that has not. One success ends the rest.
const (
	// blameAfter is how many different messages in a row it takes.
	blameAfter = 3
	// quickRests is how many different messages meet it before rests get long.
	quickRests = 20
	// longRest is how long a rest lasts after that.
	longRest = 5 * time.Minute
	// maxMet and maxSenders limit what is remembered of a relay: messages that met
	// it, and reverse-paths whose messages did. What met it least recently is
	// forgotten.
	maxMet, maxSenders = 100, 100
	// maxMetTo limits the recipients that are remembered of a message.
	maxMetTo = 4
)

// shortRest is how long a rest lasts at first.
var shortRest = Backoff{First: time.Second, Longest: 5 * time.Second}

func restDelay(rests, different int, random float64) time.Duration {
	if different >= quickRests {
		return longRest + time.Duration(random*float64(longRest/8)).Truncate(time.Microsecond)
	}
	return shortRest.Delay(rests, random)
}

// blame is what a relay has against single messages and reverse-paths.
type blame struct {
	met     []meeting          // messages that met it, the latest last
	row     []meeting          // different ones since the last success at the relay
	senders map[string]*sender // by reverse-path: those whose messages met it since their last success
	resting int                // of those, how many rest
	meets   int                // how often a message met it
}

// meeting is a message that met a failure of the kind above.
type meeting struct {
	id, reversePath string
	key             string   // name of the API key
	to              []string // the first of its recipients
	broken          bool     // the connection broke
}

// sender is a reverse-path at a relay.
type sender struct {
	reversePath string
	row         []string // the different messages that met it since its last success
	pause       pause
	reason      *mailer.Failure // of the last of them
	lastMet     int             // when, by the count of blame.meets
	// postponed is how many messages were postponed since the rest began, and slot
	// when the next ones are due.
	postponed int
	slot      time.Time
}

// sender returns what is held against a reverse-path; nil when nothing is.
func (b *blame) sender(reversePath string) *sender { return b.senders[reversePath] }

// add returns what is held against a reverse-path, which meets it. Where there are
// too many it forgets the one that met it least recently.
func (b *blame) add(reversePath string) *sender {
	s := b.senders[reversePath]
	if s == nil {
		s = &sender{reversePath: reversePath}
		if b.senders == nil {
			b.senders = map[string]*sender{}
		}
		b.senders[reversePath] = s
	}
	b.meets++
	s.lastMet = b.meets
	if len(b.senders) > maxSenders {
		oldest := s
		for _, other := range b.senders {
			if other.lastMet < oldest.lastMet {
				oldest = other
			}
		}
		b.remove(oldest.reversePath)
	}
	return s
}

// remove forgets what is held against a reverse-path, and says whether that rested.
func (b *blame) remove(reversePath string) (rested bool) {
	s := b.senders[reversePath]
	delete(b.senders, reversePath)
	if rested = s != nil && s.pause.failures > 0; rested {
		b.resting--
	}
	return rested
}

// opens is when a message of the reverse-path may go; zero when it does not rest.
func (b *blame) opens(reversePath string) time.Time {
	if s := b.sender(reversePath); s != nil {
		return s.pause.opens()
	}
	return time.Time{}
}

// begin notes that a delivery goes through, and says whether it is a probe of its
// reverse-path.
func (b *blame) begin(j *Job, now time.Time) bool {
	s := b.sender(j.ReversePath)
	return s != nil && s.pause.begin(j, now)
}

// end notes that a delivery is over, and says whether it was a probe of its
// reverse-path.
func (b *blame) end(j *Job) bool {
	s := b.sender(j.ReversePath)
	return s != nil && s.pause.end(j)
}

func (b *blame) knows(id string) bool {
	return slices.ContainsFunc(b.met, func(m meeting) bool { return m.id == id })
}

// meet notes that a job met it, and says whether that is new evidence.
func (b *blame) meet(j *Job, broken bool) (m meeting, isNew bool) {
	m = meeting{j.ID, j.ReversePath, j.Lane.Key, slices.Clone(j.Recipients[:min(len(j.Recipients), maxMetTo)]), broken}
	known := len(b.met)
	b.met = slices.DeleteFunc(b.met, func(m meeting) bool { return m.id == j.ID })
	isNew = known == len(b.met)
	b.met = append(b.met, m)
	b.met = b.met[max(0, len(b.met)-maxMet):]
	return m, isNew
}

// forgive notes that the relay took a job's mail, or judged it. freed says that this
// ends a rest of the reverse-path.
func (b *blame) forgive(j *Job) (freed bool) {
	b.met = slices.DeleteFunc(b.met, func(m meeting) bool { return m.id == j.ID })
	return b.remove(j.ReversePath)
}

// count adds a message to the row.
func (b *blame) count(m meeting) {
	if len(b.row) < quickRests && !slices.ContainsFunc(b.row, func(o meeting) bool { return o.id == m.id }) {
		b.row = append(b.row, m)
	}
}

// many says whether the row is about the relay.
func (b *blame) many() bool {
	broken, several := 0, false
	for _, m := range b.row {
		several = several || m.reversePath != b.row[0].reversePath
		if m.broken {
			broken++
		}
	}
	return broken >= blameAfter || several && len(b.row) >= blameAfter
}

// count adds a message to the row of its reverse-path.
func (s *sender) count(id string) {
	if len(s.row) < quickRests && !slices.Contains(s.row, id) {
		s.row = append(s.row, id)
	}
}

// blamed notes that a job met a failure that may be about more than it. probe and
// senderProbe say that other mail waits for this.
func (h *health) blamed(j *Job, f *mailer.Failure, probe, senderProbe bool, now time.Time, random float64) (v verdict) {
	if probe && !h.resting() {
		// It got as far as MAIL: what the relay was paused for is over.
		v.resumed = true
		h.resume()
		probe = false
	}
	m, isNew := h.blame.meet(j, f.Scope() == mailer.ScopeConnection)
	s := h.blame.add(j.ReversePath)
	s.reason = f
	if isNew || senderProbe {
		s.count(j.ID)
	}
	if isNew || probe {
		h.blame.count(m)
	}
	switch {
	case senderProbe, s.pause.failures == 0 && len(s.row) >= blameAfter:
		v.senderRests = true
		h.blame.rest(s, now.Add(restDelay(s.pause.failures+1, len(s.row), random)))
	}
	switch {
	case probe, h.pause.failures == 0 && h.blame.many():
		v.paused = true
		h.reason = f
		h.pause.extend(now.Add(restDelay(h.pause.failures+1, len(h.blame.row), random)))
		h.blame.outlast(h.pause.until)
	}
	return v
}

// resting says whether the relay is paused because of what messages met.
func (h *health) resting() bool { return h.pause.failures > 0 && h.reason.Scope() != mailer.ScopeRelay }

// rest makes a reverse-path rest until then.
func (b *blame) rest(s *sender, until time.Time) {
	if s.pause.failures == 0 {
		b.resting++
	}
	s.pause.extend(until)
	s.postponed, s.slot = 0, until
}

// restsLonger is how much longer a reverse-path rests than its relay: the first
// probes of that are of others.
const restsLonger = 250 * time.Millisecond

// outlast makes the reverse-paths that rest do so for longer than their relay.
func (b *blame) outlast(until time.Time) {
	for _, s := range b.senders {
		if s.pause.failures > 0 {
			s.pause.until = latest(s.pause.until, until.Add(restsLonger))
			s.slot = latest(s.slot, s.pause.until)
		}
	}
}

// What rests is claimed from the store all the same, for the store does not know.
// It is given a time at which it is due again, so that it is not in the way of other
// mail in its lane: so many at a time, in a pace that limits what is claimed in vain.
const (
	restBatch = 16
	restPace  = 160 * time.Millisecond // 100 messages a second
	// restProbing is when to look again while a probe is under way.
	restProbing = time.Second
)

// postpone returns when a message of a reverse-path that rests is due again.
func (b *blame) postpone(reversePath string, now time.Time) time.Time {
	s := b.sender(reversePath)
	until := s.pause.opens()
	if len(s.pause.probes) > 0 {
		if soon := latest(s.pause.until, now.Add(restProbing)); soon.Before(until) {
			until = soon
		}
	}
	s.slot = latest(s.slot, until)
	at := s.slot
	if s.postponed++; s.postponed%restBatch == 0 {
		s.slot = s.slot.Add(time.Duration(b.resting) * restPace)
	}
	return at
}

// suitsBest is what suits returns for a job that no other suits better.
const suitsBest = 15

// suits says how well a job suits as a probe.
func (b *blame) suits(j *Job) int {
	score := 0
	if !b.knows(j.ID) {
		score += 8
	}
	if b.sender(j.ReversePath) == nil {
		score += 4
	}
	if !slices.ContainsFunc(b.met, func(m meeting) bool { return m.key == j.Lane.Key }) {
		score++
	}
	if !slices.ContainsFunc(b.met, func(m meeting) bool {
		return slices.ContainsFunc(m.to, func(to string) bool { return slices.Contains(j.Recipients, to) })
	}) {
		score += 2
	}
	return score
}

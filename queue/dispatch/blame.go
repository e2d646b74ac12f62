package dispatch

import (
	"errors"
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
// The same goes for a relay that has refused unrelated messages with the same words
// ([mailer.ErrRefusesMany]), with these differences: two messages are enough, because
// there was a first one, which has bounced; the relay rests only where the messages are
// of several API keys, unless it has mail of one key only; a reverse-path rests for the
// only key whose messages met it, and for all once another key's has; and rests last longer. A
// refusal that is about the sender alone ([mailer.ErrSenderRefused]) never makes the
// relay rest.
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

// alikeRest is how long a rest lasts where unrelated messages are refused alike.
var alikeRest = Backoff{First: time.Minute, Longest: time.Hour}

func restDelay(rests, different int, alike bool, random float64) time.Duration {
	if alike {
		return alikeRest.Delay(rests, random)
	}
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
	alike           bool     // unrelated messages were refused with the same words
	// all is where the message met a refusal of all mail: for it, its recipients and its
	// reverse-path, which attempt in which the relay takes mail was to come next. Zero
	// where it did not, or the relay has taken mail to them or from it since.
	all allRefused
}

type allRefused struct{ message, to, from int }

// sharesRecipient reports whether a job has one of the recipients that are remembered.
func (m *meeting) sharesRecipient(j *Job) bool {
	return slices.ContainsFunc(m.to, func(to string) bool { return slices.Contains(j.Recipients, to) })
}

// sender is a reverse-path at a relay.
type sender struct {
	reversePath string
	row         []string // the different messages that met it since its last success
	pause       pause
	reason      *mailer.Failure // of the last of them
	key         string          // name of the first one's API key
	severalKeys bool            // one of another key has met it, too
	lastMet     int             // when, by the count of blame.meets
	// postponed is how many messages were postponed since the rest began, and slot
	// when the next ones are due.
	postponed int
	slot      time.Time
}

// sender returns what is held against a reverse-path; nil when nothing is.
func (b *blame) sender(reversePath string) *sender { return b.senders[reversePath] }

// add returns what is held against a job's reverse-path, which meets it. Where there are
// too many it forgets the one that met it least recently.
func (b *blame) add(j *Job) *sender {
	s := b.senders[j.ReversePath]
	if s == nil {
		s = &sender{reversePath: j.ReversePath, key: j.Lane.Key}
		if b.senders == nil {
			b.senders = map[string]*sender{}
		}
		b.senders[j.ReversePath] = s
	}
	s.severalKeys = s.severalKeys || s.key != j.Lane.Key
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

// opens is when a job may go; zero when its reverse-path does not rest for it.
func (b *blame) opens(j *Job) time.Time {
	if s := b.sender(j.ReversePath); s != nil && s.holds(j) {
		return s.pause.opens()
	}
	return time.Time{}
}

// holds says whether a rest is one for that job. Where all keys have one reverse-path
// (MAILSIDECAR_FORCE_FROM), what one key sends must not stop the others.
func (s *sender) holds(j *Job) bool {
	return s.severalKeys || s.key == j.Lane.Key || s.pause.failures > 0 && !isAlike(s.reason)
}

// begin notes that a delivery goes through, and says whether it is a probe of its
// reverse-path.
func (b *blame) begin(j *Job, now time.Time) bool {
	s := b.sender(j.ReversePath)
	return s != nil && s.holds(j) && s.pause.begin(j, now)
}

// end notes that a delivery is over, and says whether it was a probe of its
// reverse-path.
func (b *blame) end(j *Job) bool {
	s := b.sender(j.ReversePath)
	return s != nil && s.pause.end(j)
}

func (b *blame) knows(id string) bool { return b.meeting(id) != nil }

// meeting returns when the message met it last; nil when it did not.
func (b *blame) meeting(id string) *meeting {
	if i := slices.IndexFunc(b.met, func(m meeting) bool { return m.id == id }); i >= 0 {
		return &b.met[i]
	}
	return nil
}

// meet notes that a job met it, and says whether that is new evidence.
func (b *blame) meet(j *Job, broken, alike bool) (m meeting, isNew bool) {
	m = meeting{j.ID, j.ReversePath, j.Lane.Key, slices.Clone(j.Recipients[:min(len(j.Recipients), maxMetTo)]), broken, alike, allRefused{}}
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

// many says whether the row is about the relay. severalKeys says that it has mail of
// several API keys.
func (b *blame) many(severalKeys bool) bool {
	broken, alike, paths, keys := 0, false, false, !severalKeys
	for _, m := range b.row {
		paths = paths || m.reversePath != b.row[0].reversePath
		keys = keys || m.key != b.row[0].key
		alike = alike || m.alike
		if m.broken {
			broken++
		}
	}
	return broken >= blameAfter || paths && (keys || !alike) && len(b.row) >= enough(alike)
}

// enough is how many different messages in a row it takes.
func enough(alike bool) int {
	if alike {
		return blameAfter - 1
	}
	return blameAfter
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
	alike, ofSender := isAlike(f), f.OfSender()
	switch {
	case !probe || h.resting() && isAlike(h.reason) == alike:
	case h.resting() && !ofSender, h.refusesMail() && !ofSender:
		// It is not known whether what it is paused for is over, and it has other trouble
		// now.
		h.pause.failures = 0
	case h.resting(), h.refusesMail():
		// It says nothing of that, and another message is the probe.
	default:
		// It got as far as MAIL: what the relay was paused for is over.
		v.resumed = true
		h.resume()
		probe = false
	}
	m, isNew := h.blame.meet(j, f.Scope() == mailer.ScopeConnection, alike)
	s := h.blame.add(j)
	s.reason = f
	if isNew || senderProbe {
		s.count(j.ID)
	}
	if (isNew || probe) && !ofSender {
		h.blame.count(m)
	}
	switch {
	case senderProbe, s.pause.failures == 0 && len(s.row) >= enough(alike):
		v.senderRests = true
		h.blame.rest(s, now, func(rests int) time.Duration { return restDelay(rests, len(s.row), alike, random) })
	}
	switch {
	case ofSender:
	case probe, h.pause.failures == 0 && h.blame.many(h.severalKeys):
		v.paused = true
		h.reason = f
		h.pause.fail(time.Time{}, now, func(rests int) time.Duration { return restDelay(rests, len(h.blame.row), alike, random) })
		h.blame.outlast(h.pause.until)
	}
	return v
}

func isAlike(f *mailer.Failure) bool { return errors.Is(f.Err, mailer.ErrRefusesMany) }

// resting says whether the relay is paused because of what messages met.
func (h *health) resting() bool { return h.pause.failures > 0 && h.reason.Scope() != mailer.ScopeRelay }

// rest makes a reverse-path rest, for the delay after so many rests.
func (b *blame) rest(s *sender, now time.Time, delay func(rests int) time.Duration) {
	if s.pause.failures == 0 {
		b.resting++
	}
	s.pause.fail(time.Time{}, now, delay)
	s.postponed, s.slot = 0, s.pause.until
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
	if !slices.ContainsFunc(b.met, func(m meeting) bool { return m.sharesRecipient(j) }) {
		score += 2
	}
	return score
}

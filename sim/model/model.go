// Package model is the reference that a simulated history is compared with. It knows
// requests, answers and what the relays took and said, and nothing of how the product
// works. Where an answer was lost it does not know: unknown is a third answer
// everywhere.
package model

import (
	"fmt"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/sim/relay"
	"mailsidecar/units"
)

// Answer is what a request came to.
type Answer int

const (
	Unknown  Answer = iota // the answer was lost, or says that it is not known
	Accepted               // 2xx, or a state that a stored message has
	Refused                // for certain
)

// Submission is a message of a request.
type Submission struct {
	Token    string // its subject, and part of its addresses
	Paths    []string
	Priority string
	Valid    bool          // else it must be refused
	SendAt   time.Time     // zero: at once
	Lifetime time.Duration // zero: that of the history
}

// Request is a request that submits.
type Request struct {
	Key         string
	Name        string // its Idempotency-Key; empty: none
	Submissions []Submission
	Begun       time.Time
	Ended       time.Time
	Wait        time.Duration // Prefer: wait
	Answer      Answer
	Status      int
	Code        string            // of a problem
	Instance    int               // that answered
	IDs         map[string]string // by token, of what was accepted; where the answer has them
	States      map[string]string // of recipients, as the answer has them
}

// Command is a cancel, a retry, or a look at a message.
type Command struct {
	Kind   string // "cancel", "retry", "retry all", "cancel all", "look"
	Key    string
	ID     string // empty for all
	Sender string // of all of which; empty: any
	Begun  time.Time
	Ended  time.Time
	Answer Answer
	Status int
	States map[string]string // of recipients, as the answer has them
	Expire time.Time         // as the answer has it
	To     time.Time         // of a "move": when the message is to be sent
}

// Life is a run of the service.
type Life struct {
	Begun, Ended time.Time
	Crashed      bool      // or ended with outcomes that were not stored
	Stopping     time.Time // when it was told to stop in order; zero: it was not
	Instance     int
}

// Absence is when an instance was suspended, or could not reach the database.
type Absence struct {
	Span
	Instance  int  // or AllInstances
	Suspended bool // time stood still for it
}

// AllInstances is for an absence of the database.
const AllInstances = -1

// Lease is a moment at which a message became an instance's, or was taken from it because it
// was taken for gone.
type Lease struct {
	At       time.Time
	ID       string
	Owner    string
	Instance int
	Taken    bool
}

// Relay is a relay, and how it was to be used.
type Relay struct {
	Notes relay.Notes
	Rate  units.Rate
	// What it takes, see SMTP_SENDERS, SMTP_WEIGHT, and MAILSIDECAR_KEY_RELAYS: Keys has the
	// places of the relay among those that a key names, from 1 on.
	Senders []string
	Weight  int
	Keys    map[string]int
	// Strays says that it may send replies that answer no command. Then which recipient a
	// refusal was about cannot always be seen.
	Strays bool
}

// History is all that is known of a history.
type History struct {
	Hold, Steps, Calm bool
	Memory            int64         // octets of messages that the queue may have in memory; zero: enough
	Lifetime          time.Duration // of a message that says none; zero: days
	Slack             time.Duration // by how much an answer may be late: the store may be slow
	Requests          []Request
	Commands          []Command
	Lives             []Life
	Relays            map[string]Relay
	Order             []string          // their names, best first
	Domains           map[string]string // of the senders, with the key that each belongs to
	Messages          []queue.Message   // stored, in the end
	Calmed            time.Time         // when all faults ended
	Expired           []Expired         // recipients whose message expired, as that was committed
	Troubles          []Span            // when calls of the store failed, or took seconds
	Pauses            []Pause           // by an operator
	HeldUp            []Span            // when an operator may have kept mail from a relay
	Drains            []Drain           // when nothing new was to be accepted

	// Where several instances share the store.
	Instances int
	Lease     time.Duration // after which an instance is taken for gone
	Leases    []Lease       // in their order
	Absences  []Absence
	// SharedRates says that a relay's rate holds for all instances together; else for each.
	SharedRates bool
}

// Drain is when an instance accepted nothing new.
type Drain struct {
	Span
	Instance int
}

// Pause is when an operator surely kept mail from a relay.
type Pause struct {
	Relay    string
	From, To time.Time
}

// Expired is a recipient whose message has expired.
type Expired struct {
	At       time.Time
	ID, Path string
}

// Span is a time.
type Span struct{ From, To time.Time }

// Measured is what a history shows of bounds, over all messages that it could be judged of.
type Measured struct {
	Judged int // messages of which it is known what overtook them
	Dealt  int // messages of which it is known that each relay of their route could have them
	// Own is by how many later messages of its lane one was overtaken, beyond those in line
	// before it, Lower by how many later ones of lower priority.
	Own, Lower int
}

// Add adds what another history shows.
func (m *Measured) Add(other Measured) {
	m.Judged += other.Judged
	m.Dealt += other.Dealt
	m.Own, m.Lower = max(m.Own, other.Own), max(m.Lower, other.Lower)
}

// checker compares.
type checker struct {
	*History
	byToken map[string][]*queue.Message
	byID    map[string]*queue.Message
	takes   map[string][]taken // by path
	retried map[string]retries // by id
	found   []string

	troubles []Span // that may hold up messages, or some of them
	measured Measured
}

// taken is a take with its relay.
type taken struct {
	relay.Take
	relay string
	begun time.Time // its MAIL
	conn  int
	// forged says that the relay said 354 to RCPT, and that a client which takes it for that
	// to DATA does not know of whom the relay takes the message.
	forged bool
}

// proven are those of the takes that a client must know of.
func proven(takes []taken) []taken {
	return slices.DeleteFunc(slices.Clone(takes), func(t taken) bool { return t.forged })
}

// retries are the retries by hand of a message, which may have had an effect.
type retries struct {
	count int
	first time.Time // when the first began
}

// Check returns what must not have happened, and what was measured. Each line begins with
// the name of the check.
func Check(h *History) ([]string, Measured) {
	c := &checker{History: h, byToken: map[string][]*queue.Message{}, byID: map[string]*queue.Message{}, takes: map[string][]taken{}, retried: map[string]retries{}}
	c.index()
	c.findTroubles()
	for _, check := range []func(){
		c.counts, c.idempotency, c.finals, c.deliveries, c.refusals, c.copies, c.elsewhere, c.cancels, c.allCanceled, c.expiries, c.schedules, c.stories,
		c.contents, c.rates, c.logins, c.waits, c.answers, c.looks, c.order, c.line, c.attempts, c.routes, c.shares, c.pauses, c.drains,
		c.fences, c.takeOvers,
	} {
		check()
	}
	return c.found, c.measured
}

func (c *checker) fail(check, format string, args ...any) {
	c.found = append(c.found, check+": "+fmt.Sprintf(format, args...))
}

func (c *checker) index() {
	for i := range c.Messages {
		m := &c.Messages[i]
		c.byToken[tokenOf(m)] = append(c.byToken[tokenOf(m)], m)
		c.byID[m.ID] = m
	}
	for name, r := range c.Relays {
		for _, t := range r.Notes.Takes {
			mail := r.Notes.Mails[t.Transaction]
			c.takes[t.Path] = append(c.takes[t.Path], taken{t, name, mail.At, mail.Conn, forged(r.Notes, t.Transaction)})
		}
	}
	for _, cmd := range c.Commands {
		if cmd.Answer == Refused || cmd.Kind != "retry" && cmd.Kind != "retry all" {
			continue
		}
		for _, m := range c.Messages {
			if m.ID == cmd.ID || cmd.Kind == "retry all" && m.Key == cmd.Key {
				c.noteRetry(m.ID, cmd.Begun)
			}
		}
	}
}

// tokenOf is the token that the message was submitted with. What is sent to another address has the
// subject that it had before.
func tokenOf(m *queue.Message) string {
	if m.ResentOf != "" {
		return relay.Token(m.Envelope.ForwardPaths[0])
	}
	return m.Subject
}

func (c *checker) noteRetry(id string, at time.Time) {
	r := c.retried[id]
	if r.count == 0 || at.Before(r.first) {
		r.first = at
	}
	r.count++
	c.retried[id] = r
}

// story is what became of a recipient, by its attempts.
type story struct {
	state     queue.State
	uncertain int
	delivered int
	unfit     bool             // no relay can take it
	quoted    []mailer.Result  // those of its results that quote a reply
	attempts  []mailer.Attempt // of quoted
}

func storyOf(m *queue.Message, path string) (s story) {
	for _, r := range m.Recipients {
		if r.ForwardPath == path {
			s.state = r.State
		}
	}
	for _, a := range m.Attempts {
		for _, r := range a.Results {
			if r.ForwardPath != path {
				continue
			}
			switch {
			case r.Failure == nil:
				s.delivered++
			case r.Failure.Class == mailer.ClassUncertain:
				s.uncertain++
			case r.Failure.Class == mailer.ClassPermanent && r.Reply.Code == 0:
				s.unfit = true
			}
			if r.Reply.Code != 0 {
				s.quoted, s.attempts = append(s.quoted, r), append(s.attempts, a)
			}
		}
	}
	return s
}

// crashed says whether a run crashed in the time.
func (c *checker) crashed(from, to time.Time) bool {
	for _, l := range c.Lives {
		if l.Crashed && !l.Ended.Before(from) && l.Begun.Before(to) && l.Ended.Before(to) {
			return true
		}
	}
	return false
}

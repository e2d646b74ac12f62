package memory

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// message is a stored message. What the indexes of tables are sorted by changes
// through methods of tables only.
type message struct {
	queue.Message // without Recipients and Attempts
	recipients    []*recipient
	attempts      []mailer.Attempt
	recorded      []int64 // the leases of recorded outcomes

	content  mailer.Content
	gone     bool          // the content is dropped
	dropAt   time.Time     // when the content will be dropped; zero: no time is set
	lifetime time.Duration // as it was before the first retry; zero until then

	suspect bool
	crashes int // at which it was alone in hand

	status queue.Status // that is counted
	final  bool
	clock  time.Time // when the message expires, or when it became final
}

// recipient is a stored recipient. It may be tried from NextAttempt on.
type recipient struct {
	queue.Recipient
	message         *message
	n               int // its place in the envelope
	route           string
	owner           string // empty: not leased
	lease           int64  // the number of its last lease
	marked          marks
	cancel          bool // is canceled unless its attempt decides otherwise
	tries, attempts int
}

// marks are what is noted of a leased recipient.
type marks struct {
	content bool // it is about to be sent
	alone   bool // the message is the only one in hand
}

// waits says that the recipient can be claimed, now or later.
func (r *recipient) waits() bool { return r.owner == "" && !r.NextAttempt.IsZero() }

// end gives the recipient a final state outside an attempt, and ends its lease.
func (r *recipient) end(state queue.State) {
	r.State, r.NextAttempt, r.owner, r.marked = state, time.Time{}, "", marks{}
}

func (r *recipient) line() line { return line{r.route, r.message.Lane()} }

// tables is what the store has committed. A call locks mu while it takes effect.
type tables struct {
	mu       sync.Mutex
	messages map[string]*message // by id
	requests map[requestKey]request
	// waiting are the recipients that wait, by line, the first due in front.
	waiting map[line][]*recipient
	// unfinished are the messages that are not final, the first to expire in
	// front, and finished the others, the first that became final in front.
	unfinished, finished []*message
	usage                queue.Usage    // of unfinished
	leases               map[string]int // number of leased recipients, by owner
	lastLease            int64          // its number
	// turns are when messages set out for each relay, the oldest first.
	turns map[string][]time.Time
	// pauses are the relays that a person has paused.
	pauses  []queue.ManualPause
	numbers *tally.Tally
	// runs are the runs that have not ended in order, by owner, and when it was found
	// that they crashed; zero before.
	runs map[string]time.Time
	// lives are until when owners live, in a [Database]; nil elsewhere: there all but the one
	// that asks are gone.
	lives map[string]time.Time
	// notes are those of [Store.ChangeNote], by kind and name.
	notes map[noteKey]note
}

// line is where a recipient waits.
type line struct {
	route string
	lane  queue.Lane
}

type requestKey struct{ key, name string }

// request is the answer to a repeated request.
type request struct {
	fingerprint [32]byte
	ids         []string
	expires     time.Time
}

func newTables() *tables {
	return &tables{
		messages: map[string]*message{}, requests: map[requestKey]request{},
		waiting: map[line][]*recipient{}, leases: map[string]int{},
		numbers: tally.New(), lastLease: queue.FirstLease, turns: map[string][]time.Time{}, runs: map[string]time.Time{}, notes: map[noteKey]note{},
	}
}

// update lets change alter a recipient.
func (t *tables) update(r *recipient, change func()) {
	t.unlist(r)
	change()
	t.list(r)
}

func (t *tables) list(r *recipient) {
	switch in := r.line(); {
	case r.waits():
		t.waiting[in] = add(t.waiting[in], r, byDue)
	case r.owner != "":
		t.leases[r.owner]++
	}
}

func (t *tables) unlist(r *recipient) {
	switch in := r.line(); {
	case r.waits():
		if t.waiting[in] = remove(t.waiting[in], r, byDue); len(t.waiting[in]) == 0 {
			delete(t.waiting, in)
		}
	case r.owner != "":
		if t.leases[r.owner]--; t.leases[r.owner] == 0 {
			delete(t.leases, r.owner)
		}
	}
}

// file puts a message into the index that it belongs to.
func (t *tables) file(m *message) {
	if m.final {
		t.finished = add(t.finished, m, byClock)
		return
	}
	t.unfinished = add(t.unfinished, m, byClock)
	t.usage.Messages++
	t.usage.Bytes += m.Size
}

func (t *tables) unfile(m *message) {
	if m.final {
		t.finished = remove(t.finished, m, byClock)
		return
	}
	t.unfinished = remove(t.unfinished, m, byClock)
	t.usage.Messages--
	t.usage.Bytes -= m.Size
}

func byDue(a, b *recipient) int {
	return cmp.Or(a.NextAttempt.Compare(b.NextAttempt), cmp.Compare(a.message.ID, b.message.ID), cmp.Compare(a.n, b.n))
}

func byClock(a, b *message) int {
	return cmp.Or(a.clock.Compare(b.clock), cmp.Compare(a.ID, b.ID))
}

// add puts e into its place in the sorted list.
func add[E any](sorted []E, e E, by func(a, b E) int) []E {
	i, _ := slices.BinarySearchFunc(sorted, e, by)
	return slices.Insert(sorted, i, e)
}

// remove takes e out of the sorted list that holds it.
func remove[E any](sorted []E, e E, by func(a, b E) int) []E {
	i, _ := slices.BinarySearchFunc(sorted, e, by)
	return slices.Delete(sorted, i, i+1)
}

package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue/dispatch"
)

// Store keeps messages, their recipients and every attempt. It knows nothing of
// relays or schedules: [Durable] tells it what became of a recipient and when to
// try again.
//
// A recipient is due when it waits and its time has come. Before it is tried it
// is leased to an owner, one running instance, and no other owner may try it.
// The lease ends with [Store.Record] or [Store.Release], or by [Store.Recover]
// when its owner is gone.
//
// A method that writes returns after the commit is durable. Then all of its
// effects have happened. On an error none has, except that a failed commit may
// have happened after all. Any number of goroutines may call the methods at
// once. Times are kept with microsecond precision.
type Store interface {
	// Insert stores the batch. When its idempotency key is known with the same
	// fingerprint, it stores nothing and returns the ids of the earlier messages,
	// in their order; with another fingerprint the error is
	// [ErrIdempotencyMismatch]. The error is [ErrDiskFull] when the batch would
	// use room that is reserved for outcomes. When all its messages are stored
	// already, by an Insert that failed after its commit, it stores nothing; with
	// an idempotency key it returns their ids.
	Insert(ctx context.Context, b Batch) (replayed []string, err error)
	// Replay is the look-up of the idempotency key that Insert begins with. It
	// returns nil when the key is not known.
	Replay(ctx context.Context, i Idempotency) (replayed []string, err error)

	// Claim leases to owner the recipients of messages that are due at now: lane
	// by lane as wanted, in each the longest waiting first. Recipients of one
	// message come in one Work.
	Claim(ctx context.Context, owner string, now time.Time, wants []Want) ([]Work, error)
	// Mark records that the content is about to be sent to recipients that owner has
	// leased, and files them under the lease's route, which is that of one relay: see
	// [TakenRoute]. [Store.Recover] tells by it what may have been sent, and to which relay.
	// turns are those that the message has used at relays before this one. They count from
	// now on: nobody could tell after a crash. A lease without forward-paths marks nothing.
	Mark(ctx context.Context, owner string, l Lease, turns []Turn) error
	// MarkAlone records, before owner touches the message, that it tries nothing
	// else of what it has leased. [Store.Recover] blames the message for a crash.
	// The mark ends with the lease, or when alone is false.
	MarkAlone(ctx context.Context, owner, id string, alone bool) error
	// Record stores attempts and their outcomes and ends the leases. If a cancel
	// was requested and the recipient would wait again, it is canceled. If another
	// owner holds the lease by now, only a delivery changes the recipient.
	//
	// After a failed commit the same outcomes may be recorded again: an outcome
	// with a Lease takes effect once. Settled then does not count what the failed
	// call has settled.
	Record(ctx context.Context, outcomes []Outcome) (Settled, error)
	// Release ends owner's leases on the recipients without an attempt, and
	// files them under the route given. They are due at now or before: the clock may
	// have been set back since they were claimed. If a cancel was requested, the recipient is
	// canceled at now.
	//
	// A failed Claim or Insert may have leased recipients. Leases lists them, and
	// Release ends their leases.
	Release(ctx context.Context, owner string, now time.Time, leases []Lease) error
	// Leases lists what owner has leased, by message. Leases of an Insert or a Claim
	// that has not returned yet may be among them.
	Leases(ctx context.Context, owner string) ([]Lease, error)
	// Recover takes, in one short step, leases of owners that are gone. A recipient that may
	// have been sent, see [MaybeSent], gets an uncertain attempt, is filed under the route of
	// that relay alone, and is due at now; with hold it is held. Any other one is due
	// without an attempt. A message that may have been sent has used a turn of
	// each relay of its route, see Turns.
	//
	// A run begins with its owner's first Recover. It has crashed if the owner is
	// gone without End. From the second crash within [CrashWindow] on, the messages
	// that the run had leased are suspect, see [Work]; those of a run that crashed before it are not. A message stops being suspect
	// when an attempt on it got as far as the message ([Outcome.Touched]).
	//
	// A message with the mark of MarkAlone is to blame for the crash: it waits for
	// [SuspectRest]. If a second run crashes on it, without such an attempt between
	// the two, it is held.
	Recover(ctx context.Context, owner string, now time.Time, hold bool) (Recovered, error)
	// End records that owner ends in order.
	End(ctx context.Context, owner string) error
	// Turns returns when messages set out for the relay after since: the last
	// ones, up to limit, the oldest first. A message that Recover found, and that
	// may have been sent, counts as if it had set out at that moment. The store
	// keeps a turn for as long as it counts.
	Turns(ctx context.Context, relay string, since time.Time, limit int) ([]time.Time, error)
	// ManualPauses returns what SetManualPauses has stored.
	ManualPauses(ctx context.Context) ([]ManualPause, error)
	// SetManualPauses stores which relays a person has paused, in place of the list
	// before. With names of relays only what is stored of these is replaced.
	SetManualPauses(ctx context.Context, pauses []ManualPause, of ...string) error
	// Heartbeat says that owner lives. A store that many instances share needs
	// it at least every minute to tell which owners are gone.
	Heartbeat(ctx context.Context, owner string, now time.Time) error
	// Waiting returns when the next unleased recipient of each lane is due, and
	// when the next message after now expires. Its cost grows with the number of
	// lanes, not with the number of messages that wait in them.
	Waiting(ctx context.Context, now time.Time) (Waiting, error)
	// Expire ends the unleased recipients of up to limit messages that have
	// expired at now.
	Expire(ctx context.Context, now time.Time, limit int) ([]Ended, error)
	// Rewind makes recipients that are not due before latest due then. Messages
	// that a send_at holds are left alone. It repairs the schedule after the
	// clock was set back. Each call is a short step: from is empty at first, and then
	// the next of the step before; next is empty after the last one.
	Rewind(ctx context.Context, latest time.Time, from string) (next string, err error)

	// Get, List and Content do what the methods of the same names of handler's
	// interface Ledger (handler/queue.go) say. As key they also take [AnyKey].
	Get(ctx context.Context, key, id string) (Message, error)
	List(ctx context.Context, f Filter, limit int, cursor string) (Page, error)
	Content(ctx context.Context, key, id string) (mailer.Content, error)
	// Count counts the messages that List would list from the cursor on. Where that takes
	// long, n are those that were met, and next is the cursor to go on with; otherwise next
	// is empty.
	Count(ctx context.Context, f Filter, cursor string) (n int, next string, err error)
	// Retry makes deferred, held, bounced and expired recipients of the
	// messages due at now, gives each message its lifetime anew, and returns the
	// ids that changed. Leased recipients, and messages without bytes, do not.
	// Crashes that a message is blamed for are forgotten; a suspect remains one. What a
	// relay may have taken, and what is not deferred, is [Unfiled] from then on: a
	// person has decided that it goes out again.
	Retry(ctx context.Context, key string, ids []string, now time.Time) ([]string, error)
	// Cancel ends every recipient of the messages that waits or is held, in one commit. A
	// recipient leased to owner ends too if it is withdrawn: owner will not try it. Any other
	// leased recipient ends unless its attempt decides otherwise. canceled are the messages
	// that had a recipient to end, in their order, with the recipients that ended now. A
	// message that the key has not is left out.
	Cancel(ctx context.Context, key, owner string, messages []Withdrawal, now time.Time) (canceled []Ended, err error)
	// Reschedule makes a message that waits for its SendAt wait until sendAt instead, or
	// be due at now where that is earlier. SendAt is then when it is due, and its
	// lifetime begins there. A content that is not nil takes the place of the message's
	// own. scheduled is false, and nothing is changed, unless SendAt is after now and
	// every recipient is queued, untried and not leased.
	Reschedule(ctx context.Context, key, id string, sendAt time.Time, content *mailer.Content, now time.Time) (scheduled bool, err error)

	// Backlog counts the recipients that are not final at now. Its cost grows with their
	// number.
	Backlog(ctx context.Context, now time.Time) (Backlog, error)
	// Usage counts messages that are not final, and the octets of them.
	Usage(ctx context.Context) (Usage, error)
	// Stats returns the numbers of the key's messages; [AnyKey] is all. It counts nothing:
	// the numbers are kept with each commit, and its cost does not grow with what is stored.
	// What was recorded more than DayBuckets ago by the times of the attempts, and messages
	// that Sweep has removed, are not in them.
	Stats(ctx context.Context, key string, now time.Time) (Stats, error)
	// Week returns what happened in the last seven days, hour by hour: [WeekHours] in order. It counts nothing either.
	Week(ctx context.Context, key string, now time.Time) ([]Bucket, error)
	// Sweep removes, in one short step, up to limit messages, contents or keys
	// that retention no longer covers at now, and returns how many it removed.
	Sweep(ctx context.Context, now time.Time, limit int) (int, error)
	// Check returns why messages cannot be stored just now; nil when they can.
	Check(ctx context.Context) error
	// Close waits for the writes that go on. Later calls fail with [ErrClosed].
	Close() error
}

// The dispatcher's words for what waits in a store.
type (
	// Lane names the messages of one API key and one priority.
	Lane = dispatch.Lane
	// Want is how many messages of a lane are to be claimed.
	Want = dispatch.Want
	// Waiting is when the store must be looked at again.
	Waiting = dispatch.Waiting
	// LaneDue is when the first recipient that waits in a lane is due.
	LaneDue = dispatch.LaneDue
)

// Batch is what one request stores, in one commit.
type Batch struct {
	Entries     []Entry
	Idempotency *Idempotency // nil: none
}

// Idempotency is the key that a request may be repeated with.
type Idempotency struct {
	Key         string // name of the API key
	Name        string // the caller's Idempotency-Key
	Fingerprint [32]byte
	Expires     time.Time
}

// Entry is one new message. All its recipients are [Queued].
type Entry struct {
	Message Message
	Content mailer.Content
	Route   string // names the relays it may go to; see [Store.Claim]
	// Owner leases every recipient from the start; empty leases none.
	Owner string
	// Due is when the recipients may be tried first.
	Due time.Time
}

// Work is the leased recipients of one message.
type Work struct {
	ID        string
	MessageID string
	Sender    string
	Route     string
	Key       string // name of the API key
	Size      int64
	// EightBit and UTF8Header are as in its content.
	EightBit, UTF8Header bool
	Expires              time.Time
	Since                time.Time       // when it was accepted, or was to be sent
	Envelope             mailer.Envelope // of the leased recipients only
	Recipients           []Leased        // in the envelope's order
	// Suspect says that it may make the service crash, see [Store.Recover]. It must be
	// tried alone, after [Store.MarkAlone].
	Suspect bool
	// Lease is the number of the lease. No other lease of these recipients to this
	// owner has it.
	Lease int64
}

// FirstLease is the number of the leases that [Store.Insert] gives.
const FirstLease = 1

// Lane is the line that the message waits in.
func (w *Work) Lane() Lane { return Lane{Priority: w.Envelope.Priority, Key: w.Key} }

// Leased is what decides on a recipient's next attempt.
type Leased struct {
	ForwardPath string
	State       State
	// Tries counts the attempts that its schedule goes by, Attempts all.
	Tries    int
	Attempts int
}

// Lease names recipients of one message that are leased to an owner. It may
// have leased others of the message with another [Work].
type Lease struct {
	ID           string
	Route        string
	ForwardPaths []string
	// Number is that of the lease. Others of the recipients are left alone by
	// [Store.Release]; zero means any.
	Number int64
}

// Outcome is what came of trying the leased recipients of one message.
type Outcome struct {
	ID       string
	Owner    string
	Route    string
	At       time.Time
	Attempts []mailer.Attempt // in order; may be empty
	Changes  []Change
	Turns    []Turn // that the attempts used; in order
	// Lease is the number of the lease that it ends, with no other outcome. Zero
	// means any: then it must not be recorded again.
	Lease int64
	// Awaited says that a client waits until this is stored. The store may delay
	// other outcomes by a few milliseconds, to commit them with a new message.
	Awaited bool
}

// Touched says that an attempt got as far as the message: a crash would have come.
func (o *Outcome) Touched() bool {
	return slices.ContainsFunc(o.Attempts, func(a mailer.Attempt) bool {
		return slices.ContainsFunc(a.Results, func(r mailer.Result) bool {
			return r.Failure == nil || r.Failure.Stage >= mailer.StageMail || r.Failure.Stage == mailer.StageCompose
		})
	})
}

// Turn is one use of a relay's rate: a message set out.
type Turn struct {
	Relay string // its name
	At    time.Time
	// Window is how long it counts, a day at most.
	Window time.Duration
}

// LongestWindow is how long a turn counts at most.
const LongestWindow = 24 * time.Hour

// LostTurns are the turns that [Store.Recover] counts for a message which may have
// been sent: it may have set out for any relay of its route.
func LostTurns(route string, now time.Time) []Turn {
	var turns []Turn
	for _, relay := range relaysOf(route) {
		turns = append(turns, Turn{relay, now, LongestWindow})
	}
	return turns
}

// Change is the new state of one recipient.
type Change struct {
	ForwardPath string
	State       State
	Next        time.Time // when State is Queued or Deferred
	Tries       int
	Route       string // that it is filed under; empty means the outcome's
}

// RouteOf is the route that a changed recipient is filed under.
func (o *Outcome) RouteOf(c Change) string { return cmp.Or(c.Route, o.Route) }

// Settled counts messages that became final, and the octets of them.
type Settled = Usage

// Usage is a number of messages and of their octets.
type Usage struct {
	Messages int64
	Bytes    int64
}

func (u Usage) plus(v Usage) Usage  { return Usage{u.Messages + v.Messages, u.Bytes + v.Bytes} }
func (u Usage) minus(v Usage) Usage { return Usage{u.Messages - v.Messages, u.Bytes - v.Bytes} }

// Recovered counts the recipients whose owner was gone.
type Recovered struct {
	Uncertain int // may have been sent: due again, or held
	Held      int // of those, the held ones
	Released  int // were not being sent
	// Crashes is how many runs crashed within [CrashWindow]. It is zero where this
	// is not owner's first Recover and found no crash.
	Crashes  int
	Suspects int     // messages that became suspect, or stayed so
	Blamed   []Blame // messages that are held because of crashes
	More     bool    // there may be other leases: call again
}

// Any says that leases were found.
func (r Recovered) Any() bool { return r.Uncertain+r.Held+r.Released > 0 }

// Add adds what another step has found, except Crashes and More.
func (r *Recovered) Add(s Recovered) {
	r.Uncertain += s.Uncertain
	r.Held += s.Held
	r.Released += s.Released
	r.Suspects += s.Suspects
	r.Blamed = append(r.Blamed, s.Blamed...)
}

// Blame names a message that was alone in hand at crashes, and those of its
// recipients that are held for it, in the envelope's order.
type Blame struct {
	ID           string
	ReversePath  string
	ForwardPaths []string
}

// What makes messages suspect, and what follows.
const (
	// CrashWindow is how long a crash counts.
	CrashWindow = 10 * time.Minute
	// SuspectCrashes is how many crashes that count make what the last run had
	// leased suspect.
	SuspectCrashes = 2
	// BlameCrashes is at how many crashes a message is held that was alone in hand.
	BlameCrashes = 2
	// SuspectRest is how long a message waits that was alone in hand at a crash.
	// Meanwhile others go out.
	SuspectRest = time.Minute
)

// BlamedAttempt is the failure that [Store.Recover] records for a recipient that is
// held because of crashes; sent says that it may have been sent.
func BlamedAttempt(sent bool) *mailer.Failure {
	f := &mailer.Failure{
		Class: mailer.ClassTransient, Stage: mailer.StageCompose,
		Text: "the service crashed repeatedly with only this message in hand, which may be the cause",
	}
	if sent {
		f.Class, f.Stage = mailer.ClassUncertain, mailer.StageContent
		f.Text += "; the relay may have accepted it"
	}
	return f
}

// LostAttempt is the failure that [Store.Recover] records for a recipient that may
// have been sent to that relay.
func LostAttempt(relay string) *mailer.Failure {
	return &mailer.Failure{
		Class: mailer.ClassUncertain, Stage: mailer.StageContent, Relay: relay,
		Text: "the service ended while this was in hand; the relay may have accepted it",
	}
}

// Withdrawal is a message that [Store.Cancel] cancels, and those of its recipients that
// owner has leased and will not try.
type Withdrawal struct {
	ID           string
	ForwardPaths []string
}

// Ended names recipients that reached a final state outside an attempt.
type Ended struct {
	ID           string
	Size         int64
	Final        bool // no recipient of the message waits any more
	ReversePath  string
	ForwardPaths []string
}

// What may be wrong with a store. They come wrapped in a [StoreError].
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("in use by another process")
	// ErrNewerSchema: a newer version of the program wrote the store.
	ErrNewerSchema = errors.New("written by a newer version")
	// ErrCorrupt: the file is damaged, or no queue.
	ErrCorrupt = errors.New("damaged")
	// ErrFileSystem: it cannot hold a store.
	ErrFileSystem = errors.New("unsuitable file system")
	// ErrDirectory: files cannot be created, synced, renamed or deleted there.
	ErrDirectory = errors.New("unusable directory")
	// ErrNotRegular: there is something else where a file of the store should be.
	ErrNotRegular = errors.New("no regular file")
	// ErrMoved: the file was deleted or replaced while it was open.
	ErrMoved = errors.New("deleted or replaced while in use")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store closed")
	// ErrUnavailable: the database does not answer just now. What was to be stored may be
	// stored.
	ErrUnavailable = errors.New("the database is not available")
	// ErrMaybeStored: so it is with a new message. It comes with ErrUnavailable.
	ErrMaybeStored = errors.New("the message may be stored")
	// ErrNothingDone: nothing was stored or changed. It comes with ErrUnavailable.
	ErrNothingDone = errors.New("nothing was stored or changed")
	// ErrLeaseLost: the owner is taken for gone, or has not leased that any more. It must
	// not send what it has leased.
	ErrLeaseLost = errors.New("lease lost")
	// ErrCanceled: another instance was told to cancel what is about to be sent.
	ErrCanceled = errors.New("canceled")
)

// StoreError is a fault of a store, with the remedy that an operator has.
type StoreError struct {
	Path   string
	Err    error // one of the errors above, or what the system said
	Remedy string
}

func (e *StoreError) Error() string {
	return fmt.Sprintf("queue store %s: %v: %s", e.Path, e.Err, e.Remedy)
}

func (e *StoreError) Unwrap() error { return e.Err }

// IdempotencyLife is how long a request may be repeated with its key.
const IdempotencyLife = 24 * time.Hour

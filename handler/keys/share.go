package keys

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// noteKind is the kind of the notes of keys' rates.
const noteKind = "key"

const (
	// noteTime is how long a request waits for the place where the rate is kept. What comes after it,
	// the wait until the message is stored, takes up to 1.5 s: together less than the 2 s after which
	// a client has its answer while the database is away.
	noteTime = 400 * time.Millisecond
	// stockHold is how long what an instance holds counts, stockTrust how long it uses it after its
	// last word, and stockIdle how long it keeps what nobody wants.
	stockHold  = 30 * time.Second
	stockTrust = 15 * time.Second
	stockIdle  = 5 * time.Second
	// mostStock is how many messages an instance may hold. It is a sixteenth of the rate at most,
	// and only while half of the rate is left.
	mostStock  = 64
	stockShare = 16
	// refusedFor is how long a refusal holds without asking again.
	refusedFor = 250 * time.Millisecond
)

// bucketNote is the bucket of a key that instances share, with the time of the place where it is kept. An
// instance takes messages out of it before it needs them, as a rule some at a time. What it holds
// keeps the bucket from filling by as much: bucket and holds together never have more than the
// rate, so the instances let no more in than one would.
type bucketNote struct {
	Full  int64             `json:"full"` // when it would be full, in microseconds
	Holds map[string]*stock `json:"holds,omitempty"`
}

// stock is what an instance holds.
type stock struct {
	N     int   `json:"n"`
	Until int64 `json:"until"` // afterwards it counts as used
	Ask   int64 `json:"ask"`   // number of the last change by the instance
}

// bucketAsk is what an instance wants.
type bucketAsk struct {
	who    string
	number int64
	n      int  // messages of a request
	keep   int  // of what it holds it has so many left
	back   bool // and gives them back
}

func readBucketNote(value []byte) *bucketNote {
	b := &bucketNote{}
	if json.Unmarshal(value, b) != nil {
		b = &bucketNote{}
	}
	if b.Holds == nil {
		b.Holds = map[string]*stock{}
	}
	return b
}

func (b *bucketNote) bytes() []byte {
	value, err := json.Marshal(b)
	if err != nil { // it cannot be
		return nil
	}
	return value
}

// change takes what is asked for, or returns how long to wait. held is what the instance holds then.
func (b *bucketNote) change(rate units.Rate, ask bucketAsk, at time.Time) (held int, wait time.Duration, ok bool) {
	now, each := at.UnixMicro(), float64(rate.Per.Microseconds())/float64(rate.Messages)
	cost := func(n int) int64 { return int64(float64(n) * each) }
	mine := b.Holds[ask.who]
	if mine != nil && mine.Ask >= ask.number { // the instance has not waited for it
		return mine.N, noteTime, false
	}
	all := 0
	for _, h := range b.Holds {
		all += h.N
	}
	// The clock may have been set back.
	b.Full = min(max(b.Full, now+cost(all)), now+cost(all)+maxBursts*rate.Per.Microseconds())
	for who, h := range b.Holds {
		if h.Until <= now || h.Until > now+2*stockHold.Microseconds() {
			all -= h.N
			delete(b.Holds, who)
		}
	}
	if mine = b.Holds[ask.who]; mine != nil {
		all -= mine.N - min(mine.N, ask.keep)
		mine.N = min(mine.N, ask.keep)
		mine.Ask, mine.Until = ask.number, now+stockHold.Microseconds()
		if ask.back {
			b.Full -= cost(mine.N)
			delete(b.Holds, ask.who)
			return 0, 0, true
		}
		held = mine.N
	}
	if ask.back {
		return 0, 0, true
	}
	after := b.Full + cost(ask.n)
	if late := after - now - rate.Per.Microseconds(); late > 0 && (b.Full > now || all > 0) {
		return held, time.Duration(min(late, max(b.Full-now, time.Second.Microseconds()))) * time.Microsecond, false
	}
	b.Full = after
	if more := min(mostStock, rate.Messages/stockShare) - held; more > 0 && b.Full+cost(more)-now <= rate.Per.Microseconds()/2 {
		if mine == nil {
			mine = &stock{Ask: ask.number, Until: now + stockHold.Microseconds()}
			b.Holds[ask.who] = mine
		}
		mine.N += more
		held += more
		b.Full += cost(more)
	}
	if mine != nil && mine.N == 0 {
		delete(b.Holds, ask.who)
	}
	return held, 0, true
}

// sharedBucket is a [bucketNote] as one instance has it.
type sharedBucket struct {
	note mailer.ChangeNote
	name string // of the key
	who  string // this instance

	turn    chan struct{} // held while a field is used, and the note is changed
	number  int64
	stock   int
	sent    time.Time // when the last change was sent that was answered
	used    time.Time // when it was last taken from
	timer   *time.Timer
	refused time.Time // when a message was refused, and until when one of so many would be
	until   time.Time
	least   int
}

// Share has the keys count their rates together with those of other instances.
func (r *Ring) Share(note mailer.ChangeNote) {
	for _, k := range r.Rated() {
		k.shared = &sharedBucket{note: note, name: k.name, who: rand.Text(), turn: make(chan struct{}, 1)}
	}
}

// take is [bucket.take]. The error is that of the place where the rate is kept.
func (b *sharedBucket) take(rate units.Rate, n int) (wait time.Duration, ok bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), noteTime)
	defer cancel()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
	b.used = time.Now()
	if b.stock >= n && mailer.Elapsed(b.sent, time.Now()) < stockTrust {
		b.stock -= n
		return 0, true, nil
	}
	if now := time.Now(); n >= b.least && now.Before(b.until) && now.Sub(b.refused) < refusedFor {
		return b.until.Sub(now), false, nil
	}
	if wait, ok, err = b.change(ctx, rate, bucketAsk{n: n}); err != nil {
		return 0, false, err
	}
	b.until = time.Time{}
	if !ok {
		b.refused, b.until, b.least = time.Now(), time.Now().Add(wait), n
	}
	if b.stock > 0 && b.timer == nil {
		b.timer = time.AfterFunc(stockIdle, func() { b.giveBack(rate) })
	}
	return wait, ok, nil
}

// change changes the note. The caller has the turn.
func (b *sharedBucket) change(ctx context.Context, rate units.Rate, ask bucketAsk) (time.Duration, bool, error) {
	b.number++
	ask.who, ask.number, ask.keep = b.who, b.number, b.stock
	sent := time.Now()
	var held int
	var wait time.Duration
	var ok bool
	err := b.note(ctx, noteKind, b.name, func(value []byte, now time.Time) []byte {
		n := readBucketNote(value)
		held, wait, ok = n.change(rate, ask, now)
		return n.bytes()
	})
	if err != nil {
		b.stock = min(b.stock, ask.keep)
		if ask.back {
			b.stock = 0
		}
		return 0, false, err
	}
	b.stock, b.sent = held, sent
	return wait, ok, nil
}

// giveBack gives back what nobody has wanted for a while.
func (b *sharedBucket) giveBack(rate units.Rate) {
	ctx, cancel := context.WithTimeout(context.Background(), noteTime)
	defer cancel()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if idle := time.Since(b.used); idle < stockIdle && b.stock > 0 {
		b.timer = time.AfterFunc(stockIdle-idle, func() { b.giveBack(rate) })
		return
	}
	b.timer = nil
	if b.stock > 0 {
		_, _, _ = b.change(ctx, rate, bucketAsk{back: true}) // else it counts as used
	}
}

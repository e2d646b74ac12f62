// Package queuetest runs a queue in tests: scripted relays, and a queue on a store
// of the test's choice.
package queuetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// Verdict is what a relay says of a recipient in its n-th attempt, n ≥ 1. A nil
// failure accepts.
type Verdict func(n int, path string) *mailer.Failure

// Relay is a relay that follows a script: each recipient of an attempt gets what
// the verdict returns.
type Relay struct {
	Rewriting   bool   // it may change any message, see [mailer.Rewrites]
	ReversePath string // of all its attempts, in place of the envelope's; empty mostly

	name string

	mu      sync.Mutex
	verdict Verdict
	takes   time.Duration // how long an attempt takes
	// uneven makes each of seven attempts in a row take longer than the one
	// before, by that much.
	uneven   time.Duration
	attempts []Attempt
	inFlight int
	most     int // most attempts at a time
	accepted map[string]int
}

var _ mailer.Deliverer = (*Relay)(nil)

// Attempt is an attempt as the relay saw it.
type Attempt struct {
	At       time.Time
	Envelope mailer.Envelope
	Content  string
}

// NewRelay returns a relay of the name "relay" that takes no time.
func NewRelay(v Verdict) *Relay { return NamedRelay("relay", v) }

// NamedRelay is NewRelay with a name.
func NamedRelay(name string, v Verdict) *Relay {
	return &Relay{name: name, verdict: v, accepted: map[string]int{}}
}

// Name returns the relay's name.
func (r *Relay) Name() string { return r.name }

// Rewrites reports whether it may change any message.
func (r *Relay) Rewrites() bool { return r.Rewriting }

// Deliver makes an attempt. When ctx ends first, no recipient was judged.
func (r *Relay) Deliver(ctx context.Context, env mailer.Envelope, c mailer.Content) mailer.Attempt {
	n, verdict, takes := r.begin(env, c)
	a := mailer.Attempt{Relay: r.name, Rung: mailer.Rung{Port: 587}, TLS: "TLS 1.3", Started: time.Now(), ReversePath: r.ReversePath}
	cut := takes > 0 && !sleep(ctx, takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	for _, path := range env.ForwardPaths {
		result := mailer.Result{ForwardPath: path, Reply: mailer.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued"}}
		if cut {
			result.Failure = &mailer.Failure{Class: mailer.ClassTransient, Stage: mailer.StageMail, Relay: r.name, Text: "interrupted"}
		} else {
			result.Failure = verdict(n, path)
		}
		if result.Failure != nil {
			result.Reply = result.Failure.Reply
		} else {
			r.accepted[string(c.Data)+path]++
		}
		a.Results = append(a.Results, result)
	}
	a.Duration = time.Since(a.Started)
	return a
}

func (r *Relay) begin(env mailer.Envelope, c mailer.Content) (n int, v Verdict, takes time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, Attempt{At: time.Now(), Envelope: env, Content: string(c.Data)})
	n = len(r.attempts)
	r.inFlight++
	r.most = max(r.most, r.inFlight)
	return n, r.verdict, r.takes + r.uneven*time.Duration(n%7)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Attempts returns all attempts so far.
func (r *Relay) Attempts() []Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.attempts)
}

// Deliveries counts the accepted messages, by content and recipient.
func (r *Relay) Deliveries() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.accepted)
}

// Copies is how often a message was accepted for a recipient.
func (r *Relay) Copies(data, path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted[data+path]
}

// Set changes the verdict.
func (r *Relay) Set(v Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdict = v
}

// Slow sets how long an attempt takes. Each of seven attempts in a row takes
// longer by uneven than the one before.
func (r *Relay) Slow(takes, uneven time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takes, r.uneven = takes, uneven
}

// Most is how many attempts there were at a time since it was asked last.
func (r *Relay) Most() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	most := r.most
	r.most = r.inFlight
	return most
}

// Accept accepts every recipient.
func Accept(int, string) *mailer.Failure { return nil }

// Fail returns a verdict that fails every recipient alike.
func Fail(class mailer.Class, stage mailer.Stage, code int) Verdict {
	return func(int, string) *mailer.Failure {
		return &mailer.Failure{Class: class, Stage: stage, Relay: "relay", Text: "said so", Reply: mailer.Reply{Code: code, Text: fmt.Sprint("reply ", code)}}
	}
}

// PushedBack is a reply that asks for less at a time.
func PushedBack(code int) Verdict {
	return func(n int, path string) *mailer.Failure {
		f := Fail(mailer.ClassTransient, mailer.StageMail, code)(n, path)
		f.Err = mailer.ErrPushedBack
		return f
	}
}

// RateUsedUp is the answer of a relay that takes the next message at that time.
func RateUsedUp(relay string, at time.Time) *mailer.Failure {
	return &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: relay, Text: "rate", Err: &mailer.RateError{At: at}}
}

// Verdicts of relays.
var (
	Unreachable = Fail(mailer.ClassRelay, mailer.StageConnect, 0)
	Greylisted  = Fail(mailer.ClassTransient, mailer.StageRcpt, 450)
	Refused     = Fail(mailer.ClassPermanent, mailer.StageRcpt, 550)
	LostReply   = Fail(mailer.ClassUncertain, mailer.StageContent, 0)
)

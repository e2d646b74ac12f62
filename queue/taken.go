package queue

import (
	"strings"
	"time"

	"mailsidecar/mailer"
)

// The store files what waits under the name of its route: the names of the relays that
// may take it, separated by commas. What a relay may have taken already, because its
// reply was lost or the service ended meanwhile, is filed under a route of that relay
// alone, of which the name begins with takenMark. So no other relay gets it, also after a
// restart. Each recipient has a route of its own: the message's other recipients may go
// elsewhere.

// takenMark begins the name of a route whose relay may have taken what is filed there.
const takenMark = "="

// Unfiled is the name of no route: the queue finds the route of what is filed there.
const Unfiled = ""

// TakenRoute names the route of what the relay of that name may have taken.
func TakenRoute(relay string) string { return takenMark + relay }

// TakenBy returns the relay that may have taken what is filed under a route; empty when
// none has.
func TakenBy(route string) string {
	relay, taken := strings.CutPrefix(route, takenMark)
	if !taken {
		return ""
	}
	return relay
}

// SetTaken gives a recipient that is filed under the route its TakenBy.
func (r *Recipient) SetTaken(route string) {
	if r.TakenBy = TakenBy(route); r.State == Delivered {
		r.TakenBy = ""
	}
}

// relaysOf returns the names of the relays that a route stands for.
func relaysOf(route string) []string {
	if route == Unfiled {
		return nil
	}
	return strings.Split(strings.TrimPrefix(route, takenMark), ",")
}

// What an owner's name begins with says when it calls [Store.Mark] before it sends
// content. An owner whose name begins with neither is one of an older version.
const (
	marksAll     = "marks-"  // always (MAILSIDECAR_UNCERTAIN=hold, or the store is a [SharedStore])
	marksChoices = "choice-" // on routes with several relays
)

// marks says whether owner calls [Store.Mark] before it sends what is filed under the
// route.
func marks(owner, route string) bool {
	return strings.HasPrefix(owner, marksAll) || strings.HasPrefix(owner, marksChoices) && len(relaysOf(route)) != 1
}

// MaybeSent says whether a recipient that owner has leased, and that is filed under the
// route, may have been sent; marked is what [Store.Mark] noted. Then [Store.Recover]
// records an uncertain attempt at the relay and files it under the route of that alone. The
// relay is the first of the route where an older version has not noted which it was.
func MaybeSent(owner, route string, marked bool) (relay string, sent bool) {
	if !marked && marks(owner, route) {
		return "", false
	}
	if relays := relaysOf(route); len(relays) > 0 {
		relay = relays[0]
	}
	return relay, true
}

// Lose adds to the outcome that a leased recipient may have been sent to a relay: it is due
// at once, or with hold held, and filed under the route of that relay alone. Recipients that
// were sent to one relay share an attempt.
func (o *Outcome) Lose(l Leased, relay string, hold bool) {
	c := Change{ForwardPath: l.ForwardPath, State: Deferred, Next: o.At, Tries: l.Tries}
	if relay != "" {
		c.Route = TakenRoute(relay)
	}
	if hold {
		c.State, c.Next = Held, time.Time{}
	}
	o.Changes = append(o.Changes, c)
	result := mailer.Result{ForwardPath: l.ForwardPath, Failure: LostAttempt(relay)}
	for i := range o.Attempts {
		if o.Attempts[i].Relay == relay {
			o.Attempts[i].Results = append(o.Attempts[i].Results, result)
			return
		}
	}
	o.Attempts = append(o.Attempts, mailer.Attempt{Relay: relay, Started: o.At, Results: []mailer.Result{result}})
}

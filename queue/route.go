package queue

import (
	"context"
	"slices"
	"strings"

	"mailsidecar/mailer"
)

// Route is a relay and the senders whose mail it takes (SMTP_SENDERS).
type Route struct {
	Relay mailer.Deliverer
	// Senders are addresses ("a@example.com") or domains ("example.com"), as
	// [mailer.ParseSender] returns them; none means any sender that no other route names.
	Senders []string
}

// Routes are the configured relays, in order of preference.
type Routes []Route

// For returns the relays that may take mail from sender, best first, see [Takers].
func (rs Routes) For(sender string) []mailer.Deliverer {
	var relays []mailer.Deliverer
	for _, r := range Takers(rs, func(r Route) []string { return r.Senders }, sender) {
		relays = append(relays, r.Relay)
	}
	return relays
}

// Takers returns those of the relays that may take mail from sender, in their order: those
// that name its address, otherwise those that name its domain, otherwise those that name
// no sender. What a relay names is in lower case.
func Takers[R any](relays []R, named func(R) []string, sender string) []R {
	sender = mailer.Lower(sender)
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	for _, want := range []string{sender, domain, ""} {
		var found []R
		for _, r := range relays {
			senders := named(r)
			if want == "" && len(senders) == 0 || want != "" && slices.Contains(senders, want) {
				found = append(found, r)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// router knows which relays take a sender's mail.
type router struct {
	routes Routes
	relays []mailer.Deliverer // each once
}

func newRouter(routes Routes) *router {
	r := &router{routes: routes}
	for _, route := range routes {
		if !slices.Contains(r.relays, route.Relay) {
			r.relays = append(r.relays, route.Relay)
		}
	}
	return r
}

// route returns the relays that may take mail from sender, as indexes of relays,
// best first, and the name by which the store files such mail. There are none
// when no relay takes it.
func (r *router) route(sender string) (name string, relays []int) {
	var names []string
	for _, relay := range r.routes.For(sender) {
		relays = append(relays, slices.Index(r.relays, relay))
		names = append(names, relay.Name())
	}
	return strings.Join(names, ","), relays
}

// deliver tries the relays in turn until one of them judges the mail. A failure
// that may not be about the mail moves it on to the next. No relay has accepted
// it then, so no recipient can get it twice.
func deliver(ctx context.Context, relays []mailer.Deliverer, env mailer.Envelope, c mailer.Content) []mailer.Attempt {
	var attempts []mailer.Attempt
	for _, relay := range relays {
		a := relay.Deliver(ctx, env, c)
		attempts = append(attempts, a)
		env.ForwardPaths = untouched(a)
		if len(env.ForwardPaths) == 0 || ctx.Err() != nil {
			break
		}
	}
	waitForOthers(attempts, len(relays))
	return attempts
}

// waitForOthers makes transient what a relay cannot take, unless each of the relays of
// the route said so of the recipient. One that was not asked, or that failed, may
// take it yet.
func waitForOthers(attempts []mailer.Attempt, relays int) {
	cannot := map[string]int{}
	for _, a := range attempts {
		for _, r := range a.Results {
			if r.Failure != nil && r.Failure.CannotTake() {
				cannot[r.ForwardPath]++
			}
		}
	}
	for _, a := range attempts {
		for i, r := range a.Results {
			if n := cannot[r.ForwardPath]; n == 0 || n == relays || r.Failure == nil || !r.Failure.CannotTake() {
				continue
			}
			f := *r.Failure
			f.Class = mailer.ClassTransient
			a.Results[i].Failure = &f
		}
	}
}

// untouched returns the recipients whose mail the relay never judged.
func untouched(a mailer.Attempt) []string {
	var rest []string
	for _, r := range a.Results {
		if r.Failure != nil && r.Failure.TriesNext() {
			rest = append(rest, r.ForwardPath)
		}
	}
	return rest
}

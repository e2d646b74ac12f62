package queue

import (
	"cmp"
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
	// Weight is the relay's share of the mail of a route with several relays, beside the
	// weights of the others (SMTP_WEIGHT). Zero means that it gets mail only when none
	// with a weight takes it.
	Weight int
	// Keys are the names of the API keys that name this relay (MAILSIDECAR_KEY_RELAYS),
	// and its place among those that the key names, from 1 on. Mail of a key that relays
	// have here goes to these alone.
	Keys map[string]int
}

// Routes are the configured relays, in order of preference.
type Routes []Route

// For returns the relays that may take mail of an API key from sender, best first, see
// [Takers].
func (rs Routes) For(key, sender string) []mailer.Deliverer {
	var relays []mailer.Deliverer
	for _, r := range rs.of(key, sender) {
		relays = append(relays, r.Relay)
	}
	return relays
}

func (rs Routes) of(key, sender string) []Route {
	return Takers(rs, func(r Route) ([]string, map[string]int) { return r.Senders, r.Keys }, key, sender)
}

// Takers returns those of the relays that may take mail of an API key from sender: of the
// relays that the key names, in its order, or of all where it names none, those that name
// the sender's address, otherwise those that name its domain, otherwise those that name no
// sender. named returns what a relay names, in lower case, and the keys that name it, as
// [Route] has them.
func Takers[R any](relays []R, named func(R) (senders []string, keys map[string]int), key, sender string) []R {
	relays = ofKey(relays, func(r R) int {
		_, keys := named(r)
		return keys[key]
	})
	sender = mailer.Lower(sender)
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	for _, want := range []string{sender, domain, ""} {
		var found []R
		for _, r := range relays {
			senders, _ := named(r)
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

// ofKey returns the relays that a key names, in its order; all where it names none.
func ofKey[R any](relays []R, place func(R) int) []R {
	var found []R
	for _, r := range relays {
		if place(r) > 0 {
			found = append(found, r)
		}
	}
	if found == nil {
		return relays
	}
	slices.SortStableFunc(found, func(a, b R) int { return cmp.Compare(place(a), place(b)) })
	return found
}

// router knows which relays take a sender's mail.
type router struct {
	routes  Routes
	knows   func(key string) bool // an API key that is configured
	relays  []mailer.Deliverer    // each once
	weights []int                 // of relays
}

func newRouter(routes Routes, knows func(key string) bool) *router {
	r := &router{routes: routes, knows: knows}
	for _, route := range routes {
		if !slices.Contains(r.relays, route.Relay) {
			r.relays, r.weights = append(r.relays, route.Relay), append(r.weights, route.Weight)
		}
	}
	return r
}

// route returns the relays that may take mail of a key from sender, as indexes of
// relays, best first, and the name by which the store files such mail. There are none
// when no relay takes it.
func (r *router) route(key, sender string) (name string, relays []int) {
	var names []string
	for _, relay := range r.routes.For(key, sender) {
		relays = append(relays, slices.Index(r.relays, relay))
		names = append(names, relay.Name())
	}
	return strings.Join(names, ","), relays
}

// now returns the route that work has by now. There are no relays when none takes it: its
// sender's mail goes nowhere, or the relay that may have taken it is not configured any
// more, or does not take mail of that key and sender any more.
func (r *router) now(w *Work) (name string, relays []int) {
	name, relays = r.route(w.Key, w.Sender)
	taken := TakenBy(w.Route)
	switch {
	case taken != "":
		only := r.named(taken)
		if r.knows(w.Key) && len(only) > 0 && !slices.Contains(relays, only[0]) {
			only = nil
		}
		return w.Route, only
	case !r.knows(w.Key):
		if n, had := r.still(w.Route); len(had) > 0 {
			return n, had
		}
	}
	return name, relays
}

// still returns those relays of a stored route that are configured, and the name of the
// route that they are.
func (r *router) still(route string) (name string, relays []int) {
	var names []string
	for _, had := range relaysOf(route) {
		if i := r.named(had); len(i) > 0 && !slices.Contains(relays, i[0]) {
			relays, names = append(relays, i[0]), append(names, r.relays[i[0]].Name())
		}
	}
	return strings.Join(names, ","), relays
}

// names are those of the relays.
func (r *router) names() []string {
	names := make([]string, len(r.relays))
	for i, relay := range r.relays {
		names[i] = relay.Name()
	}
	return names
}

// named returns the relay of that name. A name that was of one relay is of the first one
// when others of its host were configured since.
func (r *router) named(name string) []int {
	for _, want := range []string{name, name + "#1"} {
		i := slices.IndexFunc(r.relays, func(d mailer.Deliverer) bool { return d.Name() == want })
		if i >= 0 {
			return []int{i}
		}
	}
	return nil
}

// waitForOthers makes transient what is permanent at one relay only, unless each of the
// relays of the route said so of the recipient. One that was not asked, or that failed,
// may take it yet.
func waitForOthers(attempts []mailer.Attempt, relays int) {
	refused := map[string]int{}
	for _, a := range attempts {
		for _, r := range a.Results {
			if r.Failure != nil && r.Failure.OnlyHere() {
				refused[r.ForwardPath]++
			}
		}
	}
	for _, a := range attempts {
		for i, r := range a.Results {
			if n := refused[r.ForwardPath]; n == 0 || n == relays || r.Failure == nil || !r.Failure.OnlyHere() {
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

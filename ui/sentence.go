package ui

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/ui/markup"
)

// sentence says on every page how mail is.
type sentence struct {
	State string // flows, waits, fails or unknown
	Text  string
	To    markup.URL // of the page that says what to do; empty: nothing has to be done
	What  string     // text of that link
	// Change is what a screen reader says when the state has changed; empty: what the state
	// says by itself.
	Change string
}

const (
	flows   = "flows"
	waits   = "waits"
	fails   = "fails"
	unknown = "unknown"
)

// lateAfter is since when mail that is due counts as waiting: less is the time that it
// takes.
const lateAfter = 2 * time.Minute

// facts are what a page knows of the server. Each is asked for once.
type facts struct {
	stats    *api.Stats
	statsErr error
	relays   []api.Relay
	relayErr error
	drain    *api.Drain // nil for others than admins, and where it is not known
	week     bool       // the numbers of seven days are wanted, too
	asked    struct{ stats, relays, drain bool }
}

func (v *visit) stats() (*api.Stats, error) {
	if !v.facts.asked.stats {
		v.facts.asked.stats = true
		var s api.Stats
		var query url.Values
		if v.facts.week {
			query = url.Values{"days": {"7"}}
		}
		if v.facts.statsErr = v.get("/v1/stats", query, &s); v.facts.statsErr == nil {
			v.facts.stats = &s
		}
	}
	return v.facts.stats, v.facts.statsErr
}

func (v *visit) relays() ([]api.Relay, error) {
	if !v.facts.asked.relays {
		v.facts.asked.relays = true
		var r api.Relays
		v.facts.relayErr = v.get("/v1/relays", nil, &r)
		v.facts.relays = r.Relays
	}
	return v.facts.relays, v.facts.relayErr
}

func (v *visit) drain() *api.Drain {
	if !v.facts.asked.drain && v.isAdmin {
		v.facts.asked.drain = true
		var d api.Drain
		if v.get("/v1/drain", nil, &d) == nil {
			v.facts.drain = &d
		}
	}
	return v.facts.drain
}

// sentence judges how mail is: what stops it first.
func (v *visit) sentence() *sentence {
	relays, _ := v.relays()
	var s *api.Stats
	var err error
	if v.mayRead {
		if s, err = v.stats(); err != nil && !isCode(err, api.CodeQueueRequired) {
			return &sentence{State: fails, Text: "What waits is not known: " + explain(err)}
		}
	}
	said := v.judge(s, relays, time.Now())
	if err != nil && said.State == flows {
		said.Text = "Nothing is stored (MAILSIDECAR_QUEUE=none): each request is answered with the relay's verdict."
	}
	if d := v.drain(); d != nil && d.Draining {
		left := "nothing is left to deliver"
		if d.Due > 0 {
			left = plural(d.Due, "recipient is", "recipients are") + " left to deliver"
		}
		return &sentence{State: waits, Text: "New mail is refused since " + clock(d.Since) + ", because an operator drains the server: " + left + ".", To: v.ui.to("relays") + "#drain", What: "End the drain", Change: "New mail is refused."}
	}
	return said
}

func (v *visit) judge(s *api.Stats, relays []api.Relay, now time.Time) *sentence {
	waiting, late := int64(0), time.Duration(0)
	if s != nil {
		waiting = s.Statuses[api.StatusQueued] + s.Statuses[api.StatusDeferred]
		if !s.OldestDue.IsZero() {
			late = max(now.Sub(s.OldestDue), 0)
		}
	}
	broken, usable := brokenRelay(relays)
	switch {
	case broken != nil && usable == 0:
		said := &sentence{State: waits, Text: "Mail waits: " + cause(*broken), To: v.ui.to("relays"), What: "What to do"}
		if waiting > 0 {
			said.Text = strings.TrimSuffix(said.Text, ".") + "; " + plural(waiting, "message waits", "messages wait") + "."
		}
		return said
	case s == nil:
		return &sentence{State: flows, Text: "The relays can be used."}
	case s.Hour.Bounced >= 3 && s.Hour.Bounced > s.Hour.Delivered:
		return &sentence{State: fails, Text: fmt.Sprintf("Mail fails: relays refused %s in the last hour, and took %s.", plural(s.Hour.Bounced, "recipient", "recipients"), number(s.Hour.Delivered)), To: v.ui.to() + "#why", What: "Why"}
	case broken != nil && late > lateAfter:
		return &sentence{State: waits, Text: fmt.Sprintf("Some mail waits, for %s: %s", inWords(late), cause(*broken)), To: v.ui.to("relays"), What: "What to do"}
	case late > lateAfter:
		said := &sentence{State: waits, Text: fmt.Sprintf("Mail waits: of %s the first has been due for %s.", plural(waiting, "message", "messages"), inWords(late)), To: v.ui.search("status:waiting"), What: "See them"}
		for _, r := range relays {
			if r.Rate != nil && r.Rate.Waiting > 0 {
				said.Text = fmt.Sprintf("Mail waits for its turn: %s may have %s in %s, and the first has been due for %s.", r.Name, plural(int64(r.Rate.Messages), "message", "messages"), period(r.Rate.Per), inWords(late))
			}
		}
		return said
	}
	said := &sentence{State: flows, Text: "Mail flows: " + flow(s, waiting, late) + "."}
	switch held := s.Statuses[api.StatusHeld]; {
	case broken != nil:
		said.State = waits
		said.Text += " But " + cause(*broken)
		said.To, said.What = v.ui.to("relays"), "What to do"
	case held > 0:
		said.Text += " " + plural(held, "message is", "messages are") + " held until a person decides."
		said.To, said.What = v.ui.search("status:held"), "See them"
	}
	return said
}

func flow(s *api.Stats, waiting int64, late time.Duration) string {
	sent := number(s.Hour.Delivered) + " sent in the last hour"
	if s.Hour.Delivered == 0 {
		sent = "nothing was sent in the last hour"
	}
	switch {
	case waiting == 0:
		return sent + ", and nothing waits"
	case late == 0:
		return sent + ", and " + plural(waiting, "message waits", "messages wait") + " for a later time"
	default:
		return sent + ", and none waits longer than " + inWords(max(late, time.Second))
	}
}

// brokenRelay returns the first relay that cannot be used, and how many can.
func brokenRelay(relays []api.Relay) (broken *api.Relay, usable int) {
	for i, r := range relays {
		if r.Status == api.RelayPaused || r.Status == api.RelayFailing {
			if broken == nil {
				broken = &relays[i]
			}
		} else {
			usable++
		}
	}
	return broken, usable
}

// cause says in a sentence, without its capital, why a relay cannot be used.
func cause(r api.Relay) string {
	name := "the relay " + cut(r.Name, 60)
	broken := name + " does not work"
	if !r.FailingSince.IsZero() {
		broken = name + " has not worked since " + clock(r.FailingSince)
	}
	switch p := r.PausedByOperator; {
	case p != nil && p.Reason != "":
		return fmt.Sprintf("an operator paused %s at %s (%s).", name, clock(p.Since), cut(p.Reason, 100))
	case p != nil:
		return fmt.Sprintf("an operator paused %s at %s.", name, clock(p.Since))
	case len(r.Advice) > 0:
		return broken + ": " + full(cut(r.Advice[0].Found, 200))
	case r.Failure != nil:
		return broken + ": " + full(cut(r.Failure.String(), 200))
	default:
		return broken + "."
	}
}

// full ends a sentence.
func full(text string) string {
	if text = strings.TrimRight(text, " "); strings.HasSuffix(text, ".") || strings.HasSuffix(text, "…") {
		return text
	}
	return text + "."
}

// clock is a time of day in UTC, with its date where that is another one, or nearly.
func clock(t time.Time) string {
	if time.Since(t).Abs() > 20*time.Hour {
		return t.UTC().Format("2 Jan 15:04")
	}
	return t.UTC().Format("15:04")
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// period is a duration of the API, such as "1m0s", as people say it.
func period(text string) string {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return text
	case d == time.Second:
		return "a second"
	case d == time.Minute:
		return "a minute"
	case d == time.Hour:
		return "an hour"
	case d == 24*time.Hour:
		return "a day"
	default:
		return inWords(d)
	}
}

// explain says what went wrong with a part of a page.
func explain(err error) string {
	if e, ok := errors.AsType[*answerError](err); ok {
		return e.Error()
	}
	return "the store does not answer. Try again in a moment."
}

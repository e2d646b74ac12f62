package ui

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"mailsidecar/api"
	"mailsidecar/ui/markup"
)

const (
	// actionStep is how many messages one request of a command by search changes.
	actionStep = 500
	// actionTime limits one step. Searching for what it changes may take a while.
	actionTime = 25 * time.Second
	// maxTicked is how many messages of a list can be ticked.
	maxTicked = api.DefaultPage
	// maxToldFaults is how many of the messages that could not be changed are named.
	maxToldFaults = 20
)

// action is what a person wants done to several messages.
type action struct {
	Name    string // retry, cancel or export
	Verb    string // for its button
	Doing   string // such as "Retried", before a number
	Says    string // what it does, in a sentence
	Danger  bool
	route   string
	anybody bool // no change: the role read suffices
	atLeast bool // what matches may be less than what changes
}

var actions = map[string]action{
	"retry": {
		Name: "retry", Verb: "Retry", Doing: "Retried", route: "/v1/messages/retry", atLeast: true,
		Says: "Each recipient that waits or failed is tried again at once. What is delivered stays as it is.",
	},
	"cancel": {
		Name: "cancel", Verb: "Cancel", Doing: "Canceled", route: "/v1/messages/cancel", Danger: true,
		Says: "Recipients that wait are not sent to any more. What is delivered stays as it is. This cannot be undone.",
	},
	"export": {Name: "export", Verb: "Export", anybody: true},
}

// actionPage asks whether it is meant, or says how far it is.
type actionPage struct {
	action
	Total   string // messages, in words: "512 messages"
	None    bool   // there is nothing to do
	Search  string // what the messages match; empty where they were ticked
	Ticked  bool
	IDs     []string // ticked ones that are still to be done
	Filter  string   // the filter as a query
	Back    markup.URL
	CSRF    string
	Problem *trouble
	More    bool // the count took as long as it may: there are more
	// Of a step:
	Begun     bool
	Done, All int
	DoneText  string // "3,120 of 10,501"
	Cursor    string
	Unfit     int // messages that there was nothing to do for
	Failed    []string
	Paused    []api.PausedRelay
	Over      bool
	Formats   []format
	Left      int // ticked ones that are not done yet
	AllNumber int64
}

// postActions serves POST /ui/messages/actions. Without confirm it changes nothing: it counts,
// and asks. With it, it does one step, and the page leads to the next one.
func (v *visit) postActions() error {
	form := v.r.PostForm
	what, ok := actions[form.Get("action")]
	if !ok || !what.anybody && !v.has(mender) {
		return v.notFound()
	}
	p := actionPage{action: what, CSRF: v.csrf, Search: form.Get("q"), Ticked: form.Get("scope") == "ticked", Formats: formats}
	p.Back = v.ui.search(p.Search)
	if len(p.Search) > maxSearch {
		return v.notFound()
	}
	// A step may take longer than a page, and keeps no other page out.
	v.endTurn()
	ctx, cancel := context.WithTimeout(v.r.Context(), actionTime)
	defer cancel()
	v.ctx = ctx
	switch {
	case form.Get("confirm") == "yes" && p.Ticked:
		p.stepTicked(v, form)
	case form.Get("confirm") == "yes":
		p.step(v, form)
	case p.Ticked:
		p.askTicked(form)
	default:
		p.ask(v)
	}
	status := http.StatusOK
	v.calls = 0 // those of the frame
	v.show(status, "action.html", page{Title: what.Verb + " messages", Nav: "messages", Data: p})
	return nil
}

// askTicked asks about the ticked messages.
func (p *actionPage) askTicked(form url.Values) {
	p.IDs = tickedIDs(form)
	p.AllNumber = int64(len(p.IDs))
	p.Total, p.None = countWords(len(p.IDs)), len(p.IDs) == 0
	p.All = len(p.IDs)
}

func tickedIDs(form url.Values) []string {
	ids := form["id"]
	ids = ids[:min(len(ids), maxTicked)]
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "" || len(id) > 100 })
}

// ask counts the messages that match, and asks about them. Those that are accepted from now
// on are not among them.
func (p *actionPage) ask(v *visit) {
	now := time.Now().UTC()
	s := parseSearch(p.Search, now)
	if len(s.Faults) > 0 {
		p.Problem = &trouble{Title: "Nothing was done: not all of the search is understood.", Detail: s.Faults[0]}
		return
	}
	f := s.Filter
	if until, err := time.Parse(time.RFC3339Nano, f.Until); err != nil || until.After(now) { // as of until:today
		f.Until = now.Format(time.RFC3339Nano)
	}
	p.Filter = f.Query().Encode()
	n, more, err := v.count(p.action, f)
	if err != nil {
		p.Problem = v.troubleOf(err)
		return
	}
	p.All, p.More, p.None = n, more, n == 0 && !more
	p.AllNumber = int64(n)
	switch p.Total = countWords(n); {
	case more:
		p.Total = "more than " + p.Total
	case p.atLeast && n > 0:
		p.Total = "up to " + p.Total
	}
}

// count says how many messages the action concerns; more says that there may be others.
func (v *visit) count(what action, f api.Filter) (n int, more bool, err error) {
	cursor := ""
	for range 3 { // each takes 2 s at most
		var m api.Matching
		if what.route == "" {
			q := f.Query()
			if cursor != "" {
				q.Set("cursor", cursor)
			}
			err = v.get("/v1/messages/count", q, &m)
		} else {
			err = v.post(what.route, api.Bulk{Filter: f, DryRun: true, Cursor: cursor}, &m)
		}
		if err != nil {
			return 0, false, err
		}
		n += m.Matching
		if cursor = m.Next; cursor == "" {
			return n, false, nil
		}
	}
	return n, true, nil
}

// step does the next messages of those that match.
func (p *actionPage) step(v *visit, form url.Values) {
	query, err := url.ParseQuery(form.Get("filter"))
	if err != nil || p.route == "" {
		p.Problem = &trouble{Title: "The form did not arrive as a whole.", Detail: "Go back, and begin again."}
		return
	}
	p.Begun, p.Filter, p.Cursor = true, form.Get("filter"), form.Get("cursor")
	p.Done, p.All, p.Unfit = whole(form.Get("done")), whole(form.Get("total")), whole(form.Get("unfit"))
	var did struct {
		Retried, Canceled, Matched int
		Next                       string
		Paused                     []api.PausedRelay `json:"paused_relays"`
	}
	err = v.post(p.route, api.Bulk{Filter: filterOf(query), Cursor: p.Cursor, Limit: actionStep}, &did)
	if err != nil {
		p.Problem = v.troubleOf(err)
	} else {
		p.Done += did.Retried + did.Canceled
		p.Unfit += max(did.Matched-did.Retried-did.Canceled, 0)
		p.Cursor, p.Paused, p.Over = did.Next, did.Paused, did.Next == ""
	}
	p.All = max(p.All, p.Done)
	p.progress()
}

// whole reads a number of a form; what is none is zero, for it is only shown.
func whole(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1e9 {
		return 0
	}
	return n
}

func (p *actionPage) progress() {
	p.DoneText = number(p.Done)
	if !p.Over || p.Done < p.All && p.Ticked {
		p.DoneText += " of " + number(p.All)
	}
}

// stepTicked does the ticked messages, one by one, as many as there is time for.
func (p *actionPage) stepTicked(v *visit, form url.Values) {
	p.Begun = true
	p.Done, p.All, p.Unfit = whole(form.Get("done")), whole(form.Get("total")), whole(form.Get("unfit"))
	ids := tickedIDs(form)
	end := time.Now().Add(actionTime / 2)
	v.calls = -len(ids) // each is a call of its own
	for len(ids) > 0 && time.Now().Before(end) {
		err := v.doOne(p.Name, ids[0])
		switch {
		case err == nil:
			p.Done++
		case isCode(err, api.CodeNothingToRetry, api.CodeNothingToCancel):
			p.Unfit++
		case isCode(err, api.CodeMessageNotFound, api.CodeContentGone):
			if len(p.Failed) < maxToldFaults {
				p.Failed = append(p.Failed, ids[0]+": "+err.Error())
			}
		default:
			p.Problem = v.troubleOf(err)
			p.IDs, p.Left = ids, len(ids)
			p.progress()
			return
		}
		ids = ids[1:]
	}
	p.IDs, p.Left, p.Over = ids, len(ids), len(ids) == 0
	p.progress()
}

// doOne retries or cancels one message.
func (v *visit) doOne(action, id string) error {
	path := "/v1/messages/" + url.PathEscape(id)
	if action == "cancel" {
		return v.call(v.ctx, http.MethodDelete, path, nil, nil, nil)
	}
	return v.post(path+"/retry", nil, nil)
}

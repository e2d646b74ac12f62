package ui

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"mailsidecar/api"
	"mailsidecar/ui/markup"
)

// overview is the first page.
type overview struct {
	Problem string // why there are no numbers
	Figures []figure
	Charts  []*chart
	Relays  []relayView
	// RelayProblem is why there are no relays.
	RelayProblem string
	Replies      []replyView
	Keys         []api.StatsKey // none for others than admins
	Events       []api.Event    // the newest; likewise
	Earlier      []api.Event    // those before
	EventProblem string
	Empty        bool // no message is stored, and none was accepted lately
	MaySend      bool
	Server       string // as the browser reached it
	Counting     bool
}

// figure is a number that leads to the messages which it counts.
type figure struct {
	Label string
	Value string
	Note  string
	To    markup.URL
	State string // colours it; empty: plain
}

// replyView is a reason for which mail failed.
type replyView struct {
	api.StatsReply
	Search string     // the messages that it is the last failure of; empty where no search says so
	To     markup.URL // these
}

const (
	// mostReplies is how many reasons are shown, and mostEvents how many events at once.
	mostReplies = 10
	mostEvents  = 6
	// mostKeys is how many keys are shown: those that sent the most.
	mostKeys = 10
)

// getOverview serves GET /ui/.
func (v *visit) getOverview() error {
	o := overview{MaySend: v.maySend, Server: v.server()}
	v.facts.week = true
	relays, err := v.relays()
	if err != nil {
		o.RelayProblem = explain(err)
	}
	for _, r := range relays {
		o.Relays = append(o.Relays, v.ui.newRelayView(r))
	}
	if v.mayRead {
		s, err := v.stats()
		switch {
		case err == nil:
			v.fill(&o, s, time.Now())
		case !isCode(err, api.CodeQueueRequired):
			o.Problem = explain(err)
		}
	}
	if v.isAdmin {
		var happened api.Events
		if err := v.get("/v1/events", nil, &happened); err != nil {
			o.EventProblem = explain(err)
		}
		n := min(len(happened.Events), mostEvents)
		o.Events, o.Earlier = happened.Events[:n], happened.Events[n:]
	}
	v.show(http.StatusOK, "overview.html", page{Title: "Overview", Nav: "overview", Data: o})
	return nil
}

func (v *visit) fill(o *overview, s *api.Stats, now time.Time) {
	all := int64(0)
	for _, n := range s.Statuses {
		all += n
	}
	o.Counting = s.Counting
	o.Empty = all == 0 && s.Day.Messages == 0
	waiting := s.Statuses[api.StatusQueued] + s.Statuses[api.StatusDeferred]
	sent := figure{Label: "Sent in the last hour", Value: number(s.Hour.Delivered), Note: plural(s.Day.Delivered, "recipient", "recipients") + " in 24 hours", To: v.ui.search(`state:delivered after:"1 hour ago"`)}
	wait := figure{Label: "Waiting now", Value: number(waiting), Note: number(s.Statuses[api.StatusDeferred]) + " tried before", To: v.ui.search("status:waiting")}
	oldest := figure{Label: "Longest wait", Value: "none", Note: "nothing is due", To: v.ui.search("status:waiting")}
	if !s.OldestDue.IsZero() {
		late := max(now.Sub(s.OldestDue), 0)
		oldest.Value, oldest.Note = inWords(late), "due since "+clock(s.OldestDue)
		if late > lateAfter {
			oldest.State = waits
		}
	}
	failed := figure{Label: "Refused in 24 hours", Value: number(s.Day.Bounced), Note: plural(s.Hour.Bounced, "time", "times") + " in the last hour", To: v.ui.search(`status:bounced after:"24 hours ago"`)}
	if s.Hour.Bounced > 0 {
		failed.State = fails
	}
	o.Figures = []figure{sent, wait, oldest, failed}
	if held := s.Statuses[api.StatusHeld]; held > 0 {
		o.Figures = append(o.Figures, figure{Label: "Held", Value: number(held), Note: "until a person decides", To: v.ui.search("status:held"), State: waits})
	}
	if !o.Empty {
		o.Charts = append(o.Charts, newChart("day", "The last 24 hours", s.Buckets, 10*time.Minute, 6, "15:04", []string{"24 h ago", "18 h", "12 h", "6 h", "now"}))
	}
	if n := len(s.Hours); n > 0 && !o.Empty {
		var marks []string
		for day := 0; day < n; day += 24 {
			marks = append(marks, s.Hours[day].At.UTC().Format("Mon"))
		}
		o.Charts = append(o.Charts, newChart("week", "The last 7 days", s.Hours, time.Hour, 24, "2 Jan 15:04", marks))
	}
	for _, r := range s.Replies[:min(len(s.Replies), mostReplies)] {
		view := replyView{StatsReply: r, Search: replySearch(r.Filter)}
		view.To = v.ui.search(view.Search)
		o.Replies = append(o.Replies, view)
	}
	if v.isAdmin && len(s.Keys) > 0 && s.Keys[0].Name != "" {
		o.Keys = slices.Clone(s.Keys)
		slices.SortStableFunc(o.Keys, func(a, b api.StatsKey) int { return cmp.Compare(b.Day.Messages, a.Day.Messages) })
		o.Keys = o.Keys[:min(len(o.Keys), mostKeys)]
	}
}

// replySearch is the search for the messages of a reply. Failed attempts that led to a
// delivery in the end are not among them.
func replySearch(f api.StatsFilter) string {
	text := searchText(api.Filter{Relay: f.Relay, ReplyCode: f.ReplyCode, EnhancedCode: f.EnhancedCode, Text: f.Text})
	if len(text) > maxSearch {
		return ""
	}
	return text
}

// server is the address that the browser has asked, without its path.
func (v *visit) server() string {
	scheme := "http://"
	if overHTTPS(v.r) {
		scheme = "https://"
	}
	return scheme + v.r.Host + v.ui.prefix
}

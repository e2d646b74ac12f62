package ui

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/ui/markup"
)

// maxBack is how many pages a list can be gone back, page by page.
const maxBack = 20

// messagesPage is the list of messages.
type messagesPage struct {
	Text    string // of the search
	Chips   []chipLink
	Faults  []string
	Tabs    []tab
	Rows    []messageRow
	Problem *trouble // why there is no list

	Next, Previous, Newest markup.URL // empty where there is none
	// SearchedBackTo is set where the search took as long as it may; Next goes on with it.
	SearchedBackTo time.Time
	Empty          string // what to say in place of an empty list
	// All is how many messages match, in words: "all 512 that match".
	All     string
	MayMend bool
	// Refresh is for lists that cost little: the others are not asked for again and again.
	Refresh bool
	CSRF    string
}

// chipLink shows one part of the search, and leads to the search without it.
type chipLink struct {
	Name, Value string
	Without     markup.URL
}

// tab leads to the messages with a status.
type tab struct {
	Name, Count string
	To          markup.URL
	Current     bool
}

// messageRow is one message of the list.
type messageRow struct {
	ID      string
	To      markup.URL // of its page
	At      time.Time
	From    string
	Rcpt    string
	More    int // recipients
	Subject string
	Status  string
	Means   string // what the status means
	Reason  string // short
	Why     string // the reason in full
	Next    time.Time
}

// trouble is an error of the API, as a page shows it.
type trouble struct {
	Title, Detail string
	Fields        []api.FieldError
	Code          api.Code
	Retryable     bool
	RequestID     string
}

// troubleOf makes an error one that a page shows in its place. An error that is not the API's
// says that the server did not answer; the log has it.
func (v *visit) troubleOf(err error) *trouble {
	if e, ok := errors.AsType[*answerError](err); ok {
		t := &trouble{Title: e.Title, Detail: e.Detail, Fields: e.Errors, Code: e.Code, Retryable: e.Retryable, RequestID: e.RequestID}
		if t.Detail == t.Title {
			t.Detail = ""
		}
		t.Fields = slices.DeleteFunc(slices.Clone(t.Fields), func(f api.FieldError) bool {
			return strings.Contains(t.Detail, f.Message) || t.Code == api.CodeAlreadyResent // whose page asks
		})
		return t
	}
	if err := v.ctx.Err(); err != nil {
		return &trouble{Title: "The store does not answer in time.", Detail: "Try again in a moment. Dates make a search quick, as in after:yesterday.", Retryable: true}
	}
	v.ui.log.Error("page failed", "path", v.r.URL.Path, "error", err)
	return &trouble{Title: "The server could not answer.", Detail: "Its log has the cause.", Retryable: true}
}

// statusMeans says what each status of a message means.
var statusMeans = map[string]string{
	api.StatusQueued:    "nothing was tried yet",
	api.StatusDeferred:  "it waits for the next try",
	api.StatusHeld:      "it waits for a person: retry or cancel it",
	api.StatusDelivered: "the relay accepted it for every recipient",
	api.StatusPartial:   "the relay accepted it for some recipients, and not for the others",
	api.StatusFailed:    "no recipient gets it",
	api.StatusCanceled:  "somebody canceled it",
}

// tabs are those of the list. Text is the search that each leads to.
var tabs = []struct {
	name, text string
	statuses   []string
	always     bool // also where there are none
}{
	{"All", "", []string{api.StatusQueued, api.StatusDeferred, api.StatusHeld, api.StatusDelivered, api.StatusPartial, api.StatusFailed, api.StatusCanceled}, true},
	{"Waiting", "status:waiting", []string{api.StatusQueued, api.StatusDeferred}, true},
	{"Held", "status:held", []string{api.StatusHeld}, true},
	{"Failed", "status:failed", []string{api.StatusFailed}, true},
	{"Partly sent", "status:partial", []string{api.StatusPartial}, false},
	{"Sent", "status:delivered", []string{api.StatusDelivered}, true},
}

// getMessages serves GET /ui/messages.
func (v *visit) getMessages() error {
	query := v.r.URL.Query()
	s := parseSearch(query.Get("q"), time.Now().UTC())
	m := messagesPage{Text: s.Text, Faults: s.Faults, MayMend: v.has(mender), CSRF: v.csrf}
	for _, c := range s.Chips {
		m.Chips = append(m.Chips, chipLink{c.Name, c.Value, v.ui.search(c.Without)})
	}
	counts := v.statuses()
	m.Tabs = v.tabs(s, counts)
	if len(s.Faults) == 0 {
		m.list(v, s, query)
		m.All = allOf(s, counts, m)
	}
	v.show(http.StatusOK, "messages.html", page{Title: "Messages", Nav: "messages", Data: m})
	return nil
}

// statuses are how many messages have each status; nil where it is not known: a list without
// numbers is better than none.
func (v *visit) statuses() map[string]int64 {
	stats, err := v.stats()
	if err != nil {
		return nil
	}
	return stats.Statuses
}

func (v *visit) tabs(s search, counts map[string]int64) (all []tab) {
	for _, t := range tabs {
		var n int64
		for _, status := range t.statuses {
			n += counts[status]
		}
		target := parseSearch(t.text, time.Time{}).Filter
		current := s.Filter.Status == target.Status && len(s.Faults) == 0
		if !t.always && n == 0 && !current {
			continue
		}
		one := tab{Name: t.name, Current: current, To: v.ui.search(withStatus(s, t.text))}
		if counts != nil && (s.Filter == api.Filter{} || s.Filter == api.Filter{Status: s.Filter.Status}) {
			one.Count = number(n) // of a search by anything else it is not known
		}
		all = append(all, one)
	}
	return all
}

// withStatus is the text of the search with this status in place of its own.
func withStatus(s search, status string) string {
	text := s.Text
	for _, c := range s.Chips {
		if c.Name == "status" {
			text = c.Without
		}
	}
	return joinWords(text, status)
}

// allOf is what the choice of all messages that match is called.
func allOf(s search, counts map[string]int64, m messagesPage) string {
	for _, t := range tabs {
		if counts != nil && (s.Filter == parseSearch(t.text, time.Time{}).Filter) {
			var n int64
			for _, status := range t.statuses {
				n += counts[status]
			}
			return allMatching(n)
		}
	}
	if m.Next == "" && m.Newest == "" && m.Problem == nil {
		return allMatching(int64(len(m.Rows)))
	}
	return "all that match"
}

func allMatching(n int64) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "the 1 that matches"
	default:
		return "all " + number(n) + " that match"
	}
}

// refreshes says that only those parts of the page are looked at that change by themselves.
func (v *visit) refreshes() bool { return v.r.Header.Get("Mailsidecar-Refresh") != "" }

// list asks for one page of the list.
func (m *messagesPage) list(v *visit, s search, query url.Values) {
	asked := s.Filter.Query()
	asked.Set("limit", strconv.Itoa(api.DefaultPage))
	cursor, back := query.Get("cursor"), query["back"]
	if cursor != "" {
		asked.Set("cursor", cursor)
	}
	var list api.Page // without messages: each is a row as soon as it is read
	quick := s.Filter
	quick.Status = ""
	m.Refresh = cursor == "" && quick == api.Filter{} && s.Filter.Status != api.StateBounced && s.Filter.Status != api.StateExpired
	if v.refreshes() && !m.Refresh {
		return // the list that is there stays
	}
	err := v.readPage("/v1/messages?"+asked.Encode(), &list, func(message api.Message) {
		m.Rows = append(m.Rows, v.row(message))
	})
	if err != nil {
		m.Rows = nil
		m.Problem = v.troubleOf(err)
	}
	at := func(cursor string, back []string) markup.URL {
		q := url.Values{}
		if s.Text != "" {
			q.Set("q", s.Text)
		}
		if cursor != "" {
			q.Set("cursor", cursor)
			q["back"] = back[max(0, len(back)-maxBack):]
		}
		if len(q) == 0 {
			return v.ui.to("messages")
		}
		return v.ui.to("messages") + markup.URL("?"+q.Encode())
	}
	if list.Next != "" {
		m.Next = at(list.Next, append(back, cursor))
		m.SearchedBackTo = list.SearchedBackTo
	}
	if cursor != "" {
		m.Newest = at("", nil)
		if n := len(back) - 1; n >= 0 {
			m.Previous = at(back[n], back[:n])
		}
	}
	if len(m.Rows) == 0 && m.Problem == nil {
		switch {
		case !m.SearchedBackTo.IsZero():
			m.Empty = "None of the messages that were looked at so far matches."
		case list.Next != "":
			m.Empty = "No message on this page matches. There are more pages."
		case s.Text == "":
			m.Empty = "There are no messages yet."
		default:
			m.Empty = "No message matches."
		}
	}
}

// readPage reads a page of a list. It holds one message at a time, for a page of messages
// with thousands of recipients is large.
func (v *visit) readPage(path string, rest *api.Page, each func(api.Message)) error {
	return v.readJSON(path, func(d *json.Decoder) error {
		if _, err := d.Token(); err != nil { // {
			return err
		}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return err
			}
			switch name {
			case "messages":
				if err := eachOf(d, each); err != nil {
					return err
				}
			case "next":
				err = d.Decode(&rest.Next)
			case "searched_back_to":
				err = d.Decode(&rest.SearchedBackTo)
			default:
				err = d.Decode(&json.RawMessage{})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func eachOf(d *json.Decoder, each func(api.Message)) error {
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return err // null is a list without messages
	}
	for d.More() {
		var m api.Message
		if err := d.Decode(&m); err != nil {
			return err
		}
		each(m)
	}
	_, err := d.Token() // ]
	return err
}

// maxLong is how many octets of a long answer are read.
const maxLong = 64 << 20

// readJSON reads a long answer of the API while it is made.
func (v *visit) readJSON(path string, use func(*json.Decoder) error) error {
	return v.read(path, func(status int, _ http.Header, body io.Reader) error {
		if status >= http.StatusBadRequest {
			return problemOf(status, body)
		}
		return use(json.NewDecoder(io.LimitReader(body, maxLong)))
	})
}

// problemOf reads an answer that is an error.
func problemOf(status int, body io.Reader) error {
	a := &answer{header: http.Header{}, status: status, left: maxAnswer}
	if _, err := io.Copy(a, io.LimitReader(body, 1<<20)); err != nil {
		return err
	}
	return a.problem()
}

// maxReason is how many characters of a reason a list shows.
const maxReason = 60

// row makes a message a row of the list.
func (v *visit) row(m api.Message) messageRow {
	r := messageRow{
		ID: m.ID, To: v.ui.to("messages", m.ID), At: m.CreatedAt, From: oneLine(m.Sender), Subject: short(oneLine(m.Subject), 200),
		Status: m.Status, Means: statusMeans[m.Status], Why: oneLine(reasonOf(m)), Next: nextTry(m),
	}
	if len(m.Recipients) > 0 {
		r.Rcpt, r.More = oneLine(m.Recipients[0].Email), len(m.Recipients)-1
	}
	if r.From == "" {
		r.From = oneLine(m.Envelope.ReversePath)
	}
	r.Reason = short(r.Why, maxReason)
	return r
}

// reasonOf is why a message waits, or why it failed.
func reasonOf(m api.Message) string {
	if len(m.Waits) > 0 {
		return m.Waits[0].Found
	}
	for _, r := range m.Recipients {
		if r.State == api.StateBounced || r.State == api.StateExpired || r.State == api.StateHeld {
			if said := r.String(); said != "" {
				return said
			}
			return r.State
		}
	}
	return ""
}

// nextTry is when the first of the recipients is tried again; zero where it is not known.
func nextTry(m api.Message) (next time.Time) {
	earlier := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, w := range m.Waits {
		earlier(w.Until)
	}
	for _, r := range m.Recipients {
		earlier(r.NextAttemptAt)
	}
	return next
}

// countWords is a number of messages in words.
func countWords(n int) string {
	if n == 1 {
		return "1 message"
	}
	return number(n) + " messages"
}

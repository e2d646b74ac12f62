package handler

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// readFilter validates the request. key says whose messages are meant.
func readFilter(r api.Filter, key string) (queue.Filter, []api.FieldError) {
	var f fieldErrors
	tag, value, _ := strings.Cut(r.Tag, ":")
	if r.Tag != "" && !isTagName(tag) {
		f.Add("tag", "must be NAME or NAME:VALUE")
	}
	status, state, among := queue.Status(r.Status), queue.State(""), queue.StatusSet(0)
	switch {
	case r.Status == api.StatusWaiting:
		status, among = "", queue.SetOf(queue.StatusQueued, queue.StatusDeferred)
	case r.Status == api.StateBounced || r.Status == api.StateExpired:
		status, state = "", queue.State(r.Status)
	case r.Status != "" && !slices.Contains(queue.Statuses, status):
		f.Add("status", fmt.Sprintf("must be one of %s, or waiting for queued and deferred, or bounced or expired for messages with such a recipient", wordList(queue.Statuses)))
	}
	recipientState := queue.State(r.RecipientState)
	if r.RecipientState != "" && !slices.Contains(queue.States, recipientState) {
		f.Add("recipient_state", "must be one of "+wordList(queue.States))
	}
	text, noText := f.textPattern(r.Text)
	return queue.Filter{
		Key: key, Status: status, Among: among, State: state, ID: f.idPrefix("id", r.ID),
		Recipient: f.addrSpec("recipient", r.Recipient), Domain: f.domain("domain", r.Domain), RecipientState: recipientState,
		Relay: r.Relay, ReplyCode: f.replyCode(r.ReplyCode), EnhancedCode: r.EnhancedCode, Text: text, NoText: noText,
		Sender: f.addrSpec("sender", r.Sender), Subject: f.subject(r.Subject), MessageID: r.MessageID, TagName: tag, TagValue: value,
		Since: f.time("since", r.Since, 0), Until: f.time("until", r.Until, 1),
	}, f.Fields
}

// filterNames are the members of [api.Filter].
const filterNames = "status, id, sender, subject, message_id, recipient, domain, recipient_state, relay, reply_code, enhanced_code, text, tag, since, until, key"

// maxFilterText is how long a pattern may be: each row is compared with all of it.
const maxFilterText = 1000

// wholeText stands before a text that is the whole one.
const wholeText = "="

// textPattern is the pattern of a text to look for: as a part, or behind wholeText as the whole. wholeText alone
// means replies that have no text.
func (f *fieldErrors) textPattern(text string) (pattern string, noText bool) {
	whole, isWhole := strings.CutPrefix(text, wholeText)
	switch {
	case text == "":
		return "", false
	case len(text) > maxFilterText:
		f.Add("text", fmt.Sprintf("may have %d octets", maxFilterText))
	case strings.ContainsRune(text, 0): // a store might end the pattern there, and find more
		f.Add("text", "may have no NUL in it")
	case isWhole:
		return whole, whole == ""
	}
	return "*" + strings.Trim(text, "*") + "*", false
}

// Limits of the words that are looked for in subjects: each row is compared with all of them.
const (
	maxFilterSubject = 256
	maxFilterWords   = 20
)

// subject reads the words to look for in subjects. Without a word it would select all messages.
func (f *fieldErrors) subject(text string) string {
	words := len(queue.SubjectWords(text))
	switch {
	case text == "":
	case len(text) > maxFilterSubject || words > maxFilterWords:
		f.Add("subject", fmt.Sprintf("may have %d words, and %d octets", maxFilterWords, maxFilterSubject))
	case strings.ContainsRune(text, 0) || !utf8.ValidString(text):
		f.Add("subject", "must be words in UTF-8, without a NUL")
	case words == 0:
		f.Add("subject", "has no word in it")
	}
	return text
}

const notReplyCode = "must be a reply code from 400 to 599"

func (f *fieldErrors) replyCode(code int) int {
	if code != 0 && (code < 400 || code > 599) {
		f.Add("reply_code", notReplyCode)
	}
	return code
}

func wordList[S ~string](words []S) string {
	names := make([]string, len(words))
	for i, s := range words {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// idPrefix and domain read what is looked for in the form that is stored.
func (f *fieldErrors) idPrefix(field, text string) string {
	if text == "" {
		return ""
	}
	prefix, err := queue.ParseIDPrefix(text)
	if err != nil {
		f.Add(field, err.Error())
	}
	return prefix
}

func (f *fieldErrors) domain(field, text string) string {
	if text == "" {
		return ""
	}
	domain, err := mailer.CanonicalDomain(text)
	if err != nil || strings.ContainsAny(text, "@ ") {
		f.Add(field, "must be a domain such as example.org, without an @")
	}
	return domain
}

// addrSpec reads an address to look for in the form that is stored.
func (f *fieldErrors) addrSpec(field, text string) string {
	if text == "" {
		return ""
	}
	a, err := mailer.ParseAddress(text)
	if err != nil {
		f.Add(field, err.Error())
	}
	return a.Email
}

// time reads a point in time. A date is where that day begins in UTC, so many days later.
func (f *fieldErrors) time(field, text string, days int) time.Time {
	if text == "" {
		return time.Time{}
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, days)
	}
	at, err := parseTime(text)
	if err != nil {
		f.Add(field, errNotTime.Error()+", or a date such as 2030-01-31, which is in UTC")
	}
	return at
}

var errNotTime = errors.New("must be a time of RFC 3339, such as 2030-01-31T08:00:00Z")

// parseTime reads a time of RFC 3339, whose T and Z may be in lower case (§5.6).
func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil {
		return time.Time{}, errNotTime
	}
	return at, nil
}

func newMessage(m queue.Message) api.Message {
	b := api.Message{
		ID: m.ID, Status: string(m.Status()), MessageID: m.MessageID, Sender: m.Sender, Subject: m.Subject, Size: m.Size, Tags: m.Tags,
		Key: m.Key, Priority: m.Envelope.Priority.String(),
		Envelope:  api.Envelope{ReversePath: m.Envelope.ReversePath, ForwardPaths: m.Envelope.ForwardPaths},
		CreatedAt: inUTC(m.Created), SendAt: inUTC(m.SendAt), ExpiresAt: inUTC(m.Expires), Recipients: newRecipients(m),
		EarlierAttempts: m.EarlierAttempts, ResentOf: m.ResentOf, ResentAs: m.ResentAs,
	}
	for _, a := range m.Attempts {
		b.Attempts = append(b.Attempts, newAttempt(a))
	}
	return b
}

func newAttempt(a mailer.Attempt) api.Attempt {
	b := api.Attempt{
		Relay: a.Relay, Why: a.Why, Port: a.Rung.Port, TLS: a.TLS, Auth: a.Auth,
		StartedAt: inUTC(a.Started), DurationMS: a.Duration.Milliseconds(),
	}
	for _, r := range a.Ladder {
		rung := api.Rung{Port: r.Rung.Port, Mode: r.Rung.Mode(), Won: r.Won, DurationMS: r.Duration.Milliseconds()}
		if f := r.Failure; f != nil {
			rung.Stage, rung.Text = f.Stage.String(), f.Text
			if f.Reply.Code != 0 {
				rung.Text = f.Reply.String()
			}
		}
		b.Ladder = append(b.Ladder, rung)
	}
	for _, r := range a.Results {
		b.Results = append(b.Results, api.Result{Email: r.ForwardPath, Outcome: newOutcome(r)})
	}
	return b
}

// selection reads the query of a route that selects messages; limited says whether it takes a limit.
func (s *Server) selection(c echo.Context, limited bool) (filter queue.Filter, page paging, err error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return filter, page, problem.New(api.CodeInvalidParameter, "The query cannot be read.")
	}
	r, page, bad := readQuery(query, limited)
	whose, err := scopeOf(c, r.Key)
	if err != nil {
		return filter, page, err
	}
	filter, wrong := readFilter(r, whose)
	if bad = append(bad, wrong...); len(bad) > 0 {
		return filter, page, problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if s.ledger == nil {
		return filter, page, queue.ErrQueueRequired
	}
	return filter, page, nil
}

// getCount serves GET /v1/messages/count.
func (s *Server) getCount(c echo.Context) error {
	filter, page, err := s.selection(c, false)
	if err != nil {
		return err
	}
	n, next, err := s.ledger.Count(c.Request().Context(), filter, page.cursor)
	if errors.Is(err, queue.ErrInvalidCursor) {
		return badCursor()
	}
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, api.Matching{Matching: n, Next: next})
}

// getMessages serves GET /v1/messages, the newest first.
func (s *Server) getMessages(c echo.Context) error {
	filter, page, err := s.selection(c, true)
	if err != nil {
		return err
	}
	found, err := s.ledger.List(c.Request().Context(), filter, page.limit, page.cursor)
	if errors.Is(err, queue.ErrInvalidCursor) {
		return badCursor()
	}
	if err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	if !share.Grow(compat.AnswerShare(found.Messages...)) {
		return problem.New(api.CodeBusy, "")
	}
	b := api.Page{Messages: make([]api.Message, len(found.Messages)), Next: found.Next, SearchedBackTo: inUTC(found.SearchedBackTo)}
	relays, now := s.relayStatus(), time.Now()
	for i, m := range found.Messages {
		b.Messages[i] = newMessage(m)
		b.Messages[i].Waits = waitsOf(m, relays, now)
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

type paging struct {
	limit  int
	cursor string
}

// readQuery is strict, too: a misspelt filter would select everything.
func readQuery(query url.Values, limited bool) (r api.Filter, p paging, bad []api.FieldError) {
	limit, code := strconv.Itoa(api.DefaultPage), ""
	known := map[string]*string{
		"status": &r.Status, "id": &r.ID, "domain": &r.Domain, "recipient_state": &r.RecipientState, "recipient": &r.Recipient, "sender": &r.Sender, "subject": &r.Subject, "tag": &r.Tag, "message_id": &r.MessageID,
		"since": &r.Since, "until": &r.Until, "key": &r.Key, "limit": &limit, "relay": &r.Relay, "reply_code": &code, "enhanced_code": &r.EnhancedCode, "text": &r.Text, "cursor": &p.cursor,
	}
	if !limited {
		delete(known, "limit")
	}
	bad = readParameters(query, known)
	var err error
	if p.limit, err = strconv.Atoi(limit); err != nil || p.limit < 1 || p.limit > api.MaxPage {
		bad = append(bad, problem.At("limit", fmt.Sprintf("must be a number from 1 to %d", api.MaxPage)))
	}
	if r.ReplyCode, err = strconv.Atoi(code); err != nil && code != "" {
		bad = append(bad, problem.At("reply_code", notReplyCode))
	}
	slices.SortFunc(bad, func(a, b api.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return r, p, bad
}

// readParameters reads the parameters of a route, each of which may be given once.
func readParameters(query url.Values, known map[string]*string) (bad []api.FieldError) {
	for name, values := range query {
		switch to := known[name]; {
		case to == nil:
			bad = append(bad, problem.At(problem.Cut(name), "is not a parameter of this route"))
		case len(values) > 1:
			bad = append(bad, problem.At(name, "is given twice"))
		default:
			*to = values[0]
		}
	}
	slices.SortFunc(bad, func(a, b api.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return bad
}

// getMessage serves GET /v1/messages/{id}: the message's story.
func (s *Server) getMessage(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	m, err := s.ledger.Get(c.Request().Context(), scope(c), id)
	if err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	if !share.Grow(compat.AnswerShare(m)) {
		return problem.New(api.CodeBusy, "")
	}
	b := newMessage(m)
	b.Waits = waitsOf(m, s.relayStatus(), time.Now())
	b.Content = newKept(m)
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

// newKept says how long the message's content is kept.
func newKept(m queue.Message) *api.Kept {
	k := &api.Kept{Kept: !m.Kept.Gone, Until: inUTC(m.Kept.Until)}
	failed := slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return r.State == queue.Bounced || r.State == queue.Expired })
	switch {
	case k.Kept && k.Until.IsZero():
	case k.Kept && failed:
		k.Setting = api.KeepsFailed
	default:
		k.Setting = api.KeepsDelivered
	}
	return k
}

// getContent serves GET /v1/messages/{id}/content: the octets that go to the
// relay.
func (s *Server) getContent(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	ctx, key := c.Request().Context(), scope(c)
	m, err := s.ledger.Get(ctx, key, id)
	if err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	if !share.Grow(m.Size) {
		return problem.New(api.CodeBusy, "")
	}
	content, err := s.ledger.Content(ctx, key, id)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set(echo.HeaderContentDisposition, `attachment; filename="message.eml"`)
	h.Set(echo.HeaderContentType, intake.TypeRFC822)
	h.Set(echo.HeaderContentLength, strconv.Itoa(len(content)))
	c.Response().WriteHeader(http.StatusOK)
	// A client that does not read the answer must not keep others out.
	rc := http.NewResponseController(c.Response().Writer)
	share.MayCut(func() error { return rc.SetWriteDeadline(time.Unix(1, 0)) })
	_, _ = c.Response().Write(content) // the client sees by its length whether it is whole
	return nil
}

// postRetry serves POST /v1/messages/{id}/retry.
func (s *Server) postRetry(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	m, err := s.ledger.Retry(c.Request().Context(), scope(c), id)
	if err != nil {
		return err
	}
	b := newReceipt(m)
	b.Waits = slices.DeleteFunc(waitsOf(m, s.relayStatus(), time.Now()), func(w api.Wait) bool { return w.Reason == api.WaitInLine })
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

// deleteMessage serves DELETE /v1/messages/{id}: it cancels every recipient that is not
// in a final state.
func (s *Server) deleteMessage(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	m, err := s.ledger.Cancel(c.Request().Context(), scope(c), id)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, newReceipt(m))
}

// maxID is the length, in octets, up to which an id goes into the log: clients can make
// up any.
const maxID = 64

// scope says whose messages the request may see: those of its key, or of all keys.
func scope(c echo.Context) string { return compat.Scope(request(c).key) }

// scopeOf says so for a request that names a key; the empty name stands for all that the
// request may see. Another key than its own needs the role admin.
func scopeOf(c echo.Context, name string) (string, error) {
	key := request(c).key
	switch {
	case name == "":
		return scope(c), nil
	case name != key.Name():
		return name, key.Require(keys.Admin)
	default:
		return name, nil
	}
}

// storedID returns the id in the path, and records it for the log. Where nothing is
// stored the error is [queue.ErrQueueRequired].
func (s *Server) storedID(c echo.Context) (string, error) {
	id := c.Param("id")
	if len(id) <= maxID {
		request(c).message = id
	}
	if s.ledger == nil {
		return "", queue.ErrQueueRequired
	}
	return id, nil
}

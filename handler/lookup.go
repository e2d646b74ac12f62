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

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/compat"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// maxFilterBody is in octets.
const maxFilterBody = 64 << 10

// readFilter validates the request.
func readFilter(r api.Filter, key string) (queue.Filter, []api.FieldError) {
	var f fieldErrors
	tag, value, _ := strings.Cut(r.Tag, ":")
	if r.Tag != "" && !isTagName(tag) {
		f.Add("tag", "must be NAME or NAME:VALUE")
	}
	status, state := queue.Status(r.Status), queue.State("")
	switch {
	case r.Status == api.StateBounced || r.Status == api.StateExpired:
		status, state = "", queue.State(r.Status)
	case r.Status != "" && !slices.Contains(queue.Statuses, status):
		f.Add("status", fmt.Sprintf("must be one of %s, or bounced or expired for messages with such a recipient", joinStatuses()))
	}
	return queue.Filter{
		Key: key, Status: status, State: state, Recipient: f.addrSpec("recipient", r.Recipient),
		Sender: f.addrSpec("sender", r.Sender), MessageID: r.MessageID, TagName: tag, TagValue: value,
		Since: f.time("since", r.Since), Until: f.time("until", r.Until),
	}, f.Fields
}

func joinStatuses() string {
	names := make([]string, len(queue.Statuses))
	for i, s := range queue.Statuses {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
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

func (f *fieldErrors) time(field, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := parseTime(text)
	if err != nil {
		f.Add(field, err.Error())
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
		Priority:  m.Envelope.Priority.String(),
		Envelope:  api.Envelope{ReversePath: m.Envelope.ReversePath, ForwardPaths: m.Envelope.ForwardPaths},
		CreatedAt: inUTC(m.Created), SendAt: inUTC(m.SendAt), ExpiresAt: inUTC(m.Expires), Recipients: newRecipients(m),
		EarlierAttempts: m.EarlierAttempts,
	}
	for _, a := range m.Attempts {
		b.Attempts = append(b.Attempts, newAttempt(a))
	}
	return b
}

func newAttempt(a mailer.Attempt) api.Attempt {
	b := api.Attempt{
		Relay: a.Relay, Port: a.Rung.Port, TLS: a.TLS, Auth: a.Auth,
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

// getMessages serves GET /v1/messages, the newest first.
func (s *Server) getMessages(c echo.Context) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return problem.New(api.CodeInvalidParameter, "The query cannot be read.")
	}
	r, page, bad := readQuery(query)
	filter, wrong := readFilter(r, request(c).key.Name())
	if bad = append(bad, wrong...); len(bad) > 0 {
		return problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if s.ledger == nil {
		return queue.ErrQueueRequired
	}
	found, err := s.ledger.List(c.Request().Context(), filter, page.limit, page.cursor)
	if errors.Is(err, queue.ErrInvalidCursor) {
		return problem.New(api.CodeInvalidParameter, "", problem.At("cursor", "was not given by this server"))
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
func readQuery(query url.Values) (r api.Filter, p paging, bad []api.FieldError) {
	limit := strconv.Itoa(api.DefaultPage)
	known := map[string]*string{
		"status": &r.Status, "recipient": &r.Recipient, "sender": &r.Sender, "tag": &r.Tag, "message_id": &r.MessageID,
		"since": &r.Since, "until": &r.Until, "limit": &limit, "cursor": &p.cursor,
	}
	bad = readParameters(query, known)
	var err error
	if p.limit, err = strconv.Atoi(limit); err != nil || p.limit < 1 || p.limit > api.MaxPage {
		bad = append(bad, problem.At("limit", fmt.Sprintf("must be a number from 1 to %d", api.MaxPage)))
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
	m, err := s.ledger.Get(c.Request().Context(), request(c).key.Name(), id)
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
	return writeJSON(c, http.StatusOK, intake.TypeJSON, b)
}

// getContent serves GET /v1/messages/{id}/content: the octets that go to the
// relay.
func (s *Server) getContent(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	ctx, key := c.Request().Context(), request(c).key.Name()
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
	m, err := s.ledger.Retry(c.Request().Context(), request(c).key.Name(), id)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, newReceipt(m))
}

// deleteMessage serves DELETE /v1/messages/{id}: it cancels every recipient that is not
// in a final state.
func (s *Server) deleteMessage(c echo.Context) error {
	id, err := s.storedID(c)
	if err != nil {
		return err
	}
	m, err := s.ledger.Cancel(c.Request().Context(), request(c).key.Name(), id)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, newReceipt(m))
}

// postRetryMatching serves POST /v1/messages/retry. An empty filter is refused:
// it is more likely a mistake than a wish.
func (s *Server) postRetryMatching(c echo.Context) error {
	if _, _, err := intake.PlainMediaType(c.Request().Header, intake.TypeJSON); err != nil {
		return err
	}
	share := s.share(c)
	defer share.Close()
	b, err := intake.Open(c.Response().Writer, c.Request(), maxFilterBody, share, s.bodyTimeout)
	if err != nil {
		return err
	}
	data, err := b.All()
	if err != nil {
		return err
	}
	var r api.Retry
	if err := intake.Decode(data, &r, ""); err != nil {
		return err
	}
	if r.Filter == (api.Filter{}) {
		return problem.New(api.CodeInvalidParameter, "Name at least one of status, recipient, sender, message_id, tag, since, until.")
	}
	filter, bad := readFilter(r.Filter, request(c).key.Name())
	if len(bad) > 0 {
		return problem.New(api.CodeInvalidParameter, "", bad...)
	}
	if s.ledger == nil {
		return queue.ErrQueueRequired
	}
	n, next, err := s.ledger.RetryMatching(c.Request().Context(), filter, r.Cursor)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, intake.TypeJSON, api.Retried{Retried: n, Next: next})
}

// maxID is the length, in octets, up to which an id goes into the log: clients can make
// up any.
const maxID = 64

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

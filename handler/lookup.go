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

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

const (
	defaultPage   = 50
	maxPage       = 500
	maxFilterBody = 64 << 10
)

// filterRequest selects messages: the body of POST /v1/messages/retry, and the
// parameters of GET /v1/messages.
type filterRequest struct {
	Status    string `json:"status"`
	Recipient string `json:"recipient"`
	Sender    string `json:"sender"`
	MessageID string `json:"message_id"`
	Tag       string `json:"tag"` // "name" or "name:value"
	Since     string `json:"since"`
	Until     string `json:"until"`
}

// filter validates the request; what is wrong is reported under code.
func (r filterRequest) filter(key string) (queue.Filter, []mailer.FieldError) {
	var f findings
	tag, value, _ := strings.Cut(r.Tag, ":")
	if r.Tag != "" && !tagName.MatchString(tag) {
		f.add("tag", "must be NAME or NAME:VALUE")
	}
	if r.Status != "" && !slices.Contains(queue.Statuses, queue.Status(r.Status)) {
		f.add("status", fmt.Sprintf("must be one of %s", joinStatuses()))
	}
	return queue.Filter{
		Key: key, Status: queue.Status(r.Status), Recipient: f.addrSpec("recipient", r.Recipient),
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
func (f *findings) addrSpec(field, text string) string {
	if text == "" {
		return ""
	}
	a, err := mailer.ParseAddress(text)
	if err != nil {
		f.add(field, err.Error())
	}
	return a.Email
}

func (f *findings) time(field, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		f.add(field, "must be a time of RFC 3339, such as 2030-01-31T08:00:00Z")
	}
	return at
}

// pageBody is a part of the list of messages.
type pageBody struct {
	Messages []storyBody `json:"messages"`
	Next     string      `json:"next,omitempty"` // cursor of the following page
}

// storyBody is all that is known of one message; attempts stand in the answer
// for a single one only.
type storyBody struct {
	ID         string            `json:"id"`
	Status     queue.Status      `json:"status"`
	MessageID  string            `json:"message_id"`
	Sender     string            `json:"sender"`
	Subject    string            `json:"subject"`
	Size       int64             `json:"size"`
	Priority   string            `json:"priority"`
	Tags       map[string]string `json:"tags,omitempty"`
	Envelope   envelopeBody      `json:"envelope"`
	CreatedAt  time.Time         `json:"created_at,omitzero"`
	SendAt     time.Time         `json:"send_at,omitzero"`
	ExpiresAt  time.Time         `json:"expires_at,omitzero"`
	Recipients []recipientBody   `json:"recipients"`
	Attempts   []attemptBody     `json:"attempts,omitempty"`
}

type envelopeBody struct {
	ReversePath  string   `json:"reverse_path"`
	ForwardPaths []string `json:"forward_paths"`
}

type attemptBody struct {
	Relay      string       `json:"relay"`
	Port       int          `json:"port,omitzero"`
	TLS        string       `json:"tls,omitempty"`
	Auth       string       `json:"auth,omitempty"`
	StartedAt  time.Time    `json:"started_at,omitzero"`
	DurationMS int64        `json:"duration_ms"`
	Ladder     []rungBody   `json:"ladder,omitempty"`
	Results    []resultBody `json:"results"`
}

type rungBody struct {
	Port       int    `json:"port"`
	Mode       string `json:"mode"` // starttls, tls (implicit) or none
	Won        bool   `json:"won"`
	DurationMS int64  `json:"duration_ms"`
	Stage      string `json:"stage,omitempty"`
	Text       string `json:"text,omitempty"`
}

type resultBody struct {
	Email string `json:"email"`
	outcomeBody
}

func newStory(m queue.Message) storyBody {
	b := storyBody{
		ID: m.ID, Status: m.Status(), MessageID: m.MessageID, Sender: m.Sender, Subject: m.Subject, Size: m.Size, Tags: m.Tags,
		Priority:  m.Envelope.Priority.String(),
		Envelope:  envelopeBody{ReversePath: m.Envelope.ReversePath, ForwardPaths: m.Envelope.ForwardPaths},
		CreatedAt: inUTC(m.Created), SendAt: inUTC(m.SendAt), ExpiresAt: inUTC(m.Expires), Recipients: newRecipients(m),
	}
	for _, a := range m.Attempts {
		b.Attempts = append(b.Attempts, newAttempt(a))
	}
	return b
}

func newAttempt(a mailer.Attempt) attemptBody {
	b := attemptBody{
		Relay: a.Relay, Port: a.Rung.Port, TLS: a.TLS, Auth: a.Auth,
		StartedAt: inUTC(a.Started), DurationMS: a.Duration.Milliseconds(),
	}
	for _, r := range a.Ladder {
		rung := rungBody{Port: r.Rung.Port, Mode: r.Rung.Mode(), Won: r.Won, DurationMS: r.Duration.Milliseconds()}
		if f := r.Failure; f != nil {
			rung.Stage, rung.Text = f.Stage.String(), f.Text
			if f.Reply.Code != 0 {
				rung.Text = f.Reply.String()
			}
		}
		b.Ladder = append(b.Ladder, rung)
	}
	for _, r := range a.Results {
		b.Results = append(b.Results, resultBody{Email: r.ForwardPath, outcomeBody: newOutcome(r)})
	}
	return b
}

// getMessages serves GET /v1/messages, the newest first.
func (s *Server) getMessages(c echo.Context) error {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return fail(codeInvalidParameter, "The query cannot be read.")
	}
	r, page, bad := readQuery(query)
	filter, wrong := r.filter(request(c).key)
	if bad = append(bad, wrong...); len(bad) > 0 {
		return fail(codeInvalidParameter, "", bad...)
	}
	found, err := s.queue.List(c.Request().Context(), filter, page.limit, page.cursor)
	if errors.Is(err, queue.ErrInvalidCursor) {
		return fail(codeInvalidParameter, "", fieldError("cursor", "was not given by this server"))
	}
	if err != nil {
		return err
	}
	b := pageBody{Messages: make([]storyBody, len(found.Messages)), Next: found.Next}
	for i, m := range found.Messages {
		b.Messages[i] = newStory(m)
	}
	return writeJSON(c, http.StatusOK, typeJSON, b)
}

type paging struct {
	limit  int
	cursor string
}

// readQuery is strict, too: a misspelt filter would select everything.
func readQuery(query url.Values) (r filterRequest, p paging, bad []mailer.FieldError) {
	limit := strconv.Itoa(defaultPage)
	known := map[string]*string{
		"status": &r.Status, "recipient": &r.Recipient, "sender": &r.Sender, "tag": &r.Tag, "message_id": &r.MessageID,
		"since": &r.Since, "until": &r.Until, "limit": &limit, "cursor": &p.cursor,
	}
	for name, values := range query {
		switch to := known[name]; {
		case to == nil:
			bad = append(bad, fieldError(cut(name), "is not a parameter of this route"))
		case len(values) > 1:
			bad = append(bad, fieldError(name, "is given twice"))
		default:
			*to = values[0]
		}
	}
	var err error
	if p.limit, err = strconv.Atoi(limit); err != nil || p.limit < 1 || p.limit > maxPage {
		bad = append(bad, fieldError("limit", fmt.Sprintf("must be a number from 1 to %d", maxPage)))
	}
	slices.SortFunc(bad, func(a, b mailer.FieldError) int { return strings.Compare(a.Field, b.Field) })
	return r, p, bad
}

// getMessage serves GET /v1/messages/{id}: the message's story.
func (s *Server) getMessage(c echo.Context) error {
	m, err := s.queue.Get(c.Request().Context(), request(c).key, messageID(c))
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, typeJSON, newStory(m))
}

// getContent serves GET /v1/messages/{id}/content: the octets that go to the
// relay.
func (s *Server) getContent(c echo.Context) error {
	ctx, key, id := c.Request().Context(), request(c).key, messageID(c)
	m, err := s.queue.Get(ctx, key, id)
	if err != nil {
		return err
	}
	share := &reservation{budget: s.budget}
	defer share.shrink(0)
	if !share.grow(m.Size) {
		return fail(codeBusy, "")
	}
	content, err := s.queue.Content(ctx, key, id)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderContentDisposition, `attachment; filename="message.eml"`)
	return c.Blob(http.StatusOK, typeRFC822, content)
}

// postRetry serves POST /v1/messages/{id}/retry.
func (s *Server) postRetry(c echo.Context) error {
	m, err := s.queue.Retry(c.Request().Context(), request(c).key, messageID(c))
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, typeJSON, newMessageBody(m))
}

// deleteMessage serves DELETE /v1/messages/{id}: it cancels what is not final.
func (s *Server) deleteMessage(c echo.Context) error {
	m, err := s.queue.Cancel(c.Request().Context(), request(c).key, messageID(c))
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, typeJSON, newMessageBody(m))
}

// postRetryMatching serves POST /v1/messages/retry. An empty filter is refused:
// it is more likely a mistake than a wish.
func (s *Server) postRetryMatching(c echo.Context) error {
	if _, _, err := contentType(c.Request().Header, typeJSON); err != nil {
		return err
	}
	share := &reservation{budget: s.budget}
	defer share.shrink(0)
	b, err := s.openBody(c.Response().Writer, c.Request(), maxFilterBody, share)
	if err != nil {
		return err
	}
	data, err := b.all()
	if err != nil {
		return err
	}
	var r filterRequest
	if err := decodeJSON(data, &r, ""); err != nil {
		return err
	}
	if r == (filterRequest{}) {
		return fail(codeInvalidParameter, "Name at least one of status, recipient, sender, message_id, tag, since, until.")
	}
	filter, bad := r.filter(request(c).key)
	if len(bad) > 0 {
		return fail(codeInvalidParameter, "", bad...)
	}
	n, err := s.queue.RetryMatching(c.Request().Context(), filter)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, typeJSON, struct {
		Retried int `json:"retried"`
	}{n})
}

// maxID is how much of an id that a client made up goes into the log.
const maxID = 64

// messageID is the id in the path.
func messageID(c echo.Context) string {
	id := c.Param("id")
	if len(id) <= maxID {
		request(c).message = id
	}
	return id
}

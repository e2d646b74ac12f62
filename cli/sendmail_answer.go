package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// accepted is the server's answer to a message that it took.
type accepted struct {
	ID         string              `json:"id"`
	Status     string              `json:"status"`
	Recipients []sendmailRecipient `json:"recipients"`
}

// sendmailRecipient is what an answer says of one recipient.
type sendmailRecipient struct {
	Email        string `json:"email"`
	State        string `json:"state"`
	ReplyCode    int    `json:"reply_code"`
	EnhancedCode string `json:"enhanced_code"`
	// Text is the relay's words without the codes, or why there are none.
	Text string `json:"text"`
}

// words is the refusal as the relay put it: "550 5.1.1 <x@y>: No such user".
func (r sendmailRecipient) words() string {
	return relayWords(r.ReplyCode, r.EnhancedCode, r.Email, r.Text)
}

// relayWords puts a reply on one line, with the recipient in front of the text
// unless the relay has named it.
func relayWords(code int, enhanced, recipient, text string) string {
	var words []string
	if number := fmt.Sprint(code); code > 0 && !strings.HasPrefix(text, number) {
		words = append(words, number)
	}
	if enhanced != "" && !strings.Contains(text, enhanced) {
		words = append(words, enhanced)
	}
	if recipient != "" && !strings.Contains(text, recipient) {
		words = append(words, "<"+recipient+">:")
	}
	return strings.Join(append(words, text), " ")
}

// refused has a line for each recipient that was bounced while others were not.
func (a accepted) refused() []string {
	var lines []string
	for _, r := range a.Recipients {
		if r.State == "bounced" {
			lines = append(lines, r.words())
		}
	}
	return lines
}

// sendmailError is an error that also knows how to say itself in SMTP, for -bs.
type sendmailError struct {
	text string
	// reply and enhanced are the relay's where it gave any, else chosen for the
	// kind of failure.
	reply    int
	enhanced string
	status   int
}

func (e *sendmailError) Error() string { return e.text }

// readAccepted reads the answer to a submission.
func readAccepted(a answer) (accepted, error) {
	var got accepted
	if a.status != http.StatusOK && a.status != http.StatusAccepted {
		return got, refusalOf(a)
	}
	// The message is the server's now, whatever else the answer says.
	_ = json.Unmarshal(a.body, &got)
	return got, nil
}

// refusals is what an HTTP status means here: sysexits' status and, in -bs, the
// reply code and enhanced code where the relay gave none.
var refusals = map[int]struct {
	status, reply int
	enhanced      string
}{
	http.StatusBadRequest:            {exitRefused, 554, "5.6.0"},
	http.StatusUnauthorized:          {exitNoPerm, 451, "4.3.5"},
	http.StatusForbidden:             {exitNoPerm, 550, "5.7.1"},
	http.StatusRequestEntityTooLarge: {exitRefused, 552, "5.3.4"},
	http.StatusUnsupportedMediaType:  {exitRefused, 554, "5.6.0"},
	http.StatusUnprocessableEntity:   {exitRefused, 554, "5.6.0"},
}

// relayProblem is what the server adds to a problem that a relay caused.
type relayProblem struct {
	ReplyCode    int                 `json:"reply_code"`
	EnhancedCode string              `json:"enhanced_code"`
	Stage        string              `json:"stage"`
	Recipients   []sendmailRecipient `json:"recipients"`
}

// refusalOf makes an error of an answer that is none of success: the relay's
// own words where there are any.
func refusalOf(a answer) error {
	p := a.problem()
	var relay relayProblem
	_ = json.Unmarshal(a.body, &relay) // not the server's answer: p says so
	e := &sendmailError{status: exitUnavailable, reply: 451, enhanced: "4.3.0"}
	if known, ok := refusals[a.status]; ok {
		e.status, e.reply, e.enhanced = known.status, known.reply, known.enhanced
	}
	switch {
	case relay.ReplyCode > 0:
		e.reply, e.enhanced = relay.ReplyCode, cmp.Or(relay.EnhancedCode, e.enhanced)
		e.text = fmt.Sprintf("%s (HTTP %d)", relay.text(p), a.status)
		if relay.Stage == "rcpt" && e.status == exitRefused {
			e.status = exitNoUser
		}
	case a.status == http.StatusUnauthorized:
		e.text = "the API key is missing or wrong (HTTP 401)"
	default:
		e.text = fmt.Sprintf("%s (HTTP %d)", cmp.Or(p.Detail, p.Title), a.status)
	}
	return &statusError{e.status, e}
}

// text is the relay's words on the first recipient, and on how many others.
func (r relayProblem) text(p problem) string {
	if len(r.Recipients) == 0 {
		return relayWords(r.ReplyCode, r.EnhancedCode, "", p.Detail)
	}
	first := r.Recipients[0]
	words := relayWords(cmp.Or(first.ReplyCode, r.ReplyCode), cmp.Or(first.EnhancedCode, r.EnhancedCode), first.Email, cmp.Or(first.Text, p.Detail))
	if n := len(r.Recipients) - 1; n > 0 {
		words += fmt.Sprintf(" (and %d more)", n)
	}
	return words
}

// neverConnected says that the server cannot have seen the request.
func neverConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// oneLine makes text fit for one line of a log or of SMTP: control characters
// become blanks.
func oneLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, text))
}

// queuedMessage is one line of the queue as -bp shows it.
type queuedMessage struct {
	ID         string              `json:"id"`
	Status     string              `json:"status"`
	Size       int64               `json:"size"`
	Sender     string              `json:"sender"`
	Created    time.Time           `json:"created_at"`
	Recipients []sendmailRecipient `json:"recipients"`
}

// maxListed bounds what -bp shows of each status.
const maxListed = 100

// printQueue prints what waits, as mailq does.
func (s *sendmail) printQueue(ctx context.Context, out io.Writer) error {
	waiting := 0
	for _, status := range []string{"queued", "deferred", "held"} {
		messages, err := s.list(ctx, status)
		if err != nil {
			return err
		}
		for _, m := range messages {
			fmt.Fprintf(out, "%s  %8d  %s  %-8s  %s\n", m.ID, m.Size, m.Created.Local().Format(time.DateTime), m.Status, oneLine(m.Sender))
			for _, r := range m.Recipients {
				fmt.Fprintf(out, "    %s (%s) %s\n", oneLine(r.Email), r.State, oneLine(relayWords(r.ReplyCode, r.EnhancedCode, "", r.Text)))
			}
		}
		waiting += len(messages)
	}
	if waiting == 0 {
		fmt.Fprintln(out, "Mail queue is empty")
	}
	return nil
}

func (s *sendmail) list(ctx context.Context, status string) ([]queuedMessage, error) {
	query := url.Values{"status": {status}, "limit": {fmt.Sprint(maxListed)}}
	got, err := s.client.do(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, nil)
	if err != nil {
		return nil, statusUnavailable(err)
	}
	if got.status == http.StatusUnprocessableEntity && got.problem().Code == "queue_required" {
		return nil, nil // no queue is an empty queue
	}
	if got.status != http.StatusOK {
		return nil, refusalOf(got)
	}
	var page struct {
		Messages []queuedMessage `json:"messages"`
	}
	if err := json.Unmarshal(got.body, &page); err != nil {
		return nil, exit(exitUnavailable, "the server's list cannot be read: %w", err)
	}
	return page.Messages, nil
}

package sendmail

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
)

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

// refused has a line for each recipient that was bounced while others were not, as
// the relay put it: "550 5.1.1 <x@y>: No such user".
func refused(a api.Receipt) []string {
	var lines []string
	for _, r := range a.Recipients {
		if r.State == api.StateBounced {
			lines = append(lines, relayWords(r.ReplyCode, r.EnhancedCode, r.Email, r.Text))
		}
	}
	return lines
}

// refusal is an error that also knows how to say itself in SMTP, for -bs.
type refusal struct {
	text string
	// reply and enhanced are the relay's where it gave any, else chosen for the
	// kind of failure.
	reply    int
	enhanced string
	status   int
}

func (e *refusal) Error() string { return e.text }

// readAccepted reads the answer to a submission. Success needs the message's id: an
// answer without it proves nothing.
func readAccepted(server string, a api.Answer) (api.Receipt, error) {
	var got api.Receipt
	if a.Status != http.StatusOK && a.Status != http.StatusAccepted {
		return got, refusalOf(a)
	}
	if err := json.Unmarshal(a.Body, &got); err != nil || got.ID == "" || len(got.Recipients) == 0 {
		return got, fail(exitUnavailable, "the answer of %s to the message cannot be read (HTTP %d): it may or may not have taken the message", server, a.Status)
	}
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

// readProblem reads an answer as an error. One that has no code becomes a problem
// without a code.
func readProblem(a api.Answer) api.Problem {
	var p api.Problem
	if err := json.Unmarshal(a.Body, &p); err != nil || p.Code == "" {
		return api.Problem{Detail: cmp.Or(a.Text(), "the answer cannot be read")}
	}
	return p
}

// refusalOf makes an error of an error answer, with the relay's own words if there are
// any.
func refusalOf(a api.Answer) error {
	p := readProblem(a)
	e := &refusal{status: exitUnavailable, reply: 451, enhanced: "4.3.0"}
	if known, ok := refusals[a.Status]; ok {
		e.status, e.reply, e.enhanced = known.status, known.reply, known.enhanced
	}
	switch {
	case p.ReplyCode > 0:
		e.reply, e.enhanced = p.ReplyCode, cmp.Or(p.EnhancedCode, e.enhanced)
		e.text = fmt.Sprintf("%s (HTTP %d)", problemText(p), a.Status)
		if p.Stage == "rcpt" && e.status == exitRefused {
			e.status = exitNoUser
		}
	case a.Status == http.StatusUnauthorized:
		e.text = "the API key is missing or wrong: set MAILSIDECAR_API_KEY to the secret, without the name, of one of the server's MAILSIDECAR_API_KEYS (HTTP 401)"
	default:
		e.text = fmt.Sprintf("%s (HTTP %d)", cmp.Or(p.Detail, p.Title), a.Status)
	}
	return &failure{e.status, e}
}

// refusedAddresses returns what is wrong with single recipients of a request that had n
// of them, by their index. It is empty where something else is wrong, too.
func refusedAddresses(a api.Answer, n int) map[int]string {
	if a.Status != http.StatusUnprocessableEntity && a.Status != http.StatusBadRequest {
		return nil
	}
	wrong := map[int]string{}
	for _, f := range readProblem(a).Errors {
		if f.Field == "" && len(wrong) > 0 {
			continue // the server's word that there are more
		}
		i, ok := recipientIndex(f.Field, n)
		if !ok {
			return nil
		}
		wrong[i] = f.Message
	}
	return wrong
}

// recipientIndex reads how the server names one of n recipients: as Envelope-To[2],
// counted from 0, or as Envelope-To where there is one.
func recipientIndex(field string, n int) (int, bool) {
	number, ok := strings.CutPrefix(field, "Envelope-To")
	if number == "" {
		return 0, ok && n == 1
	}
	i, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(number, "["), "]"))
	return i, ok && err == nil && i >= 0 && i < n
}

// problemText is the relay's words on the first recipient, and on how many others.
func problemText(p api.Problem) string {
	if len(p.Recipients) == 0 {
		return relayWords(p.ReplyCode, p.EnhancedCode, "", p.Detail)
	}
	first := p.Recipients[0]
	words := relayWords(cmp.Or(first.ReplyCode, p.ReplyCode), cmp.Or(first.EnhancedCode, p.EnhancedCode), first.Email, cmp.Or(first.Text, p.Detail))
	if n := len(p.Recipients) - 1; n > 0 {
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

// maxListed limits how many messages of each status -bp shows.
const maxListed = 100

// printQueue prints what waits, as mailq does.
func (s *sender) printQueue(ctx context.Context, out io.Writer) error {
	waiting := 0
	for _, status := range []string{api.StatusQueued, api.StatusDeferred, api.StatusHeld} {
		messages, err := s.list(ctx, status)
		if err != nil {
			return err
		}
		for _, m := range messages {
			fmt.Fprintf(out, "%s  %8d  %s  %-8s  %s\n", m.ID, m.Size, m.CreatedAt.Local().Format(time.DateTime), m.Status, oneLine(m.Sender))
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

func (s *sender) list(ctx context.Context, status string) ([]api.Message, error) {
	query := api.Filter{Status: status}.Query()
	query.Set("limit", fmt.Sprint(maxListed))
	got, err := s.client.Do(ctx, http.MethodGet, "/v1/messages?"+query.Encode(), nil, nil)
	if err != nil {
		return nil, unavailable(err)
	}
	if got.Status == http.StatusUnprocessableEntity && readProblem(got).Code == api.CodeQueueRequired {
		return nil, nil // no queue is an empty queue
	}
	if got.Status != http.StatusOK {
		return nil, refusalOf(got)
	}
	var page api.Page
	if err := json.Unmarshal(got.Body, &page); err != nil {
		return nil, fail(exitUnavailable, "the server's list cannot be read: %w", err)
	}
	return page.Messages, nil
}

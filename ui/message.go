package ui

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
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

// Limits of a message's page. What is beyond them is told in a number.
const (
	maxShownRecipients = 50
	maxShownAttempts   = 50
	maxShownResults    = 8 // different replies of an attempt
	// maxPreviewed is how large a message may be, in octets, for its preview to be shown at once.
	maxPreviewed = 2 << 20
)

// messagePage is one message.
type messagePage struct {
	api.Message
	Subject     string // in one line
	Means       string // what the status means
	Tags        []nameValue
	Waiting     []api.Wait
	Rcpts       []recipient
	RcptsLeft   int // recipients that are not shown
	Events      []event
	EventsLeft  int // attempts that are not shown
	Resent      []link
	ResentOf    *link
	Open        bool // it is not final: some recipient waits
	MayRetry    bool
	MayCancel   bool
	MayMend     bool
	CSRF        string
	Problem     *trouble // why there is no message, or why a command failed
	Resend      *resendForm
	AskCancel   bool
	Preview     *preview
	PreviewOff  string // why there is no preview
	Gone        bool   // the content is gone
	Keeps       string // setting that would have kept it, or keeps it until KeptUntil
	KeptUntil   time.Time
	Show        string // what of the preview: text, html, headers, source, attachments
	Shows       []tab
	To          messageLinks
	Attachments []attachmentLink
}

// messageLinks are the addresses of a message's page and what belongs to it.
type messageLinks struct {
	Page, HTML, Text, Source, File, Retry, Cancel, Resend markup.URL
}

type nameValue struct {
	Name, Value string
	To          markup.URL
}

type link struct {
	Text string
	To   markup.URL
}

type attachmentLink struct {
	attachment
	To markup.URL
}

// recipient is one recipient, with what is known of it in words.
type recipient struct {
	api.Recipient
	Said     string // the relay's words
	Another  markup.URL
	CanOther bool // it may be sent to another address instead
}

// event is something that happened to the message, or is going to.
type event struct {
	At      time.Time
	State   string // for its icon
	What    string
	Details []string
	Rungs   []api.Rung
	Lanes   []lane
	Left    int // lanes that are not shown
	Future  bool
}

// lane is what an attempt came to for one recipient, or for several alike.
type lane struct {
	api.Outcome
	Emails []string
	Left   int
	Said   string
}

// resendForm is the form to send the message to another address.
type resendForm struct {
	To, InsteadOf string
	From          []string // recipients in whose place it may go
	Token         string   // makes a form that is sent twice one request
	Again         bool     // it went to that address before: ask whether it is meant
	Problem       *trouble
}

func (v *visit) messagePath() string { return "/v1/messages/" + url.PathEscape(v.r.PathValue("id")) }

// readMessage asks for one message.
func (v *visit) readMessage(id string, m *api.Message) error {
	return v.readJSON("/v1/messages/"+url.PathEscape(id), func(d *json.Decoder) error { return d.Decode(m) })
}

// getMessage serves GET /ui/messages/ID.
func (v *visit) getMessage() error {
	query := v.r.URL.Query()
	p := &messagePage{Show: query.Get("show"), AskCancel: query.Has("cancel")}
	if v.has(mender) && query.Has("resend") {
		p.Resend = &resendForm{InsteadOf: query.Get("resend")}
	}
	return v.showMessage(http.StatusOK, p)
}

// showMessage fills in the page and shows it.
func (v *visit) showMessage(status int, p *messagePage) error {
	id := v.r.PathValue("id")
	var m api.Message
	if err := v.readMessage(id, &m); err != nil {
		return err
	}
	p.fill(v, m, time.Now())
	// A refresh takes over only the parts that change.
	if !v.refreshes() {
		p.preview(v)
	}
	title := short(p.Subject, 80)
	v.show(status, "message.html", page{Title: cmp.Or(title, "Message"), Nav: "messages", Data: p})
	return nil
}

// fill makes a view of what the API says of the message.
func (p *messagePage) fill(v *visit, m api.Message, now time.Time) {
	p.Message = m
	p.CSRF, p.MayMend = v.csrf, v.has(mender)
	p.Subject, p.Means = oneLine(m.Subject), statusMeans[m.Status]
	p.Waiting = m.Waits
	base := v.ui.to("messages", m.ID)
	p.To = messageLinks{
		Page: base, HTML: base + "/html", Text: base + "/text", Source: base + "/source", File: base + "/eml",
		Retry: base + "/retry", Cancel: base + "/cancel", Resend: base + "/resend",
	}
	for name, value := range m.Tags {
		p.Tags = append(p.Tags, nameValue{name, value, v.ui.search("tag:" + quoteSearch(name+"="+value))})
	}
	slices.SortFunc(p.Tags, func(a, b nameValue) int { return strings.Compare(a.Name, b.Name) })
	if m.ResentOf != "" {
		p.ResentOf = &link{m.ResentOf, v.ui.to("messages", m.ResentOf)}
	}
	for _, id := range m.ResentAs {
		p.Resent = append(p.Resent, link{id, v.ui.to("messages", id)})
	}
	p.Keeps = api.KeepsDelivered
	if k := m.Content; k != nil {
		p.Gone, p.KeptUntil, p.Keeps = !k.Kept, k.Until, cmp.Or(k.Setting, p.Keeps)
	}
	p.fillRecipients(v, m)
	p.Events, p.EventsLeft = timeline(m, now)
	if p.Resend != nil {
		p.Resend.Token = rand.Text()
		for _, r := range m.Recipients {
			if resendable(r) && len(p.Resend.From) < maxShownRecipients {
				p.Resend.From = append(p.Resend.From, r.Email)
			}
		}
	}
}

// order puts recipients that need a person first, and delivered ones last.
var order = []string{
	api.StateHeld, api.StateBounced, api.StateExpired, api.StateDeferred, api.StateQueued, api.StateCanceled, api.StateDelivered,
}

func (p *messagePage) fillRecipients(v *visit, m api.Message) {
	all := slices.Clone(m.Recipients)
	slices.SortStableFunc(all, func(a, b api.Recipient) int {
		return slices.Index(order, a.State) - slices.Index(order, b.State)
	})
	for i, r := range all {
		switch r.State {
		case api.StateQueued, api.StateDeferred, api.StateHeld:
			p.Open = true
		}
		p.MayRetry = p.MayRetry || slices.Contains([]string{api.StateDeferred, api.StateHeld, api.StateBounced, api.StateExpired}, r.State)
		if i >= maxShownRecipients {
			p.RcptsLeft++
			continue
		}
		p.Rcpts = append(p.Rcpts, recipient{
			Recipient: r, Said: r.String(), CanOther: p.MayMend && !p.Gone && resendable(r),
			Another: v.ui.to("messages", m.ID) + markup.URL("?resend="+url.QueryEscape(r.Email)+"#resend"),
		})
	}
	p.MayRetry, p.MayCancel = (p.MayRetry || p.Open) && p.MayMend && !p.Gone, p.Open && p.MayMend
}

// resendable says that the message may go to another address in place of the recipient.
func resendable(r api.Recipient) bool {
	return r.MayHaveTaken == "" && slices.Contains([]string{api.StateBounced, api.StateExpired, api.StateCanceled}, r.State)
}

// timeline is what happened, the first thing first, and what is to come. left says how many
// attempts are not shown.
func timeline(m api.Message, now time.Time) (events []event, left int) {
	accepted := event{At: m.CreatedAt, State: "delivered", What: "Accepted from the app, and stored"}
	if m.Key != "" {
		accepted.Details = append(accepted.Details, "key "+m.Key)
	}
	accepted.Details = append(accepted.Details, size(m.Size), plural(int64(len(m.Recipients)), "recipient", "recipients"))
	events = append(events, accepted)
	if !m.SendAt.IsZero() {
		events = append(events, event{At: m.SendAt, State: "queued", What: "To be sent from this time on", Future: m.SendAt.After(now)})
	}
	attempts := m.Attempts
	if n := len(attempts) - maxShownAttempts; n > 0 {
		attempts, left = attempts[n:], n
	}
	left += m.EarlierAttempts
	for _, a := range attempts {
		events = append(events, attemptEvent(a))
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.At.Compare(b.At) })
	if next := nextTry(m); !next.IsZero() && next.After(now) {
		what := "Next try"
		if len(m.Attempts)+m.EarlierAttempts == 0 {
			what = "First try"
		}
		events = append(events, event{At: next, State: "deferred", What: what, Future: true})
	}
	open := slices.ContainsFunc(m.Recipients, func(r api.Recipient) bool {
		return r.State == api.StateQueued || r.State == api.StateDeferred
	})
	if open && !m.ExpiresAt.IsZero() {
		events = append(events, event{At: m.ExpiresAt, State: "expired", What: "It expires: after that it is not tried any more", Future: true})
	}
	return events, left
}

// attemptEvent is one attempt, with one lane for the recipients that got the same reply.
func attemptEvent(a api.Attempt) event {
	e := event{At: a.StartedAt, What: "Given to the relay " + a.Relay}
	if a.Port == 0 {
		e.What = "The relay " + a.Relay + " could not be reached"
	} else {
		e.Details = append(e.Details, "port "+strconv.Itoa(a.Port))
	}
	for _, d := range []string{a.TLS, a.Auth} {
		if d != "" {
			e.Details = append(e.Details, d)
		}
	}
	e.Details = append(e.Details, milliseconds(a.DurationMS))
	if a.Why != "" {
		e.Details = append(e.Details, "chosen because: "+a.Why)
	}
	if len(a.Ladder) > 1 || len(a.Ladder) == 1 && !a.Ladder[0].Won {
		e.Rungs = a.Ladder
	}
	states := map[string]bool{}
	for _, r := range a.Results {
		states[r.Kind] = true
		i := slices.IndexFunc(e.Lanes, func(l lane) bool { return l.Outcome == r.Outcome })
		switch {
		case i < 0 && len(e.Lanes) == maxShownResults:
			e.Left++
		case i < 0:
			e.Lanes = append(e.Lanes, lane{Outcome: r.Outcome, Said: r.String(), Emails: []string{r.Email}})
		case len(e.Lanes[i].Emails) < 5:
			e.Lanes[i].Emails = append(e.Lanes[i].Emails, r.Email)
		default:
			e.Lanes[i].Left++
		}
	}
	switch {
	case states[api.OutcomeUncertain]:
		e.State = "held"
	case states[api.OutcomeBounced] && (states[api.OutcomeDelivered] || states[api.OutcomeDeferred]):
		e.State = "partial"
	case states[api.OutcomeBounced]:
		e.State = "bounced"
	case states[api.OutcomeDeferred]:
		e.State = "deferred"
	default:
		e.State = "delivered"
	}
	return e
}

// milliseconds is a duration as people read it.
func milliseconds(ms int64) string {
	if ms < 1000 {
		return strconv.FormatInt(ms, 10) + " ms"
	}
	return strconv.FormatFloat(float64(ms)/1000, 'f', 1, 64) + " s"
}

// content reads the message's content.
func (v *visit) content(use func(io.Reader) error) error {
	return v.read(v.messagePath()+"/content", func(status int, _ http.Header, body io.Reader) error {
		if status >= http.StatusBadRequest {
			return problemOf(status, body)
		}
		return use(body)
	})
}

// previews are the ways to look at the content.
var previews = []struct{ show, name string }{
	{"text", "Text"}, {"html", "HTML"}, {"headers", "Header"}, {"source", "Source"}, {"attachments", "Attachments"},
}

// preview adds the content, as far as it is there.
func (p *messagePage) preview(v *visit) {
	switch {
	case p.Gone:
		return
	case p.Size > maxPreviewed && p.Show == "":
		p.PreviewOff = "large"
		return
	}
	var read preview
	err := v.content(func(body io.Reader) error {
		read = readPreview(body)
		return nil
	})
	switch {
	case isCode(err, api.CodeContentGone):
		p.Gone = true
		return
	case err != nil:
		p.PreviewOff = v.troubleOf(err).Title
		return
	}
	p.Preview = &read
	if !slices.ContainsFunc(previews, func(k struct{ show, name string }) bool { return k.show == p.Show }) {
		p.Show = "text"
		if read.Text == "" && read.HTML != "" {
			p.Show = "html"
		}
		if read.Text == "" && read.HTML == "" {
			p.Show = "source"
		}
	}
	for _, k := range previews {
		t := tab{Name: k.name, Current: p.Show == k.show, To: p.To.Page + markup.URL("?show="+k.show+"#preview")}
		if k.show == "attachments" {
			t.Count = strconv.Itoa(len(read.Attachments))
		}
		p.Shows = append(p.Shows, t)
	}
	for _, a := range read.Attachments {
		p.Attachments = append(p.Attachments, attachmentLink{a, p.To.Page + markup.URL("/part/"+strconv.Itoa(a.N))})
	}
}

// framePolicy is that of the HTML of a message. Nothing of it is loaded from anywhere, no script
// runs, no form is sent, and it is of no origin.
const framePolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox"

// getMessageHTML serves GET /ui/messages/ID/html, for a frame of the message's page.
func (v *visit) getMessageHTML() error {
	p, err := v.readPreview()
	if err != nil {
		return err
	}
	h := v.w.Header()
	h.Set("Content-Security-Policy", framePolicy)
	h.Set("X-Frame-Options", "SAMEORIGIN")
	h.Set("X-DNS-Prefetch-Control", "off")
	h.Set("Referrer-Policy", "no-referrer")
	v.writeText("text/html; charset=utf-8", p.framed())
	return nil
}

// getMessageText serves GET /ui/messages/ID/text.
func (v *visit) getMessageText() error {
	p, err := v.readPreview()
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Security-Policy", filePolicy)
	v.writeText("text/plain; charset=utf-8", p.Text)
	return nil
}

func (v *visit) readPreview() (p preview, err error) {
	err = v.content(func(body io.Reader) error {
		p = readPreview(body)
		return nil
	})
	return p, err
}

func (v *visit) writeText(kind, text string) {
	v.endTurn()
	v.w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(v.w, text)
}

// getMessageSource serves GET /ui/messages/ID/source: the octets, as text.
func (v *visit) getMessageSource() error {
	return v.copyContent(func() io.Writer {
		v.w.Header().Set("Content-Security-Policy", filePolicy)
		v.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return v.w
	})
}

// getMessageFile serves GET /ui/messages/ID/eml, a file to be saved.
func (v *visit) getMessageFile() error {
	return v.copyContent(func() io.Writer {
		v.download(cmp.Or(fileName(v.r.PathValue("id")), "message")+".eml", "message/rfc822")
		return v.w
	})
}

// copyContent copies the content to the browser, which may be slow.
func (v *visit) copyContent(begin func() io.Writer) error {
	v.endTurn()
	v.ctx = v.r.Context()
	broken := false
	err := v.content(func(body io.Reader) error {
		n, err := io.Copy(begin(), body)
		broken = n > 0 && err != nil
		return err
	})
	if broken {
		v.cutOff(err)
		return nil
	}
	return err
}

// getMessagePart serves GET /ui/messages/ID/part/N: an attachment, to be saved. Its type
// is never told to the browser, which might show it as a page.
func (v *visit) getMessagePart() error {
	n, err := strconv.Atoi(v.r.PathValue("n"))
	if err != nil || n < 1 || n > maxPreviewParts {
		return v.notFound()
	}
	v.endTurn()
	v.ctx = v.r.Context()
	begun, found := false, false
	err = v.content(func(body io.Reader) error {
		var err error
		found, err = copyPart(body, n, func(name string) io.Writer {
			begun = true
			v.download(name, "application/octet-stream")
			v.w.WriteHeader(http.StatusOK)
			return v.w
		})
		return err
	})
	switch {
	case begun && err != nil:
		v.cutOff(err)
		return nil
	case err != nil:
		return err
	case !found:
		return &refusalError{http.StatusNotFound, "The message has no such part."}
	}
	return nil
}

func (v *visit) messageAddress() string {
	return "/ui/messages/" + url.PathEscape(v.r.PathValue("id"))
}

func init() {
	notices["retried"] = "The message is tried again now."
	notices["canceled"] = "The message was canceled. A recipient that is being tried just now keeps its state until that try ends."
	notices["resent"] = "This is the new message, which goes to the other address."
}

// commandFailed shows the message with why a command was of no effect.
func (v *visit) commandFailed(err error, p *messagePage) error {
	p.Problem = v.troubleOf(err)
	status := http.StatusInternalServerError
	if e, ok := err.(*answerError); ok { //nolint:errorlint // call returns it as it is
		status = e.Status
	}
	return v.showMessage(status, p)
}

// postRetry serves POST /ui/messages/ID/retry.
func (v *visit) postRetry() error {
	if err := v.post(v.messagePath()+"/retry", nil, nil); err != nil {
		return v.commandFailed(err, &messagePage{})
	}
	v.redirect(v.messageAddress() + "?done=retried")
	return nil
}

// postCancel serves POST /ui/messages/ID/cancel. The page has asked before.
func (v *visit) postCancel() error {
	if v.r.PostForm.Get("confirm") != "yes" {
		v.redirect(v.messageAddress() + "?cancel")
		return nil
	}
	if err := v.call(v.ctx, http.MethodDelete, v.messagePath(), nil, nil, nil); err != nil {
		return v.commandFailed(err, &messagePage{})
	}
	v.redirect(v.messageAddress() + "?done=canceled")
	return nil
}

// postResend serves POST /ui/messages/ID/resend.
func (v *visit) postResend() error {
	form := v.r.PostForm
	body := api.Resend{To: strings.TrimSpace(form.Get("to")), InsteadOf: form.Get("instead_of"), Again: form.Get("again") == "yes"}
	header := http.Header{}
	if token := form.Get("token"); token != "" && len(token) <= 64 && strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == "" {
		header.Set("Idempotency-Key", "dashboard-"+token)
	}
	var receipt api.Receipt
	err := v.call(v.ctx, http.MethodPost, v.messagePath()+"/resend", header, body, &receipt)
	if err == nil {
		v.redirect("/ui/messages/" + url.PathEscape(receipt.ID) + "?done=resent")
		return nil
	}
	p := &messagePage{Resend: &resendForm{To: body.To, InsteadOf: body.InsteadOf, Problem: v.troubleOf(err), Again: isCode(err, api.CodeAlreadyResent)}}
	status := http.StatusInternalServerError
	if e, ok := err.(*answerError); ok { //nolint:errorlint // call returns it as it is
		status = e.Status
	}
	return v.showMessage(status, p)
}

package handler

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/intake"
	"mailsidecar/handler/keys"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/mailer/compose"
	"mailsidecar/queue"
)

// provider is the API of a hosted provider, as its own clients speak it: an app
// keeps its SDK and changes the base URL. Each has a file of its own, which
// turns a request into messages, and receipts and problems into the provider's
// answers. What they share is here: keys, limits, composing and submitting.
type provider struct {
	name   string // as in MAILSIDECAR_COMPAT
	title  string
	routes []providerRoute
	// owns says whether a path is the provider's, whatever the method: its
	// clients understand none but its own answers, to mistakes too.
	owns func(path string) bool
	// secret takes the API key out of a request's header; empty when it is not
	// there. Nil: every route authenticates by itself.
	secret func(http.Header) string
	// testSecret is a key that anybody may use to have a request judged, and
	// nothing sent; empty for none.
	testSecret string
	// challenge is what a 401 asks for (RFC 9110 §11.6.1), if anything.
	challenge string
	// answer is how a complaint is put to the provider's clients.
	answer func(complaint) (status int, body any)
	// requests are the types of its requests, for the documentation.
	requests []providerRequest
}

type providerRoute struct {
	path  string // of echo, for POST
	serve func(*exchange) error
}

// providerRequest is a request in the documentation.
type providerRequest struct {
	path   string
	fields any // a value of its type, or []formField
}

// complaint is a problem on its way to a provider's client.
type complaint struct {
	*problem.Error
	// status is the native API's, but for what the providers agree on: 400 for
	// what is wrong in a request, 503 where the relay may take it later, and 409
	// where it may have taken it.
	status int
	text   string      // the detail, never empty
	header http.Header // of the answer
}

func newComplaint(p *problem.Error, header http.Header) complaint {
	status := p.Status()
	switch status {
	case http.StatusGatewayTimeout:
		// Many SDKs repeat a request that is answered with 5xx. After the relay's
		// answer was lost that could make two messages of one.
		status = http.StatusConflict
	case http.StatusUnprocessableEntity, http.StatusConflict, http.StatusRequestTimeout:
		status = http.StatusBadRequest
	case http.StatusBadGateway:
		status = http.StatusServiceUnavailable
	}
	return complaint{Error: p, status: status, text: p.Body("").Detail, header: header}
}

// providers are all that there are, in the order of the documentation.
var providers = []*provider{mailgun, postmark, resend, sendgrid, ses, mailersend, brevo}

// ProviderNames are the names that [Options.Providers] may hold.
func ProviderNames() []string {
	var names []string
	for _, p := range providers {
		names = append(names, p.name)
	}
	return names
}

// chooseProviders returns those named; nil names choose all of them.
func chooseProviders(names []string) ([]*provider, error) {
	if names == nil {
		return providers, nil
	}
	var chosen []*provider
	for _, p := range providers {
		if slices.Contains(names, p.name) {
			chosen = append(chosen, p)
		}
	}
	for _, name := range names {
		if !slices.Contains(ProviderNames(), name) {
			return nil, fmt.Errorf("unknown provider %q", name)
		}
	}
	return chosen, nil
}

// providerOf returns the provider whose clients use the path, or nil.
func (s *Server) providerOf(path string) *provider {
	for _, p := range s.providers {
		if p.owns(path) {
			return p
		}
	}
	if len(s.providers) > 0 && strings.HasPrefix(path, "/v3/") {
		return unknownV3
	}
	return nil
}

// unknownV3 answers where three providers have their routes, and a path tells
// nothing. Each of their clients finds its own field in the answer.
var unknownV3 = &provider{answer: func(c complaint) (int, any) {
	type item struct {
		Message string `json:"message"`
	}
	return c.status, struct {
		Message string `json:"message"`
		Errors  []item `json:"errors"`
	}{c.text, []item{{c.text}}}
}}

// under makes an owns of paths and everything below them.
func under(paths ...string) func(string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(paths, func(p string) bool {
			rest, found := strings.CutPrefix(path, p)
			return found && (rest == "" || rest[0] == '/')
		})
	}
}

// exchange is one request of a provider's client.
type exchange struct {
	*Server
	c        echo.Context
	provider *provider
	key      *keys.Key
	share    *intake.Share
	// test: the request is judged, and nothing is sent.
	test bool
	// composed counts the octets of the request's messages.
	composed int64
}

// provide serves a provider's route.
func (s *Server) provide(p *provider, r providerRoute) echo.HandlerFunc {
	return func(c echo.Context) error {
		x := &exchange{Server: s, c: c, provider: p, share: s.budget.Share()}
		defer x.share.Shrink(0)
		if err := x.authenticate(); err != nil {
			return err
		}
		return r.serve(x)
	}
}

func (x *exchange) authenticate() error {
	if x.keys.Empty() {
		return keys.CheckLoopback(x.c.Request())
	}
	if x.provider.secret == nil {
		return nil
	}
	secret := x.provider.secret(x.c.Request().Header)
	if secret == "" {
		return problem.New(api.CodeUnauthorized, detailKeyMissing)
	}
	if secret == x.provider.testSecret {
		x.test = true
		return nil
	}
	k, err := x.keys.Find(secret)
	if err != nil {
		return err
	}
	x.setKey(k)
	return nil
}

const detailKeyMissing = "The API key is missing."

// setKey says whose request it is.
func (x *exchange) setKey(k *keys.Key) {
	x.key = k
	request(x.c).key = k
}

func bearer(h http.Header) string {
	scheme, secret, _ := strings.Cut(h.Get(echo.HeaderAuthorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}

// outgoing is one message of a request.
type outgoing struct {
	mailer.Message
	// finished is a message that needs no composing, and envelope what the
	// request says of it; nil: Message is composed.
	finished []byte
	envelope compose.FinishOptions
	// ownReversePath makes the From address of a finished message its
	// reverse-path, whatever its Sender field says.
	ownReversePath bool
	bulk           bool // what the provider keeps apart from transactional mail
	tags           map[string]string
	sendAt         time.Time
	// idempotencyKey and fingerprint as in [queue.Submission].
	idempotencyKey string
	fingerprint    [32]byte
	// where turns the mailer's path of a field, such as to[0], into the
	// provider's. Nil leaves it.
	where func(field string) string
}

// sent is what became of an outgoing message.
type sent struct {
	id        string // of the queue
	messageID string // with angle brackets
	at        time.Time
}

// send composes and submits all of the messages, or none of them.
func (x *exchange) send(messages []outgoing) ([]sent, error) {
	subs := make([]queue.Submission, len(messages))
	for i := range messages {
		sub, err := x.compose(&messages[i])
		if err != nil {
			return nil, err
		}
		subs[i] = sub
	}
	return x.submit(subs)
}

// maxComposed bounds what a request with few octets and many recipients makes.
const maxComposed = 128 << 20

// compose makes a submission of one message.
func (x *exchange) compose(o *outgoing) (queue.Submission, error) {
	sub := queue.Submission{
		Key: x.key.Name(), Tags: o.tags, SendAt: o.sendAt,
		IdempotencyKey: o.idempotencyKey, Fingerprint: o.fingerprint,
	}
	if !x.queue.Durable() {
		switch {
		case !o.sendAt.IsZero():
			return sub, problem.New(api.CodeQueueRequired, "A message cannot be sent later without a queue (MAILSIDECAR_QUEUE=none).")
		case o.idempotencyKey != "":
			return sub, problem.New(api.CodeQueueRequired, "An idempotency key cannot be kept without a queue (MAILSIDECAR_QUEUE=none).")
		}
	}
	composed, err := o.make()
	if err != nil {
		return sub, o.explain(err)
	}
	if o.bulk {
		composed.Envelope.Priority = mailer.PriorityBulk
	}
	if sub, err = x.accept(sub, composed, x.key); err == nil {
		err = x.hold(int64(len(sub.Content.Data)))
	}
	return sub, o.explain(err)
}

// hold counts n octets of a composed message.
func (x *exchange) hold(n int64) error {
	first := x.composed == 0
	x.composed += n
	switch {
	case !first && x.composed > maxComposed:
		return problem.New(api.CodeMessageTooLarge, fmt.Sprintf("The messages of one request may have %d octets together: send them in several requests.", maxComposed))
	case !x.share.Grow(x.composed):
		return problem.New(api.CodeBusy, "")
	}
	return nil
}

func (o *outgoing) make() (compose.Composed, error) {
	if o.finished != nil {
		c, err := compose.Finish(o.finished, o.envelope)
		if o.ownReversePath {
			c.Envelope.ReversePath = c.Sender
		}
		return c, err
	}
	if err := o.tidy(); err != nil {
		return compose.Composed{}, err
	}
	return compose.Compose(o.Message)
}

// explain names the fields of an error as the provider does.
func (o *outgoing) explain(err error) error {
	if err == nil {
		return nil
	}
	p := *problem.For(err)
	if p.Code == api.CodeInternal {
		return err
	}
	fields := make([]mailer.FieldError, len(p.Fields))
	for i, f := range p.Fields {
		if fields[i] = f; o.where != nil {
			fields[i].Field = o.where(f.Field)
		}
	}
	p.Fields = fields
	return &p
}

// submit hands the submissions to the queue in one commit. Without a queue
// there is no such thing, and no answer that could tell one message's fate from
// another's: only a single one is taken.
func (x *exchange) submit(subs []queue.Submission) ([]sent, error) {
	if len(subs) > 1 && !x.queue.Durable() {
		return nil, problem.New(api.CodeQueueRequired, "A request for several messages needs a queue (MAILSIDECAR_QUEUE=none).")
	}
	if err := x.key.Charge(len(subs)); err != nil {
		return nil, err
	}
	if x.test {
		return pretend(subs)
	}
	ctx, cancel := context.WithTimeout(x.c.Request().Context(), x.requestTimeout)
	defer cancel()
	if len(subs) == 1 {
		receipt, err := x.submitOne(ctx, subs[0])
		return []sent{receipt}, err
	}
	receipts, err := x.queue.SubmitBatch(ctx, subs)
	if err != nil {
		return nil, err
	}
	all := make([]sent, len(receipts))
	for i, r := range receipts {
		all[i] = newSent(r.Message)
	}
	request(x.c).message = all[0].id
	return all, nil
}

func (x *exchange) submitOne(ctx context.Context, sub queue.Submission) (sent, error) {
	receipt, err := x.queue.Submit(ctx, sub)
	if err != nil {
		return sent{}, err
	}
	m := receipt.Message
	request(x.c).message = m.ID
	if !x.queue.Durable() {
		if err := verdict(m); err != nil {
			return sent{}, err
		}
		if m.Status() != queue.StatusDelivered {
			// The providers' answers have no place for it: there, too, it comes to
			// light after the answer.
			x.log.Warn("some recipients were not accepted", "request_id", request(x.c).id, "id", m.ID, "provider", x.provider.name)
		}
	}
	return newSent(m), nil
}

func newSent(m queue.Message) sent {
	at := m.Created
	if at.IsZero() {
		at = time.Now()
	}
	return sent{m.ID, m.MessageID, at.UTC()}
}

// pretend answers for messages that are not sent.
func pretend(subs []queue.Submission) ([]sent, error) {
	all := make([]sent, len(subs))
	for i, sub := range subs {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		all[i] = sent{id.String(), sub.Content.MessageID, time.Now().UTC()}
	}
	return all, nil
}

// note logs what a request asks for in vain, without its values.
func (x *exchange) note(notHonoured []string) {
	if len(notHonoured) > 0 {
		x.log.Debug("fields ignored", "request_id", request(x.c).id, "provider", x.provider.name, "fields", notHonoured)
	}
}

// writeProblem answers with a problem in the provider's form.
func (p *provider) writeProblem(c echo.Context, e *problem.Error) error {
	if e.Code == api.CodeUnauthorized && p.challenge != "" {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, p.challenge)
	}
	status, body := p.answer(newComplaint(e, c.Response().Header()))
	return writeJSON(c, status, intake.TypeJSON, body)
}

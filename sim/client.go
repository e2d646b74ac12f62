package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"mailsidecar/queue"
	"mailsidecar/sim/model"
)

// answer is what a client got; come is false when it got none.
type answer struct {
	status int
	body   []byte
	come   bool
	// sent says that the service got the request at all.
	sent bool
	by   int // the instance
}

// ask makes a request, and waits for the answer at most as long as leaves; zero means
// without end.
func (h *history) ask(instance int, method, path string, header http.Header, body []byte, leaves time.Duration) answer {
	s := h.running(instance)
	if s == nil || !s.enter() {
		return answer{}
	}
	defer s.requests.Done()
	if h.world.shared() && leaves == 0 {
		leaves = clientPatience
	}
	ctx, cancel := context.WithCancel(s.ctx)
	if leaves > 0 {
		cancel()
		ctx, cancel = context.WithTimeout(s.ctx, leaves)
	}
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if len(body) == 0 {
		r.Body = http.NoBody
	}
	r.Header = header
	w := httptest.NewRecorder()
	if s.line.Gate().Pass(ctx) == nil {
		s.http.ServeHTTP(w, r)
		_ = s.line.Gate().Pass(ctx)
	}
	if ctx.Err() != nil || s.dead.Load() {
		return answer{sent: true, by: s.node.number}
	}
	return answer{w.Code, w.Body.Bytes(), true, true, s.node.number}
}

// clientPatience is how long a client waits for an answer where there are other instances,
// beside what it has asked to wait.
const clientPatience = 45 * time.Second

// enter counts a request, unless the service stops.
func (s *service) enter() bool {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	if s.refuses.Load() {
		return false
	}
	s.requests.Add(1)
	return true
}

// receipt is what the answers of the native API have.
type receipt struct {
	ID         string `json:"id"`
	MessageID  string `json:"MessageID"` // Postmark's
	Recipients []struct {
		Email string `json:"email"`
		State string `json:"state"`
	} `json:"recipients"`
	Expires time.Time `json:"expires_at"`
	Code    string    `json:"code"`
	Next    string    `json:"next"`
	Results []struct {
		ID      string `json:"id"`
		Problem *struct {
			Code string `json:"code"`
		} `json:"problem"`
	} `json:"results"`
	Messages []struct {
		ID string `json:"id"`
	} `json:"messages"`
}

func (r *receipt) states() map[string]string {
	states := map[string]string{}
	for _, one := range r.Recipients {
		states[one.Email] = one.State
	}
	return states
}

// submit makes the request of a draft, and notes the answer.
func (h *history) submit(instance int, d *Draft) model.Answer {
	leaves := d.Leaves
	if h.world.shared() && leaves == 0 {
		leaves = d.Wait + clientPatience
	}
	req := model.Request{Key: d.Key.Name, Name: d.Name, Submissions: d.Submissions, Wait: d.Wait, Begun: time.Now()}
	a := h.ask(instance, http.MethodPost, d.Path, d.Header.Clone(), []byte(d.Body), leaves)
	req.Ended, req.Instance = time.Now(), a.by
	var r receipt
	_ = json.Unmarshal(a.body, &r) // an answer that is none is judged by its status
	req.Status, req.Code, req.States = a.status, r.Code, r.states()
	req.Answer, req.IDs = d.verdict(a, r.Code), map[string]string{}
	if req.Answer == model.Accepted {
		d.accepted(r, req.IDs)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Requests = append(h.told.Requests, req)
	if req.Answer == model.Unknown && d.Name != "" && h.world.shared() {
		h.unknown = append(h.unknown, *d)
	}
	for token, id := range req.IDs {
		h.ids[token] = id
	}
	h.log.Add("client", "answer "+r.Code, d.Submissions[0].Token, a.status)
	return req.Answer
}

// accepted notes which messages were accepted under which id.
func (d *Draft) accepted(r receipt, ids map[string]string) {
	if strings.HasPrefix(r.ID, "<") { // a Message-ID, as Mailgun has it
		r.ID = ""
	}
	if !d.Batch {
		ids[d.Submissions[0].Token] = r.ID
		return
	}
	for i, one := range r.Results {
		if i < len(d.Submissions) && one.Problem == nil {
			ids[d.Submissions[i].Token] = one.ID
		}
	}
}

// verdict says whether the messages were stored.
func (d *Draft) verdict(a answer, code string) model.Answer {
	if d.Foreign && a.come && a.status/100 != 2 && (a.status >= 500 || a.status == http.StatusConflict) {
		return model.Unknown // each provider has words of its own
	}
	return verdict(a, code)
}

// verdict says whether a message was stored.
func verdict(a answer, code string) model.Answer {
	switch {
	case !a.sent:
		return model.Refused
	case !a.come:
		return model.Unknown
	case a.status/100 == 2:
		return model.Accepted
	}
	switch code {
	case "rejected", "canceled", "expired", "uncertain": // with Prefer: wait
		return model.Accepted
	case "internal", "queue_unavailable", "timeout", "idempotency_key_in_use", "":
		return model.Unknown
	}
	return model.Refused
}

// about finds the message that an action is about, one of those that were submitted together. The
// id is empty where there is none.
func (h *history) about(a Action) (d *Draft, s model.Submission, header http.Header, id string) {
	d = h.world.draft(a.Of, a.Of, false, h.began)
	s = d.Submissions[h.world.chance.Of("one of").N(a.ID).Below(len(d.Submissions))]
	header = http.Header{"Authorization": {"Bearer " + d.Key.Secret()}}
	return d, s, header, h.find(a.Instance, s, header)
}

// command makes a request about a message that was submitted.
func (h *history) command(a Action) {
	d, token, header, id := h.about(a)
	if id == "" {
		return
	}
	c := model.Command{Kind: string(a.Kind), Key: d.Key.Name, ID: id, Begun: time.Now()}
	method, path := http.MethodGet, "/v1/messages/"+id
	switch a.Kind {
	default:
	case Cancel:
		method = http.MethodDelete
	case Retry:
		method, path = http.MethodPost, path+"/retry"
	}
	h.log.Add("client", string(a.Kind), token.Token, 0)
	h.note(c, h.ask(a.Instance, method, path, header, nil, 0))
}

// all has all of a key, or of a sender of it, be tried again, or canceled.
func (h *history) all(a Action) {
	c := h.world.chance.Of("of key").N(a.ID)
	k := h.world.Keys[c.Below(len(h.world.Keys))]
	header := http.Header{"Authorization": {"Bearer " + k.Secret()}, "Content-Type": {"application/json"}}
	cmd := model.Command{Kind: string(a.Kind), Key: k.Name, Begun: time.Now()}
	path, filter := "/v1/messages/retry", `{"since":"1999-01-01"}`
	if c.Of("sender").Happens(0.5) {
		cmd.Sender = h.world.from(k, "mail")
		filter = `{"sender":"` + cmd.Sender + `"}`
	}
	if a.Kind == CancelAll {
		path = "/v1/messages/cancel"
	}
	h.log.Add("client", string(a.Kind), k.Name, 0)
	h.note(cmd, h.ask(a.Instance, http.MethodPost, path, header, []byte(filter), 0))
}

// resend sends a message to another address. Its content says who it was for before, so the token of
// the new message is in its address alone.
func (h *history) resend(a Action) {
	of, s, header, id := h.about(a)
	if id == "" {
		return
	}
	token := fmt.Sprintf("%sr%d", s.Token, a.ID)
	to := fmt.Sprintf("to-%s-0@%s.example.org", token, token)
	d := &Draft{Key: of.Key, Path: "/v1/messages/" + id + "/resend", Header: header, Submissions: []model.Submission{{Token: token, Paths: []string{to}, Priority: s.Priority, Valid: true}}}
	if h.world.chance.Of("named").N(a.ID).Happens(0.5) {
		d.Name = fmt.Sprint("resend-", a.ID)
		d.Header.Set("Idempotency-Key", d.Name)
	}
	d.json(map[string]any{"to": to})
	h.log.Add("client", "resend", token, 0)
	h.send(a.Instance, d)
}

// move has a message that waits for its send_at wait for another time. No route of the
// native API does that.
func (h *history) move(a Action) {
	d := h.world.draft(a.Of, a.Of, false, h.began)
	s, id := h.running(a.Instance), h.find(a.Instance, d.Submissions[0], http.Header{"Authorization": {"Bearer " + d.Key.Secret()}})
	if id == "" || s == nil || !s.enter() {
		return
	}
	defer s.requests.Done()
	c := model.Command{Kind: string(Move), Key: d.Key.Name, ID: id, Begun: time.Now()}
	c.To = h.now().Add(h.world.chance.Of("move").N(a.ID).Between(-time.Minute, 3*time.Hour)).Truncate(time.Microsecond)
	ctx, cancel := s.ctx, context.CancelFunc(func() {})
	if h.world.shared() {
		ctx, cancel = context.WithTimeout(ctx, clientPatience)
	}
	_, err := s.queue.Reschedule(ctx, d.Key.Name, id, c.To)
	cancel()
	switch {
	case err == nil && !s.dead.Load():
		c.Answer = model.Accepted
	case errors.Is(err, queue.ErrNotScheduled), errors.Is(err, queue.ErrNotFound):
		c.Answer = model.Refused
	}
	c.Ended = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Commands = append(h.told.Commands, c)
	h.log.Add("client", "move", d.Submissions[0].Token, int(c.Answer))
}

func (h *history) note(c model.Command, a answer) {
	var r receipt
	_ = json.Unmarshal(a.body, &r)
	c.Ended, c.Status, c.States, c.Expire = time.Now(), a.status, r.states(), r.Expires
	if c.Answer = verdict(a, r.Code); r.Next != "" {
		c.Answer = model.Unknown // it was done to some only
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told.Commands = append(h.told.Commands, c)
	h.log.Add("client", c.Kind+" answer "+r.Code, c.ID[:min(len(c.ID), 0)], a.status)
}

// find returns the id of a message. A client that was not told looks for it by its
// recipient.
func (h *history) find(instance int, s model.Submission, header http.Header) string {
	h.mu.Lock()
	id := h.ids[s.Token]
	h.mu.Unlock()
	if id != "" {
		return id
	}
	a := h.ask(instance, http.MethodGet, "/v1/messages?recipient="+url.QueryEscape(s.Paths[0]), header, nil, 0)
	var r receipt
	if json.Unmarshal(a.body, &r) != nil || len(r.Messages) == 0 {
		return ""
	}
	return r.Messages[0].ID
}

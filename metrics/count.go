package metrics

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailsidecar/api"
	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// counts are counted where it happens.
type counts struct {
	accepted, ended, recipients, attempts, replies *prometheus.CounterVec
	attemptDuration, latency                       *prometheus.HistogramVec
	lastDelivery                                   *prometheus.GaugeVec

	connects, logins *prometheus.CounterVec

	commitDuration, commitWrites prometheus.Observer // nil without a store
	commitErrors                 prometheus.Counter
	refusedMail                  *prometheus.CounterVec // nil without a store

	requests, refused, denied *prometheus.CounterVec
	requestDuration           *prometheus.HistogramVec
	panics                    prometheus.Counter

	known *replyLabels
}

func (m *Metrics) newCounts(o Options) counts {
	c := counts{
		accepted: m.counter("messages_accepted_total", "Messages that were stored; without a queue those that a relay took for some recipient. door is the form of the request: json, form, rfc822, batch, resend (a stored message to another address), or the provider whose API it was.",
			"key", "door", "priority"),
		ended:      m.counter("recipients_ended_total", "Recipients that are delivered, bounced or expired. Those that were canceled do not count.", "state"),
		recipients: m.counter("recipients_tried_total", "What came of attempts, for each recipient and try: delivered, deferred (not taken for now, or by another relay), bounced, or uncertain (the reply was lost). What a crash left uncertain does not count.", "relay", "outcome"),
		attempts: m.counter("attempts_total", "Attempts at handing a message to a relay, by the class of their first failure and its stage; ok and none where all recipients were taken.",
			"relay", "class", "stage"),
		replies: m.counter("replies_total", "Last replies of relays, for each recipient and try. An enhanced code is none where the relay gave none; codes beyond 100 pairs of a relay are other.",
			"relay", "code", "enhanced"),
		attemptDuration: m.histogram("attempt_duration_seconds", "How long attempts took, with what they waited for a connection or a turn within SMTP_RATE.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}, "relay"),
		latency: m.histogram("delivery_latency_seconds", "How long after a message was accepted, or was to be sent, a relay took it for a recipient.",
			[]float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 86400, 432000}, "priority"),
		lastDelivery: m.setGauge("relay_last_delivery_timestamp_seconds", "When the relay took mail last; 0 where it has not since the start.", "relay"),

		connects: m.counter("relay_connects_total", "Tries to open a connection to a port, up to EHLO over TLS: ok, or the problem as `mailsidecar check --json` has it.", "relay", "port", "result"),
		logins:   m.counter("relay_logins_total", "Logins: accepted, refused, or undecided where the relay did not judge them.", "relay", "result"),

		requests:        m.counter("http_requests_total", "Requests that were answered. route is a pattern; other for a request that no route serves.", "route", "method", "code"),
		requestDuration: m.histogram("http_request_duration_seconds", "How long requests took, with what a client asked to wait for.", []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}, "route"),
		refused:         m.counter("requests_refused_total", "Requests that were answered with a problem, by its code. The messages of a batch do not count one by one.", "key", "code"),
		denied:          m.counter("auth_failures_total", "Requests that were refused for who asked, by the problem's code: unauthorized is a missing or unknown key.", "code"),
		known:           &replyLabels{pairs: map[string]map[replyLabel]bool{}},
	}
	c.panics = m.counter("panics_total", "Requests and deliveries that met a defect of the program.").WithLabelValues()
	if o.Stores {
		c.commitDuration = m.histogram("store_commit_duration_seconds", "How long commits to the store took, the fsync included.",
			[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}).WithLabelValues()
		c.commitWrites = m.histogram("store_commit_writes", "How many writes shared a commit.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}).WithLabelValues()
		c.refusedMail = m.counter("queue_refused_requests_total", "Requests with new mail that were refused because there was no room for it, or because the store does not work, by the problem's code. Look-ups do not count.", "code")
		c.commitErrors = m.counter("store_errors_total", "Commits that failed.").WithLabelValues()
	}
	c.begin(o)
	return c
}

// storageCodes are the problems that mean that new mail has no room.
var storageCodes = []api.Code{api.CodeQueueFull, api.CodeDiskFull, api.CodeQueueUnavailable}

// denials are the problems of who asks.
var denials = []api.Code{api.CodeUnauthorized, api.CodeRoleRequired, api.CodeSenderNotAllowed, api.CodeCrossOrigin, api.CodeForeignHost}

// begin makes the series that alerts look at, and those of most mail. Prometheus sees no increase where a series
// begins with its first event.
func (c *counts) begin(o Options) {
	for _, relay := range o.Relays {
		for _, outcome := range []string{"delivered", "deferred", "bounced", "uncertain"} {
			c.recipients.WithLabelValues(relay, outcome)
		}
		for _, result := range []string{"accepted", "refused", "undecided"} {
			c.logins.WithLabelValues(relay, result)
		}
		c.attempts.WithLabelValues(relay, "ok", "none")
		c.attemptDuration.WithLabelValues(relay)
		c.lastDelivery.WithLabelValues(relay)
	}
	for _, state := range []queue.State{queue.Delivered, queue.Bounced, queue.Expired} {
		c.ended.WithLabelValues(string(state))
	}
	for _, p := range priorities {
		c.latency.WithLabelValues(p)
	}
	keys := o.Keys
	if len(keys) == 0 {
		keys = []string{none}
	}
	for _, key := range keys {
		for _, door := range []string{"json", "rfc822"} { // those of most mail
			c.accepted.WithLabelValues(key, door, mailer.PriorityNormal.String())
		}
	}
	if c.refusedMail != nil {
		for _, code := range storageCodes {
			c.refusedMail.WithLabelValues(string(code))
		}
	}
	for _, code := range denials {
		c.denied.WithLabelValues(string(code))
	}
}

// Accepted implements the interface Meter of package queue, as the next methods do.
func (m *Metrics) Accepted(key, door string, p mailer.Priority) {
	m.accepted.WithLabelValues(m.owner(key), door, p.String()).Inc()
}

// Refused counts a request with new mail that could not be stored.
func (m *Metrics) Refused(why error) {
	if m.refusedMail == nil {
		return
	}
	code := api.CodeQueueUnavailable
	switch {
	case errors.Is(why, queue.ErrFull):
		code = api.CodeQueueFull
	case errors.Is(why, queue.ErrDiskFull):
		code = api.CodeDiskFull
	}
	m.refusedMail.WithLabelValues(string(code)).Inc()
}

// Tried counts the attempts on one message.
func (m *Metrics) Tried(attempts []mailer.Attempt) {
	for i := range attempts {
		m.attempt(attempts, i)
	}
}

func (m *Metrics) attempt(all []mailer.Attempt, i int) {
	a := &all[i]
	relay, class, stage := m.relay(a.Relay), "ok", "none"
	delivered := false
	for _, r := range a.Results {
		f := r.Failure
		if f != nil && class == "ok" {
			class, stage = f.Class.String(), f.Stage.String()
		}
		delivered = delivered || f == nil
		m.recipients.WithLabelValues(relay, outcomeOf(f, all[i+1:], r.ForwardPath)).Inc()
		reply := r.Reply
		if reply.Code == 0 && f != nil {
			reply = f.Reply
		}
		if reply.Code != 0 {
			l := m.known.label(relay, reply)
			m.replies.WithLabelValues(relay, l.code, l.enhanced).Inc()
		}
	}
	m.attempts.WithLabelValues(relay, class, stage).Inc()
	m.attemptDuration.WithLabelValues(relay).Observe(a.Duration.Seconds())
	if delivered {
		m.lastDelivery.WithLabelValues(relay).Set(seconds(a.Started.Add(a.Duration)))
	}
}

// outcomeOf is what came of an attempt for a recipient, as GET /v1/stats counts it: a refusal
// after which another relay was asked is no bounce.
func outcomeOf(f *mailer.Failure, later []mailer.Attempt, path string) string {
	switch {
	case f == nil:
		return "delivered"
	case f.Class == mailer.ClassUncertain:
		return "uncertain"
	case f.Class == mailer.ClassPermanent && !triedIn(later, path):
		return "bounced"
	default:
		return "deferred"
	}
}

func triedIn(attempts []mailer.Attempt, path string) bool {
	for i := range attempts {
		for j := range attempts[i].Results {
			if attempts[i].Results[j].ForwardPath == path {
				return true
			}
		}
	}
	return false
}

// Ended counts a recipient that is final.
func (m *Metrics) Ended(s queue.State, p mailer.Priority, took time.Duration) {
	m.ended.WithLabelValues(string(s)).Inc()
	if s == queue.Delivered {
		m.latency.WithLabelValues(p.String()).Observe(max(took, 0).Seconds())
	}
}

// Panicked counts a defect.
func (m *Metrics) Panicked() { m.panics.Inc() }

// Opened implements the interface Meter of package smtp, with LoggedIn.
func (m *Metrics) Opened(relay string, port int, result string) {
	m.connects.WithLabelValues(m.relay(relay), strconv.Itoa(port), result).Inc()
}

// LoggedIn counts a login at a relay.
func (m *Metrics) LoggedIn(relay, result string) {
	m.logins.WithLabelValues(m.relay(relay), result).Inc()
}

// Committed implements the interface Meter of package sqlite, with CommitFailed.
func (m *Metrics) Committed(took time.Duration, writes int) {
	if m.commitDuration != nil {
		m.commitDuration.Observe(took.Seconds())
		m.commitWrites.Observe(float64(writes))
	}
}

// CommitFailed counts a commit that failed.
func (m *Metrics) CommitFailed() {
	if m.commitErrors != nil {
		m.commitErrors.Inc()
	}
}

// Answered implements the interface Meter of package handler, with Panicked.
func (m *Metrics) Answered(route, method string, status int, key string, code api.Code, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.requestDuration.WithLabelValues(route).Observe(took.Seconds())
	if code == "" {
		return
	}
	m.refused.WithLabelValues(m.key(key), string(code)).Inc()
	for _, denial := range denials {
		if code == denial {
			m.denied.WithLabelValues(string(code)).Inc()
		}
	}
}

// maxReplyLabels is how many pairs of codes each relay may have.
const maxReplyLabels = 100

// replyLabels keeps the codes that relays send within a limit.
type replyLabels struct {
	mu    sync.Mutex
	pairs map[string]map[replyLabel]bool // by relay
}

type replyLabel struct{ code, enhanced string }

func (k *replyLabels) label(relay string, r mailer.Reply) replyLabel {
	l := replyLabel{other, other}
	if r.Code >= 200 && r.Code <= 599 {
		l.code = strconv.Itoa(r.Code)
	}
	switch {
	case r.Enhanced == "":
		l.enhanced = "none"
	case isEnhanced(r.Enhanced):
		l.enhanced = r.Enhanced
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	pairs := k.pairs[relay]
	if pairs == nil {
		pairs = map[replyLabel]bool{}
		k.pairs[relay] = pairs
	}
	switch {
	case pairs[l]:
	case len(pairs) < maxReplyLabels:
		pairs[l] = true
	default:
		return replyLabel{other, other}
	}
	return l
}

// isEnhanced reports whether s is an enhanced status code (RFC 3463 §2).
func isEnhanced(s string) bool {
	class, rest, _ := strings.Cut(s, ".")
	subject, detail, ok := strings.Cut(rest, ".")
	return ok && (class == "2" || class == "4" || class == "5") && isSubcode(subject) && isSubcode(detail)
}

func isSubcode(s string) bool {
	return s != "" && len(s) <= 3 && strings.Trim(s, "0123456789") == "" && (s[0] != '0' || len(s) == 1)
}

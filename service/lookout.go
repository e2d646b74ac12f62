package service

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mailsidecar/alerts"
	"mailsidecar/config"
	"mailsidecar/diagnosis"
	"mailsidecar/handler"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp/token"
	"mailsidecar/queue"
	"mailsidecar/service/certs"
	"mailsidecar/units"
)

const (
	// relayGrace is how long a relay must have been unusable to be told: connections fail
	// now and then.
	relayGrace = 20 * time.Second
	// refusalLife is how long mail counts as refused after the last refusal.
	refusalLife = 5 * time.Minute
	// tokenGrace is how long a failure of an OAuth2 server that may pass by itself is
	// waited for: tokens are renewed before they end.
	tokenGrace = 10 * time.Minute
	// Bounces are told over both within bounceTime.
	leastBounces = 20
	bounceShare  = 10 // percent
	bounceTime   = 30 * time.Minute
	// certificateWarning is how long before its end a certificate is told; where it lives
	// shorter, a third of its life.
	certificateWarning = 14 * units.Day
	// statsTime is how long the store may take to answer.
	statsTime = 5 * time.Second
	// relayCertificate is how long before its end the certificate of a relay is told. Some
	// live for six days only.
	relayCertificate = 2 * units.Day
)

// lookout knows where to look for what is wrong.
type lookout struct {
	interval time.Duration
	monitor  *relayMonitor
	queue    *runningQueue // nil when nothing is stored
	maxAge   time.Duration
	started  time.Time
	files    []certificateFile

	mu         sync.Mutex
	waitsSince time.Time // since when some mail waits that was due, as the looks saw it; zero: none does
}

func newLookout(c config.Config, m *relayMonitor, q *runningQueue) *lookout {
	l := &lookout{monitor: m, queue: q, maxAge: time.Duration(c.Service.AlertsMaxAge), started: time.Now()}
	l.watchFile("MAILSIDECAR_TLS_CERT_FILE", c.Service.TLSCertFile, c.Service.TLSKeyFile)
	for _, r := range c.Relays {
		l.watchFile(r.Variable("TLS_CERT_FILE"), r.TLSCertFile, r.TLSKeyFile)
	}
	return l
}

// conditions are all that is wrong at this moment.
func (l *lookout) conditions(ctx context.Context) []alerts.Condition {
	var all []alerts.Condition
	statuses := l.monitor.Status()
	for i, s := range statuses {
		all = append(all, l.relay(i, s)...)
	}
	for _, f := range l.files {
		all = append(all, f.conditions(time.Now())...)
	}
	if l.queue == nil {
		return all
	}
	all = append(all, l.refusals(ctx)...)
	return append(all, l.stored(ctx, statuses)...)
}

// relay is what is wrong with the relay of that number.
func (l *lookout) relay(i int, s handler.RelayStatus) []alerts.Condition {
	c := l.monitor.configs[i]
	unusable := alerts.Condition{Kind: alerts.RelayUnusable, Subject: s.Name, Severity: alerts.Critical, After: relayGrace}
	login := alerts.Condition{Kind: alerts.LoginRefused, Subject: s.Name, Severity: alerts.Critical}
	all := l.tokens(i, s.Name, &login)
	f, now := s.Failure, time.Now()
	switch {
	case s.Manual != nil, l.monitor.judge(i, cmp.Or(f, s.Logins.Failure), s.PausedUntil, now) == relayUnknown:
		// A person keeps mail from it, or there was no mail for it since long: it is not
		// known whether it would work.
		unusable.Unknown, login.Unknown = true, true
	case s.Logins.Failure != nil:
		l.explain(&login, c, s.Logins.Failure)
		login.Severity, login.After = alerts.Critical, 0
		if s.Logins.Refused == 0 {
			login.After = relayGrace // it was not judged
		}
		unusable.Unknown = true
	case f != nil && f.Stage == mailer.StageAuth:
		l.explain(&login, c, f)
		unusable.Unknown = true
	case f != nil:
		l.explain(&unusable, c, f)
		if f.Passes {
			unusable.Severity = alerts.Warning
		}
		login.Unknown = login.Found == ""
	}
	for _, condition := range []alerts.Condition{unusable, login} {
		if condition.Found != "" || condition.Unknown {
			all = append(all, condition)
		}
	}
	all = append(all, l.certificate(i, s, now)...)
	return append(all, l.port(i, s)...)
}

// certificate says whether the relay's certificate ends soon, as of its connections of late: of
// several ports the one that ends first.
func (l *lookout) certificate(i int, s handler.RelayStatus, now time.Time) []alerts.Condition {
	about := "the certificate of " + s.Name
	var port int // zero: none has shown one of late
	var end time.Time
	for p, e := range l.monitor.relays[i].Certificates() {
		if port == 0 || e.Before(end) || e.Equal(end) && p < port {
			port, end = p, e
		}
	}
	left := end.Sub(now)
	switch {
	case port == 0:
		return []alerts.Condition{{Kind: alerts.CredentialEnds, Subject: about, Unknown: true}}
	case left > relayCertificate:
		return nil
	}
	c := alerts.Condition{Kind: alerts.CredentialEnds, Subject: about, Severity: alerts.Warning, Again: againBefore(left)}
	verb, then := "ends", "Then no mail goes there."
	if left <= 0 {
		verb, then = "ended", "While it is shown, no mail goes there."
	}
	c.Found = fmt.Sprintf("The certificate that %s shows on port %d %s on %s. %s", s.Host, port, verb, end.UTC().Format("2006-01-02 15:04 MST"), then)
	c.Do = "Tell those who run the relay: they have to renew it."
	return []alerts.Condition{c}
}

// againBefore is how often the end of a credential is told, with that much time left.
func againBefore(left time.Duration) time.Duration {
	if left < units.Day {
		return alerts.Hourly
	}
	return alerts.Daily
}

func (l *lookout) explain(to *alerts.Condition, c config.Relay, f *mailer.Failure) {
	advice := adviceOn(c, f)
	to.Found, to.Do = advice.Found, advice.Do
}

// port says whether the first port of the ladder, which has served, does not any more.
func (l *lookout) port(i int, s handler.RelayStatus) []alerts.Condition {
	if len(s.Ladder) < 2 || !l.monitor.out.firstServed(i) {
		return nil
	}
	lost := alerts.Condition{Kind: alerts.PortLost, Subject: s.Name, Severity: alerts.Warning, Again: alerts.Daily}
	switch first := s.Ladder[0]; s.Serving {
	case first:
		return nil
	case mailer.Rung{}:
		lost.Unknown = true
	default:
		lost.Found = fmt.Sprintf("Port %d of %s has served, and does not answer any more. Mail goes out over port %d.", first.Port, s.Host, s.Serving.Port)
		lost.Do = fmt.Sprintf("See whether a firewall or the hosting provider has closed port %d: mailsidecar check tells more. The port is tried again every minute.", first.Port)
	}
	return []alerts.Condition{lost}
}

// tokens says what is wrong with the OAuth2 tokens of a relay, or will be. Where there is no
// token, login says so.
func (l *lookout) tokens(i int, name string, login *alerts.Condition) []alerts.Condition {
	status, ok := TokenStatus(l.monitor.relays[i])
	if !ok {
		return nil
	}
	settings := AdviceSettings(l.monitor.configs[i])
	if status.Err != nil {
		advice := diagnosis.OfToken(status.Err, settings)
		login.Found, login.Do = advice.Found, advice.Do
		if token.KindOf(status.Err) == token.KindPassing {
			login.Severity, login.After = alerts.Warning, tokenGrace
		}
	}
	return warned(name, status.Warnings, settings)
}

// warned are the warnings of OAuth2 as conditions.
func warned(name string, warnings []token.Warning, settings diagnosis.Settings) []alerts.Condition {
	var all []alerts.Condition
	for _, w := range warnings {
		advice := diagnosis.OfWarning(w, settings)
		c := alerts.Condition{Kind: alerts.CredentialEnds, Subject: tokenSubjects[w.Kind] + " of " + name, Severity: alerts.Warning, Found: advice.Found, Do: advice.Do, Again: alerts.Daily}
		if !w.At.IsZero() {
			c.Again = againBefore(time.Until(w.At))
		}
		all = append(all, c)
	}
	return all
}

// tokenSubjects are what the warnings are about.
var tokenSubjects = map[token.WarningKind]string{
	token.WarningLogin: "the OAuth2 login", token.WarningSecret: "the OAuth2 client secret", token.WarningCertificate: "the OAuth2 client certificate",
	token.WarningClock: "the clock for OAuth2", token.WarningNotStored: "the stored OAuth2 login",
}

// refusals says whether new mail is refused.
func (l *lookout) refusals(ctx context.Context) []alerts.Condition {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	err, trouble := l.queue.Ready(ctx), l.queue.Trouble()
	refused := alerts.Condition{Kind: alerts.MailRefused, Severity: alerts.Critical}
	switch {
	case isRefusal(err):
	case !trouble.Refused.IsZero() && time.Since(trouble.Refused).Abs() < refusalLife:
		err = trouble.RefusedFor
	case err != nil && !errors.Is(err, queue.ErrDraining): // it starts, stops, or does not answer
		refused.Unknown = true
		return []alerts.Condition{refused}
	default:
		return nil
	}
	refused.Found = "New mail is refused: " + err.Error() + "."
	broken, isBroken := errors.AsType[*queue.StoreError](err)
	switch {
	case errors.Is(err, queue.ErrFull):
		refused.Do = "See with mailsidecar status why mail waits. Raise the limit only when the disk has room."
	case errors.Is(err, queue.ErrDiskFull):
		refused.Do = "Free some space on the disk of MAILSIDECAR_DATA_DIR. What was accepted is still delivered."
	case errors.Is(err, queue.ErrUnavailable):
		refused.Do = "See that the database of MAILSIDECAR_QUEUE runs, and that it can be reached from here. Everything goes on by itself then."
	case isBroken && broken.Remedy != "":
		refused.Found = fmt.Sprintf("New mail is refused: the queue's store %s does not work (%v).", broken.Path, broken.Err)
		refused.Do = broken.Remedy
	default:
		refused.Do = "Look into the log for the cause, and see \"When something is wrong\" in docs/operating.md."
	}
	return []alerts.Condition{refused}
}

// isRefusal reports whether the error is one that an operator has to do something about.
func isRefusal(err error) bool {
	return errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrDiskFull) || errors.Is(err, queue.ErrMoved) || errors.Is(err, queue.ErrUnavailable) || errors.As(err, new(*queue.StoreError))
}

// stored is what the numbers of the store tell.
func (l *lookout) stored(ctx context.Context, relays []handler.RelayStatus) []alerts.Condition {
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	now := time.Now()
	stats, err := l.queue.Stats(ctx, queue.AnyKey)
	if err != nil {
		return []alerts.Condition{
			{Kind: alerts.MailWaits, Unknown: true}, {Kind: alerts.MailHeld, Unknown: true}, {Kind: alerts.ManyBounces, Unknown: true}, {Kind: alerts.CrashSuspect, Unknown: true},
		}
	}
	all := l.waiting(now, stats, relays)
	all = append(all, l.held(ctx, stats)...)
	return append(all, bounces(now, stats)...)
}

// dueSince is since when mail has been due that did not go; zero where none is. Each try of a message makes it
// due anew, so where a relay fails it is since when both the relay has failed and mail has waited.
func (l *lookout) dueSince(now time.Time, stats queue.Stats, relays []handler.RelayStatus) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := stats.OldestDue
	switch {
	case !stats.Waits():
		l.waitsSince = time.Time{}
		return since
	case l.waitsSince.IsZero():
		l.waitsSince = now
		if !since.IsZero() {
			l.waitsSince = since
		}
	}
	for _, r := range relays {
		if r.FailingSince.IsZero() || r.Manual != nil {
			continue
		}
		if both := latest(r.FailingSince, l.waitsSince); since.IsZero() || both.Before(since) {
			since = both
		}
	}
	return since
}

// waiting says whether nothing goes out though something has been due for long. Where much
// waits for a rate, or one relay of several fails, something goes out.
func (l *lookout) waiting(now time.Time, stats queue.Stats, relays []handler.RelayStatus) []alerts.Condition {
	last := l.monitor.out.lastDelivery()
	quiet := now.Sub(l.started)
	if !last.IsZero() {
		quiet = now.Sub(last)
	}
	due := l.dueSince(now, stats, relays)
	if due.IsZero() || now.Sub(due) < l.maxAge || quiet < l.maxAge {
		return nil
	}
	paused := 0
	for _, r := range relays {
		if r.Manual != nil {
			paused++
		}
	}
	if paused == len(relays) {
		return []alerts.Condition{{Kind: alerts.MailWaits, Unknown: true}} // somebody means it
	}
	n := stats.Statuses[queue.StatusQueued] + stats.Statuses[queue.StatusDeferred]
	return []alerts.Condition{{
		Kind: alerts.MailWaits, Severity: alerts.Critical,
		Found: fmt.Sprintf("Nothing has gone out for %s. %s, and the oldest has been due since %s.", units.Duration(quiet.Truncate(time.Minute)), messagesWait(n), due.UTC().Format("2006-01-02 15:04 MST")),
		Do:    "See what mailsidecar status says of the relays, and try them with mailsidecar check.",
	}}
}

func messagesWait(n int64) string {
	if n == 1 {
		return "One message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

// held says whether mail waits for a person.
func (l *lookout) held(ctx context.Context, stats queue.Stats) []alerts.Condition {
	suspects := l.suspects(ctx)
	var all []alerts.Condition
	if len(suspects) > 0 {
		all = append(all, alerts.Condition{
			Kind: alerts.CrashSuspect, Severity: alerts.Critical,
			Found: "The service crashed repeatedly with only this message in hand, which may be the cause: " + suspects[0] + moreOf(suspects) + ".",
			Do:    "Please report the crash with the log before it. mailsidecar queue show ID shows the message, queue export ID saves it, queue cancel ID gives it up.",
		})
	}
	n := stats.Statuses[queue.StatusHeld] - int64(len(suspects))
	held := alerts.Condition{Kind: alerts.MailHeld, Severity: alerts.Warning}
	switch {
	case stats.Counting: // the number may be wrong by a little
		held.Unknown = true
	case n < 1:
		return all
	case n == 1:
		held.Found = "One message is held: it may have been sent, or not, and a person has to decide."
	default:
		held.Found = fmt.Sprintf("%d messages are held: they may have been sent, or not, and a person has to decide.", n)
	}
	held.Do = "mailsidecar queue list --status held shows them; queue retry ID sends one again, queue cancel ID gives it up."
	return append(all, held)
}

// suspects are the messages that this run holds because of crashes, and that nobody has
// decided about.
func (l *lookout) suspects(ctx context.Context) (ids []string) {
	for _, id := range l.queue.Trouble().Blamed {
		if m, err := l.queue.Get(ctx, queue.AnyKey, id); err == nil && m.Status() == queue.StatusHeld {
			ids = append(ids, id)
		}
	}
	return ids
}

func moreOf(ids []string) string {
	if len(ids) == 1 {
		return ""
	}
	return fmt.Sprintf(" and %d more", len(ids)-1)
}

// bounces says whether many recipients were refused lately.
func bounces(now time.Time, stats queue.Stats) []alerts.Condition {
	var bounced, judged int64
	for _, b := range stats.Buckets {
		if now.Sub(b.At) < bounceTime+queue.BucketLength {
			bounced += b.Bounced
			judged += b.Bounced + b.Delivered
		}
	}
	if bounced <= leastBounces || bounced*100 <= judged*bounceShare {
		return nil
	}
	return []alerts.Condition{{
		Kind: alerts.ManyBounces, Severity: alerts.Warning,
		Found: fmt.Sprintf("%d of %d recipients were refused for good within about half an hour (%d %%).", bounced, judged, bounced*100/judged),
		Do:    "mailsidecar status shows the replies. Often a list of recipients is old, or the relay has blocked the sender: relays close accounts that go on.",
	}}
}

// certificateFile is a certificate of ours.
type certificateFile struct {
	setting string
	files   *certs.Files
}

// watchFile watches the end of a certificate. A file that cannot be read is the business of
// those who use it.
func (l *lookout) watchFile(setting, certFile, keyFile string) {
	if certFile == "" {
		return
	}
	if keyFile == "" {
		keyFile = certFile
	}
	if files, err := certs.OpenFiles(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		l.files = append(l.files, certificateFile{setting, files})
	}
}

func (f certificateFile) conditions(now time.Time) []alerts.Condition {
	pair, err := f.files.GetCertificate((*tls.ClientHelloInfo)(nil))
	if err != nil || pair.Leaf == nil {
		return nil
	}
	end := pair.Leaf.NotAfter
	left, life := end.Sub(now), end.Sub(pair.Leaf.NotBefore)
	if left > min(certificateWarning, life/3) {
		return nil
	}
	c := alerts.Condition{Kind: alerts.CredentialEnds, Subject: "the certificate of " + f.setting, Severity: alerts.Warning, Again: againBefore(left)}
	verb := "ends"
	if left <= 0 {
		c.Severity, verb = alerts.Critical, "ended"
	}
	c.Found = fmt.Sprintf("The certificate that %s names %s on %s.", f.setting, verb, end.UTC().Format("2006-01-02 15:04 MST"))
	c.Do = "Put a new one into that file: it is read when it changes, without a restart."
	return []alerts.Condition{c}
}

// outgoing knows what went out. Nil knows nothing.
type outgoing struct {
	mu    sync.Mutex
	last  time.Time   // when a relay last accepted something; zero: not in this run
	took  []time.Time // by relay: when it last accepted something
	first []bool      // by relay: whether the first rung has served
	tried []time.Time // by relay: when the last attempt ended
}

func newOutgoing(relays int) *outgoing {
	return &outgoing{took: make([]time.Time, relays), first: make([]bool, relays), tried: make([]time.Time, relays)}
}

func (m *relayMonitor) noteOutgoing(i int, a mailer.Attempt) {
	o, delivered := m.out, false
	if o == nil {
		return
	}
	for _, r := range a.Results {
		delivered = delivered || r.Failure == nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tried[i] = time.Now()
	if delivered {
		o.last, o.took[i] = o.tried[i], o.tried[i]
	}
	o.first[i] = o.first[i] || a.Rung == ladder(m.configs[i])[0]
}

func (o *outgoing) lastDelivery() time.Time {
	if o == nil {
		return time.Time{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// lastDeliveryOf is when the relay last accepted something; zero: not in this run.
func (o *outgoing) lastDeliveryOf(i int) time.Time {
	if o == nil {
		return time.Time{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.took[i]
}

// lastAttempt is when the last attempt at the relay ended; zero: there was none in this run.
func (o *outgoing) lastAttempt(i int) time.Time {
	if o == nil {
		return time.Time{}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tried[i]
}

func (o *outgoing) firstServed(i int) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first[i]
}

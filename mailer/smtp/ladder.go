package smtp

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
)

const (
	// raceDelay is how long after one rung the next one starts.
	raceDelay = 300 * time.Millisecond
	// knownHeadStart takes the place of raceDelay after a rung that served before,
	// once it has a TCP connection. Over a long distance a handshake takes longer
	// than raceDelay, and the other rungs would be tried for nothing each time.
	knownHeadStart = time.Second
	// probeInterval is the time between two tries of the preferred rungs while
	// another one serves.
	probeInterval = time.Minute
)

// ladder remembers which rung serves.
type ladder struct {
	mu      sync.Mutex
	known   int // index of the rung that served last; -1 when none is known
	probing bool
}

func (l *ladder) current() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// set remembers which rung serves. It returns the one that was known before, and
// whether the caller must start the probes of the preferred rungs.
func (l *ladder) set(known int) (before int, probe bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.known = l.known, known
	probe = known > 0 && !l.probing
	l.probing = l.probing || probe
	return before, probe
}

// preferred returns the number of rungs that are preferred to the one that serves.
// Zero ends the probes.
func (l *ladder) preferred() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known <= 0 {
		l.probing = false
	}
	return max(l.known, 0)
}

// entrant is a rung in the race.
type entrant struct {
	rung     int
	conn     *conn
	failure  *mailer.Failure
	duration time.Duration
}

// race is one race of the rungs.
type race struct {
	relay   *Relay
	opening *opening // records how far a rung has come
	order   []int    // the rungs by index, in order of start
	known   int      // the rung that served before, -1 when none
	started int
	running int
	waited  bool // knownHeadStart was given
	results chan entrant
	reports []*mailer.RungReport // by index; nil for a rung that has not started
	begin   time.Time
}

// race opens the rungs one after the other, each raceDelay after the one before it
// or as soon as that has failed, and returns the first that gets as far as EHLO over
// TLS, without a login. The others are closed. When all fail, the failure is that of
// the rung that got furthest.
func (r *Relay) race(ctx context.Context, o *opening) (*conn, []mailer.RungReport, *mailer.Failure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	known := r.ladder.current()
	n := len(r.opts.Ladder)
	x := race{
		relay: r, opening: o, order: raceOrder(n, known), known: known, begin: time.Now(),
		results: make(chan entrant, n), reports: make([]*mailer.RungReport, n),
	}
	first := x.start(ctx)
	next := time.NewTimer(raceDelay)
	defer next.Stop()
	for x.running > 0 {
		select {
		case e := <-x.results:
			if x.finish(e); e.failure == nil {
				cancel()
				x.closeLosers()
				r.won(e.rung)
				return e.conn, x.list(), nil
			}
		case <-next.C:
			if x.wait(first) {
				next.Reset(knownHeadStart - raceDelay)
				continue
			}
		}
		if x.started < n && ctx.Err() == nil {
			x.start(ctx)
			next.Reset(raceDelay)
		}
	}
	f := x.furthest()
	if ctx.Err() == nil && f.Reply.Code != 421 { // a rung that says 421 serves others
		r.ladder.set(-1)
	}
	return nil, x.list(), f
}

func (x *race) start(ctx context.Context) *conn {
	i := x.order[x.started]
	c := x.relay.newConn(x.relay.opts.Ladder[i])
	c.opening = x.opening
	x.reports[i] = &mailer.RungReport{Rung: c.rung}
	x.started++
	x.running++
	x.relay.background(func(context.Context) {
		begin := time.Now()
		f := c.open(ctx)
		x.relay.countOpened(ctx, c.rung, f)
		x.results <- entrant{rung: i, conn: c, failure: f, duration: time.Since(begin)}
	})
	return c
}

// wait reports, once, that the first rung gets knownHeadStart.
func (x *race) wait(first *conn) bool {
	if x.known < 0 || x.waited || x.started > 1 {
		return false
	}
	select {
	case <-first.up:
		x.waited = true
		return true
	default:
		return false
	}
}

func (x *race) finish(e entrant) {
	x.running--
	report := x.reports[e.rung]
	report.Duration, report.Failure, report.Won = e.duration, e.failure, e.failure == nil
}

// closeLosers waits in the background for the rungs that still run, and closes those
// that succeed.
func (x *race) closeLosers() {
	running := x.running
	if running == 0 {
		return
	}
	x.relay.background(func(context.Context) {
		for range running {
			if e := <-x.results; e.failure == nil {
				e.conn.close()
			}
		}
	})
}

// list returns the reports of the rungs that took part, in the ladder's order; none
// when the known rung served without a race.
func (x *race) list() []mailer.RungReport {
	var list []mailer.RungReport
	for _, report := range x.reports {
		if report == nil {
			continue
		}
		if report.Failure == nil && !report.Won {
			report.Duration = time.Since(x.begin) // cut short
		}
		list = append(list, *report)
	}
	if len(list) == 1 && list[0].Won && x.known >= 0 {
		return nil
	}
	return list
}

// furthest returns the failure of the rung that got furthest.
func (x *race) furthest() *mailer.Failure {
	var worst *mailer.Failure
	for _, report := range x.reports {
		if report != nil && report.Failure != nil && (worst == nil || report.Failure.Stage > worst.Stage) {
			worst = report.Failure
		}
	}
	if worst == nil || worst.Stage != mailer.StageConnect || ProblemOf(worst).OfName() {
		return worst
	}
	return x.unreached(*worst)
}

// unreached returns f with the text of every port, where several were tried and none
// was reached.
func (x *race) unreached(f mailer.Failure) *mailer.Failure {
	var ports []string
	for _, report := range x.reports {
		if report != nil && report.Failure != nil {
			ports = append(ports, fmt.Sprintf("%d %s", report.Rung.Port, report.Failure.Text))
		}
	}
	if len(ports) > 1 {
		f.Text = "no port answered: " + strings.Join(ports, ", ")
	}
	return &f
}

// raceOrder returns the ladder's order, but with the known rung first.
func raceOrder(n, known int) []int {
	order := make([]int, 0, n)
	if known >= 0 {
		order = append(order, known)
	}
	for i := range n {
		if i != known {
			order = append(order, i)
		}
	}
	return order
}

// won remembers the winner, and starts the probes when it is a fallback.
func (r *Relay) won(i int) {
	before, probe := r.ladder.set(i)
	if before != i {
		r.logRung(r.opts.Ladder[i])
	}
	if probe {
		r.background(r.probe)
	}
}

// probe tries the rungs that are preferred to the one that serves, until the first
// rung serves or none does. It never logs in, and no mail waits for it.
func (r *Relay) probe(ctx context.Context) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		preferred := r.ladder.preferred()
		if preferred == 0 {
			return
		}
		for i := range preferred {
			c := r.newConn(r.opts.Ladder[i])
			f := c.open(ctx)
			if r.countOpened(ctx, c.rung, f); f == nil {
				c.quit()
				r.won(i)
				break
			}
		}
	}
}

func (r *Relay) logRung(rung mailer.Rung) {
	r.opts.Logger.Info("rung serves", "relay", r.opts.Name, "rung", rung.String())
}

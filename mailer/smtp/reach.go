package smtp

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// addressDelay is how long after one address of a family the next one is tried
// (RFC 8305 §5).
const addressDelay = 250 * time.Millisecond

// reach connects to the addresses of a relay, IPv4 and IPv6 apart.
type reach struct {
	relay    *Relay
	families []family // one or two, the preferred one first
}

// family is the addresses of one kind.
type family struct {
	name      string // "IPv4" or "IPv6"
	addresses []string
}

// newReach parts the addresses, which are in order of preference.
func newReach(r *Relay, addresses []string) *reach {
	x := &reach{relay: r}
	for _, address := range addresses {
		name, i := familyOf(address), 0
		for ; i < len(x.families) && x.families[i].name != name; i++ {
		}
		if i == len(x.families) {
			x.families = append(x.families, family{name: name})
		}
		x.families[i].addresses = append(x.families[i].addresses, address)
	}
	return x
}

// The names of families.
const (
	ipv4 = "IPv4"
	ipv6 = "IPv6"
)

func familyOf(address string) string {
	if ip, err := netip.ParseAddr(address); err == nil && !ip.Unmap().Is4() {
		return ipv6
	}
	return ipv4
}

// attempt is the connection to one port, over both families at the same time.
type attempt struct {
	reach  *reach
	ctx    context.Context // of the check: one family goes on when the other has connected
	checks []FamilyCheck   // by family; complete after wait
	all    sync.WaitGroup
}

// dialed is the end of a dial.
type dialed struct {
	conn net.Conn
	err  error
}

// dial returns the first connection. The other family goes on until wait, and its
// connection is closed. Where there is none, the error is the one that says most.
func (a *attempt) dial(_ context.Context, port int) (net.Conn, error) {
	families := a.reach.families
	a.checks = make([]FamilyCheck, len(families))
	results := make(chan dialed, len(families))
	for i, f := range families {
		a.all.Go(func() {
			ctx, cancel := context.WithTimeout(a.ctx, a.reach.relay.opts.Timeouts.Connect)
			defer cancel()
			conn, err := a.dialFamily(ctx, f, port)
			a.checks[i] = familyCheck(f.name, err)
			results <- dialed{conn, err}
		})
	}
	return a.first(results, len(families))
}

// first returns the first connection of so many results, and closes the later ones.
func (a *attempt) first(results <-chan dialed, n int) (net.Conn, error) {
	var worst error
	for left := n - 1; left >= 0; left-- {
		d := <-results
		if d.err == nil {
			a.all.Go(func() {
				for range left {
					if late := <-results; late.conn != nil {
						late.conn.Close()
					}
				}
			})
			return d.conn, nil
		}
		if worst == nil || rank(d.err) > rank(worst) {
			worst = d.err
		}
	}
	return nil, worst
}

// maxAddresses is how many addresses of a family are tried.
const maxAddresses = 4

// dialFamily tries the addresses of a family one after the other, each addressDelay
// after the one before it.
func (a *attempt) dialFamily(ctx context.Context, f family, port int) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addresses := f.addresses[:min(len(f.addresses), maxAddresses)]
	results := make(chan dialed, len(addresses))
	for i, address := range addresses {
		a.all.Go(func() {
			if !sleep(ctx, time.Duration(i)*addressDelay) {
				results <- dialed{err: ctx.Err()}
				return
			}
			conn, err := a.reach.dialAddress(ctx, address, port)
			results <- dialed{conn, err}
		})
	}
	return a.first(results, len(addresses))
}

// sleep reports whether ctx lasted for d.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (x *reach) dialAddress(ctx context.Context, address string, port int) (net.Conn, error) {
	at := net.JoinHostPort(address, strconv.Itoa(port))
	conn, err := x.relay.opts.Dial(ctx, "tcp", at)
	if err == nil {
		return conn, nil
	}
	// Over IPv6 "administratively prohibited" is EACCES, too.
	switch p := dialCause(err).problem; {
	case p == ProblemRejected, p == ProblemUnreachable, p == ProblemBarred && familyOf(address) == ipv6 && x.hasRoute(ctx, at):
	default:
		return nil, err
	}
	if x.hasRoute(ctx, at) {
		return nil, &cause{ProblemRejected, "a router or firewall on the way rejects the connection, or the host is down", err}
	}
	return nil, &cause{ProblemUnreachable, "this machine has no route to the relay", err}
}

// hasRoute reports whether this machine knows a way to the address: a socket of UDP
// connects without a packet.
func (x *reach) hasRoute(ctx context.Context, at string) bool {
	conn, err := x.relay.opts.Dial(ctx, "udp", at)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// wait returns what became of each family once all have ended; nothing where there is
// only one.
func (a *attempt) wait() []FamilyCheck {
	a.all.Wait()
	if len(a.checks) < 2 {
		return nil
	}
	return a.checks
}

func familyCheck(name string, err error) FamilyCheck {
	if err == nil {
		return FamilyCheck{Family: name, TCP: tcpOpen}
	}
	problem := dialCause(err).problem
	return FamilyCheck{Family: name, TCP: tcpState(problem), Problem: problem}
}

// rank orders the errors of dials: the higher one says more of the relay, the lower
// one of this machine.
func rank(err error) int {
	switch dialCause(err).problem {
	case ProblemRefused:
		return 4
	case ProblemRejected:
		return 3
	case ProblemNoAnswer:
		return 2
	case ProblemBarred:
		return 1
	default:
		return 0
	}
}

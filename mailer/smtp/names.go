package smtp

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// Names is the DNS of a machine, as [Relay.Check] uses it.
type Names struct {
	// Lookup returns the IP addresses of a host, as [net.Resolver.LookupHost] does.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Servers returns the addresses of the name servers, at most three, each with its
	// port; none where they are not known.
	Servers func() []string
	// LookupAt asks one of them alone.
	LookupAt func(ctx context.Context, server, host string) ([]string, error)
}

// systemNames is the DNS of this machine.
var systemNames = Names{Lookup: net.DefaultResolver.LookupHost, Servers: systemServers, LookupAt: lookupAt}

// resolverFile names the name servers, see resolv.conf(5), which is also where the limit
// of three comes from.
const (
	resolverFile = "/etc/resolv.conf"
	maxServers   = 3
)

func systemServers() []string {
	text, err := os.ReadFile(resolverFile)
	if err != nil {
		return nil
	}
	return parseServers(string(text))
}

func parseServers(text string) []string {
	var servers []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "nameserver" && len(servers) < maxServers {
			servers = append(servers, net.JoinHostPort(fields[1], "53"))
		}
	}
	return servers
}

func lookupAt(ctx context.Context, server, host string) ([]string, error) {
	one := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server)
	}}
	return one.LookupHost(ctx, host)
}

// resolve returns the host's IP addresses. Without any it also returns which name
// servers were asked.
func (r *Relay) resolve(ctx context.Context) ([]string, []NameServer, *mailer.Failure) {
	if net.ParseIP(r.opts.Host) != nil {
		return []string{r.opts.Host}, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeouts.Connect)
	defer cancel()
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	begin, survey := time.Now(), r.surveyLater(asking)
	addresses, err := r.opts.Names.Lookup(ctx, r.opts.Host)
	if err == nil || time.Since(begin) < r.surveyDelay() {
		stopAsking()
	}
	servers := <-survey
	if err == nil {
		return addresses, nil, nil
	}
	why := dialCause(err)
	if why.problem == ProblemNoAnswer || why.problem == ProblemUnreachable { // without the type of an error of DNS
		why = nameCause(&net.DNSError{IsTimeout: isTimeout(err)}, err)
	}
	f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageConnect, Relay: r.opts.Name, Text: why.text, Err: why}
	if why.problem == ProblemName {
		return nil, nil, f
	}
	return nil, r.asked(err, servers), f
}

// surveyDelay is how long a look-up may take before the name servers are asked one by
// one.
func (r *Relay) surveyDelay() time.Duration { return r.opts.Timeouts.Connect / 2 }

// surveyLater asks every name server on its own after surveyDelay, and returns which of
// them answer. There is no survey where ctx ends before.
func (r *Relay) surveyLater(ctx context.Context) <-chan []NameServer {
	result := make(chan []NameServer, 1)
	r.background(func(context.Context) {
		select {
		case <-ctx.Done():
			result <- nil
		case <-time.After(r.surveyDelay()):
			result <- r.survey(ctx)
		}
	})
	return result
}

func (r *Relay) survey(ctx context.Context) []NameServer {
	servers := r.opts.Names.Servers()
	checks := make([]NameServer, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		checks[i].Address = withoutPort53(server)
		all.Go(func() {
			_, err := r.opts.Names.LookupAt(ctx, server, r.opts.Host)
			dns, ok := errors.AsType[*net.DNSError](err)
			checks[i].Answers = err == nil || ok && dns.IsNotFound
		})
	}
	all.Wait()
	return checks
}

// asked returns the name servers that were asked: those of the survey, or else that
// which the error names, or else all that there are.
func (r *Relay) asked(err error, survey []NameServer) []NameServer {
	if len(survey) > 0 {
		return survey
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.Server != "" {
		return []NameServer{{Address: withoutPort53(dns.Server)}}
	}
	var all []NameServer
	for _, server := range r.opts.Names.Servers() {
		all = append(all, NameServer{Address: withoutPort53(server)})
	}
	return all
}

func withoutPort53(server string) string {
	host, port, err := net.SplitHostPort(server)
	if err != nil || port != "53" {
		return server
	}
	return host
}

package diagnosis

import (
	"fmt"
	"slices"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
	"mailsidecar/relays"
)

// OfReport says what a check found wrong with a relay and what to do. Where no mail can
// go, the first advice is the cause, concluded from all rungs, and the only one with a
// remedy; what follows says what else was found. No advice means that every rung works.
func OfReport(r smtp.Report, s Settings) []Advice {
	var all []Advice
	switch groups := findings(r, s); {
	case r.OK && servingRung(r) >= 0:
		all = remarks(r, groups, s)
	case len(groups) > 0:
		all = conclude(r, groups)
	default:
		all = []Advice{{Found: "the check ended before a login could be tried.", Do: "Give it more time (--timeout)."}}
	}
	for i := range all {
		all[i].Relay = r.Name
		all[i].expand(r.Host, s)
	}
	return all
}

// findings groups the rungs that stopped by their reason.
func findings(r smtp.Report, s Settings) []finding {
	preset, known := relays.PresetFor(r.Host)
	base := finding{report: r, preset: preset, known: known, settings: s}
	if r.Failure != nil { // there are no rungs
		base.rungs = []smtp.RungCheck{{Failure: r.Failure}}
		return []finding{base}
	}
	var all []finding
	for _, rung := range r.Rungs {
		if rung.Failure == nil {
			continue
		}
		i := slices.IndexFunc(all, func(f finding) bool { return f.alike(rung) })
		if i < 0 {
			all = append(all, base)
			i = len(all) - 1
		}
		all[i].rungs, all[i].ports = append(all[i].rungs, rung), append(all[i].ports, rung.Port)
	}
	return all
}

// alike reports whether the rung stopped for the same reason: then one sentence is true
// of both.
func (f finding) alike(rung smtp.RungCheck) bool {
	one := finding{rungs: []smtp.RungCheck{rung}}
	if f.problem() != one.problem() || f.rungs[0].Mode != rung.Mode && f.problem() == smtp.ProblemTLSMode {
		return false
	}
	if p := f.problem(); p == smtp.ProblemSilent || p == smtp.ProblemDropped {
		return f.stage() == one.stage() && f.afterTLS() == one.afterTLS()
	}
	return true
}

// conclude says why no mail can go. The rung that came furthest shows what stands in the
// way: all that the others met was overcome there.
func conclude(r smtp.Report, groups []finding) []Advice {
	cause := slices.MaxFunc(groups, func(a, b finding) int { return a.progress() - b.progress() })
	var first Advice
	rest := slices.DeleteFunc(slices.Clone(groups), func(g finding) bool { return &g.rungs[0] == &cause.rungs[0] })
	if cause.stage() == mailer.StageConnect && r.Failure == nil && cause.problem() != smtp.ProblemCleartext {
		first, rest = cause.unreached(groups), nil
	} else {
		first = cause.advice()
	}
	if do := serveOthers(r); do != "" {
		first.Do = do
	}
	all := []Advice{first}
	for _, g := range rest {
		a := g.advice()
		a.Do = ""
		all = append(all, a)
	}
	return all
}

// progress orders findings by how much they say: by how far the rung came, and a clear
// refusal before a connection that broke.
func (f finding) progress() int {
	n := 4 * int(f.stage())
	switch {
	case f.stage() == mailer.StageConnect && f.problem() == smtp.ProblemRefused:
		n++
	case f.failure().Code != 0:
		n += 3
	case f.problem() != smtp.ProblemSilent && f.problem() != smtp.ProblemDropped:
		n += 2
	}
	return n
}

// remarks say what was found beside a relay that can take mail.
func remarks(r smtp.Report, groups []finding, s Settings) []Advice {
	var all []Advice
	serving := r.Rungs[servingRung(r)]
	for _, g := range groups {
		a := g.advice()
		a.Do = fmt.Sprintf("Nothing has to be done: port %d serves.", serving.Port)
		if slices.Contains(g.ports, r.Rungs[0].Port) {
			a.Do += fmt.Sprintf(" If that is to stay so, SMTP_PORTS=%s saves trying others.", portSetting(serving))
		}
		all = append(all, a)
	}
	if found, ok := brokenFamily(serving); ok {
		all = append(all, Advice{Ports: []int{serving.Port}, Found: found, Do: "Nothing has to be done, but each new connection may take 0.3 seconds longer."})
	}
	if serving.TLS != nil && serving.TLS.DaysLeft < 14 {
		all = append(all, Advice{
			Ports: []int{serving.Port},
			Found: fmt.Sprintf("the relay's certificate runs out in %d days.", serving.TLS.DaysLeft),
			Do:    "Tell the relay's operator. Mail waits once it has run out.",
		})
	}
	if len(serving.Mechanisms) > 0 && !loggedIn(serving) && !s.NoLogin {
		all = append(all, Advice{
			Found: "no login was tried, for SMTP_USERNAME is not set, though the relay offers one.",
			Do:    "Most relays refuse mail without a login: set SMTP_USERNAME and SMTP_PASSWORD.",
		})
	}
	return all
}

// servingRung returns the rung on which mail goes: the one that took the login, or
// else the first without a failure. It is -1 where there is none.
func servingRung(r smtp.Report) int {
	if i := slices.IndexFunc(r.Rungs, loggedIn); i >= 0 {
		return i
	}
	return slices.IndexFunc(r.Rungs, usable)
}

// ServingPort returns the port on which mail goes to a relay that is OK; zero where no
// rung serves.
func ServingPort(r smtp.Report) int {
	if i := servingRung(r); i >= 0 {
		return r.Rungs[i].Port
	}
	return 0
}

func isOpen(r smtp.RungCheck) bool      { return r.TCP == "open" }
func usable(r smtp.RungCheck) bool      { return r.Failure == nil }
func loggedIn(r smtp.RungCheck) bool    { return r.Auth == "accepted" }
func loginPaused(r smtp.RungCheck) bool { return r.Auth == "paused" }

func portSetting(r smtp.RungCheck) string {
	if implicit := r.Mode == "tls"; implicit != relays.ImplicitTLS(r.Port) {
		return fmt.Sprintf("%d/%s", r.Port, r.Mode)
	}
	return fmt.Sprint(r.Port)
}

// Conclusion says in a sentence whether mail can go to the relay, and on which port.
func Conclusion(r smtp.Report) string {
	if !r.OK || servingRung(r) < 0 {
		return fmt.Sprintf("Result: no mail can go to %s as things are.", r.Host)
	}
	serving := r.Rungs[servingRung(r)]
	switch {
	case r.Sender != "":
		return fmt.Sprintf("Result: mail can go to %s on port %d, from the sender %s.", r.Host, serving.Port, r.Sender)
	case loggedIn(serving):
		return fmt.Sprintf("Result: %s takes the login on port %d. No sender was tried: --from names one, or MAILSIDECAR_FROM.", r.Host, serving.Port)
	default:
		return fmt.Sprintf("Result: %s answers on port %d as it should. No sender was tried: --from names one, or MAILSIDECAR_FROM.", r.Host, serving.Port)
	}
}

package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"mailsidecar/api"
	"mailsidecar/diagnosis"
	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
)

// printReport prints what a check found: a table of the rungs, how OAuth2 fares, then
// the advice in plain words.
func printReport(w io.Writer, c checked) {
	fmt.Fprintln(w, heading(c.Report))
	if len(c.Rungs) > 0 {
		fmt.Fprintln(w)
		printRungs(w, append(slices.Clone(c.Rungs), servingOthers(c.Report)...))
	}
	if o := c.OAuth2; o != nil && (o.Error != "" || !o.TokenExpires.IsZero()) {
		fmt.Fprintf(w, "\n%s\n", wrap(oauth2Line(*c.OAuth2), ""))
	}
	for _, a := range c.Advice {
		fmt.Fprintln(w)
		printAdvice(w, a)
	}
	fmt.Fprintf(w, "\n%s\n", wrap(diagnosis.Conclusion(c.Report), ""))
}

// oauth2Line says whose the token is, and what ends when.
func oauth2Line(o api.OAuth2) string {
	parts := []string{"there is no token"}
	if !o.TokenExpires.IsZero() {
		parts[0] = "there is a token"
	}
	if o.Account != "" {
		parts = append(parts, "logged in as "+o.Account)
	}
	for _, end := range []struct {
		what string
		at   time.Time
	}{{"the login ends", o.LoginExpires}, {"the client secret ends", o.SecretExpires}, {"the certificate ends", o.CertificateExpires}} {
		if !end.at.IsZero() {
			parts = append(parts, end.what+" on "+end.at.Format(time.DateOnly))
		}
	}
	return "OAuth2: " + strings.Join(parts, "; ") + "."
}

func heading(r smtp.Report) string {
	name := r.Host
	if r.Name != r.Host && r.Name != "" {
		name = fmt.Sprintf("%s, %s", r.Name, r.Host)
	}
	if len(r.Addresses) == 0 || (len(r.Addresses) == 1 && r.Addresses[0] == r.Host) {
		return "Relay " + name
	}
	return fmt.Sprintf("Relay %s (%s; DNS %s)", name, strings.Join(r.Addresses, ", "), millis(r.DNSMillis))
}

// servingOthers are the ports outside the ladder that answer as they should.
func servingOthers(r smtp.Report) []smtp.RungCheck {
	return slices.DeleteFunc(slices.Clone(r.Others), func(o smtp.RungCheck) bool { return o.Failure != nil })
}

func printRungs(w io.Writer, rungs []smtp.RungCheck) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PORT\tMODE\tTCP\tTLS\tCERTIFICATE\tAUTH\tTIME")
	for _, r := range rungs {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Port, modeNames[r.Mode],
			strings.ReplaceAll(r.TCP, "_", " "), tlsCell(r), certificateCell(r), authCell(r), millis(r.Millis))
	}
	flush(t)
}

var modeNames = map[string]string{"starttls": "STARTTLS", "tls": "implicit TLS", "none": "clear text"}

func tlsCell(r smtp.RungCheck) string {
	switch {
	case r.Failure != nil && (r.Failure.Stage == mailer.StageStartTLS.String() || r.Failure.Stage == mailer.StageTLS.String()):
		return "failed"
	case r.TLS == nil:
		return "-"
	default:
		return cmp.Or(r.TLS.Version, "-")
	}
}

func certificateCell(r smtp.RungCheck) string {
	switch {
	case r.TLS == nil || r.TLS.NotAfter.IsZero():
		return "-"
	case r.TLS.DaysLeft < 0:
		return fmt.Sprintf("expired %d days ago", -r.TLS.DaysLeft)
	default:
		return fmt.Sprintf("%d days left", r.TLS.DaysLeft)
	}
}

func authCell(r smtp.RungCheck) string {
	if r.Auth == "not_tried" || r.Auth == "" {
		return "-"
	}
	return strings.TrimSpace(r.Mechanism + " " + r.Auth)
}

func millis(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < time.Second {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func printAdvice(w io.Writer, a diagnosis.Advice) {
	found := a.Found
	switch {
	case found == "":
	case len(a.Ports) == 0:
		found = strings.ToUpper(found[:1]) + found[1:]
	case len(a.Ports) == 1:
		found = fmt.Sprintf("Port %d: %s", a.Ports[0], found)
	default:
		found = fmt.Sprintf("Ports %s: %s", joinPorts(a.Ports), found)
	}
	fmt.Fprintln(w, wrap(found, ""))
	if a.Do != "" {
		fmt.Fprintln(w, wrap("-> "+a.Do, "   "))
	}
}

// joinPorts lists two ports or more, as a sentence does.
func joinPorts(ports []int) string {
	list := make([]string, len(ports))
	for i, p := range ports {
		list[i] = strconv.Itoa(p)
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " and " + list[last]
}

// wrap breaks text at blanks into lines of up to 80 characters where that is possible;
// further lines begin with indent.
func wrap(text, indent string) string {
	const width = 80
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case i == 0:
			column = n
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent) + n
		default:
			b.WriteByte(' ')
			column += 1 + n
		}
		b.WriteString(word)
	}
	return b.String()
}

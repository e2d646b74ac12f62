package diagnosis

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp"
)

func TestOfReport(t *testing.T) {
	good := smtp.RungCheck{
		Port: 2525, Mode: "starttls", TCP: "open", Auth: "accepted", Mechanisms: []string{"PLAIN"},
		TLS: &smtp.TLSCheck{Version: "TLS 1.3", DaysLeft: 60},
	}
	for _, c := range []struct {
		name   string
		host   string
		number int          // of the relay
		dns    smtp.Problem // set: the name does not resolve
		rungs  []smtp.RungCheck
		want   []string // in the text, in this order
		no     []string // not in the text
	}{
		{name: "all good", rungs: []smtp.RungCheck{good}},
		{
			name: "name", dns: smtp.ProblemName, host: "smtp.exmaple.com",
			want: []string{"DNS has no address for smtp.exmaple.com", "spelling of SMTP_HOST"},
		},
		{
			name:  "first blocked, second good",
			rungs: []smtp.RungCheck{stopped(587, smtp.ProblemNoAnswer), good},
			want:  []string{"[587] no answer", "Nothing has to be done: port 2525 serves", "SMTP_PORTS=2525 saves"},
			no:    []string{"on another machine", "Waiting longer"},
		},
		{
			name:  "implicit TLS serves",
			rungs: []smtp.RungCheck{stopped(587, smtp.ProblemRefused), {Port: 4465, Mode: "tls", TCP: "open", Auth: "accepted"}},
			want:  []string{"[587] the connection was refused", "SMTP_PORTS=4465/tls saves"},
		},
		{
			name:  "first has a wrong certificate, second good",
			rungs: []smtp.RungCheck{stopped(587, smtp.ProblemWrongName), good},
			want:  []string{"[587] the relay's certificate is for another name", "port 2525 serves"},
			no:    []string{"set SMTP_HOST"},
		},
		{
			name: "all blocked", host: "mail.example.com",
			rungs: []smtp.RungCheck{stopped(587, smtp.ProblemNoAnswer), stopped(2525, smtp.ProblemNoAnswer)},
			want:  []string{"[587 2525] no answer", "Ask the hosting provider", "on another machine", "443"},
			no:    []string{"were tried, too"},
		},
		{
			name:  "one refused and one silent: the one that came further counts",
			rungs: []smtp.RungCheck{stopped(587, smtp.ProblemRefused), stopped(2525, smtp.ProblemSilent)},
			want:  []string{"[2525] connected, but", "[587] the connection was refused"},
			no:    []string{"on another machine"},
		},
		{
			name: "refused on loopback", host: "localhost",
			rungs: []smtp.RungCheck{stopped(1025, smtp.ProblemRefused)},
			want:  []string{"refused", "localhost is the container itself"},
		},
		{
			name: "refused on loopback beside a port that answers", host: "localhost",
			rungs: []smtp.RungCheck{stopped(1025, smtp.ProblemRefused), stopped(2525, smtp.ProblemNoMechanism)},
			want:  []string{"[2525] the relay offers no login", "[1025] the connection was refused"},
			no:    []string{"Start the relay"},
		},
		{
			name: "login after STARTTLS only",
			rungs: []smtp.RungCheck{{
				Port: 25, Mode: "none", TCP: "open", Capabilities: []string{"SIZE 1000", "STARTTLS"},
				Failure: &smtp.CheckFailure{Problem: smtp.ProblemNoMechanism},
			}},
			want: []string{"[25] the relay offers no login in the clear", "Remove SMTP_TLS=none."},
			no:   []string{"OAuth2"},
		},
		{
			name: "wrong password, not tried again",
			rungs: []smtp.RungCheck{{
				Port: 587, TCP: "open", Auth: "paused", NextLogin: time.Date(2030, 1, 31, 9, 0, 0, 0, time.UTC),
				Failure: &smtp.CheckFailure{Stage: "auth", Problem: smtp.ProblemCredentials, Code: 535, Text: "no"},
			}},
			want: []string{"refused the user name or the password", "The relay said: 535 no", "the next one is tried after 09:00:00 UTC"},
		},
		{
			name: "wrong password, second relay", number: 2,
			rungs: []smtp.RungCheck{replied(587, smtp.ProblemCredentials, 535, "5.7.8", "Authentication failed")},
			want:  []string{"[587] the relay refused the user name", "535 5.7.8 Authentication failed", "SMTP2_USERNAME and SMTP2_PASSWORD"},
		},
		{
			name: "wrong password, Gmail", host: "smtp.gmail.com",
			rungs: []smtp.RungCheck{replied(587, smtp.ProblemCredentials, 535, "5.7.8", "Username and Password not accepted")},
			want:  []string{"refused the user name", "Note: Gmail takes an app password"},
		},
		{
			name: "app password", host: "smtp.gmail.com",
			rungs: []smtp.RungCheck{replied(587, smtp.ProblemAppPassword, 534, "5.7.9", "Application-specific password required")},
			want:  []string{"two-step verification", "534 5.7.9"},
		},
		{
			name: "OAuth2", host: "smtp.office365.com",
			rungs: []smtp.RungCheck{replied(587, smtp.ProblemOAuth2, 535, "5.7.139", "Authentication unsuccessful")},
			want:  []string{"no longer takes passwords", "535 5.7.139", "SMTP_OAUTH2_", "SMTP AUTH is enabled", "so use OAuth2"},
		},
		{
			name: "SparkPost keeps its user name", host: "smtp.sparkpostmail.com", number: 3,
			rungs: []smtp.RungCheck{replied(587, smtp.ProblemCredentials, 535, "5.7.8", "no")},
			want:  []string{"SMTP3_USERNAME", "the word SMTP_Injection"},
		},
		{
			name:  "STARTTLS spoken to implicit TLS",
			rungs: []smtp.RungCheck{stopped(8465, smtp.ProblemTLSMode)},
			want:  []string{"TLS mode is the wrong one", "SMTP_PORTS=8465/tls."},
		},
		{
			name:  "implicit TLS spoken to STARTTLS",
			rungs: []smtp.RungCheck{{Port: 587, Mode: "tls", TCP: "open", Failure: &smtp.CheckFailure{Stage: "tls", Problem: smtp.ProblemTLSMode}}},
			want:  []string{"SMTP_PORTS=587/starttls."},
		},
		{
			name: "expired", rungs: []smtp.RungCheck{dated(smtp.ProblemExpired, -3)},
			want: []string{"expired on 1 May 2026", "clock first (date -u)"},
		},
		{
			name: "not valid yet", rungs: []smtp.RungCheck{dated(smtp.ProblemNotYetValid, 90)},
			want: []string{"not valid yet", "clock is behind"},
		},
		{
			name: "runs out soon", rungs: []smtp.RungCheck{{Port: 587, TCP: "open", Auth: "accepted", TLS: &smtp.TLSCheck{DaysLeft: 5}}},
			want: []string{"[587] the relay's certificate runs out in 5 days"},
		},
		{
			name: "no login", rungs: []smtp.RungCheck{{Port: 587, TCP: "open", Auth: "not_tried", Mechanisms: []string{"PLAIN"}}},
			want: []string{"SMTP_USERNAME is not set"},
		},
		{
			name: "a login that was refused on the other port",
			rungs: []smtp.RungCheck{
				{Port: 587, TCP: "open", Auth: "refused", Mechanism: "PLAIN", Failure: &smtp.CheckFailure{Stage: "auth", Problem: smtp.ProblemCredentials, Code: 535, Text: "no"}},
				{Port: 2525, TCP: "open", Auth: "not_tried", Mechanisms: []string{"PLAIN"}},
			},
			want: []string{"[587] the relay refused the user name"},
			no:   []string{"is not set"},
		},
		{
			name: "no token, on the other port", rungs: []smtp.RungCheck{
				{Port: 587, TCP: "open", Auth: "not_tried", Failure: &smtp.CheckFailure{Stage: "auth", Problem: smtp.ProblemToken, Text: "no"}},
				{Port: 2525, TCP: "open", Auth: "not_tried", Mechanisms: []string{"XOAUTH2"}},
			},
			want: []string{"[587] the OAuth2 access token could not be fetched"},
			no:   []string{"is not set"},
		},
		{
			name: "silent in the login", rungs: []smtp.RungCheck{{Port: 587, TCP: "open", Failure: &smtp.CheckFailure{Stage: "auth", Problem: smtp.ProblemSilent}}},
			want: []string{"broke off the login"}, no: []string{"/tls"},
		},
		{name: "a relay that wants no login", rungs: []smtp.RungCheck{{Port: 587, TCP: "open", Auth: "not_tried"}}},
		{
			name: "another problem", rungs: []smtp.RungCheck{replied(587, smtp.ProblemOther, 554, "", "go away")},
			want: []string{"turned us away", "554 go away"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report1(c.host, c.dns, c.rungs)
			got := flatten(OfReport(r, Settings{Number: c.number}))
			rest := got
			for _, want := range c.want {
				i := strings.Index(rest, want)
				if i < 0 {
					t.Fatalf("OfReport(%s) =\n%s\nwant %q (in this order)", c.name, got, want)
				}
				rest = rest[i+len(want):]
			}
			for _, no := range append(c.no, "$HOST", "$PORTS", "$LOGIN", "$SAID", "$CAUSE", "\x00") {
				if strings.Contains(got, no) {
					t.Errorf("OfReport(%s) =\n%s\nwant no %q", c.name, got, no)
				}
			}
			if len(c.want) == 0 && got != "" {
				t.Errorf("OfReport(%s) = %q, want nothing", c.name, got)
			}
		})
	}
}

func report1(host string, dns smtp.Problem, rungs []smtp.RungCheck) smtp.Report {
	if host == "" {
		host = "smtp.example.com"
	}
	login := slices.ContainsFunc(rungs, func(r smtp.RungCheck) bool { return r.Failure != nil && r.Failure.Stage == "auth" })
	r := smtp.Report{Name: host, Host: host, Rungs: rungs, OK: slices.ContainsFunc(rungs, usable) && !login}
	if dns != "" {
		r.Failure = &smtp.CheckFailure{Problem: dns}
	}
	return r
}

// stopped is a rung that got nowhere.
func stopped(port int, p smtp.Problem) smtp.RungCheck {
	r := smtp.RungCheck{Port: port, Mode: "starttls", TCP: "open", Auth: "not_tried", Failure: &smtp.CheckFailure{Stage: "greeting", Problem: p, Text: "text"}}
	switch p {
	case smtp.ProblemNoAnswer, smtp.ProblemRefused, smtp.ProblemUnreachable:
		r.TCP, r.Failure.Stage = string(p), "connect"
	case smtp.ProblemNoMechanism:
		r.Failure.Stage = "auth"
	default:
	}
	return r
}

// replied is a rung that the relay refused with a reply.
func replied(port int, p smtp.Problem, code int, enhanced, text string) smtp.RungCheck {
	r := stopped(port, p)
	r.Auth, r.Failure.Stage = "refused", "auth"
	r.Failure.Code, r.Failure.Enhanced, r.Failure.Text = code, enhanced, text
	return r
}

// dated is a rung whose certificate has so many days left.
func dated(p smtp.Problem, days int) smtp.RungCheck {
	r := stopped(587, p)
	r.TLS = &smtp.TLSCheck{NotAfter: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), DaysLeft: days}
	return r
}

func flatten(all []Advice) string {
	var b strings.Builder
	for _, a := range all {
		b.WriteString(strings.TrimSpace(strings.Join([]string{portsTag(a.Ports), a.Found, a.Do}, " ")) + "\n")
	}
	return b.String()
}

func portsTag(ports []int) string {
	if len(ports) == 0 {
		return ""
	}
	return "[" + strings.ReplaceAll(withMode(ports, ""), ",", " ") + "]"
}

// TestProblemsHaveTexts: every problem that a check can name has a text of its own.
func TestProblemsHaveTexts(t *testing.T) {
	source, err := os.ReadFile("../mailer/smtp/problem.go")
	if err != nil {
		t.Fatal(err)
	}
	problems := regexp.MustCompile(`(?m)^\tProblem\w+ +Problem = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(problems) < 30 {
		t.Errorf("problem.go has %d problems, want 30 or more", len(problems))
	}
	for _, p := range problems {
		if text := adviceTexts[smtp.Problem(p[1])]; text.found == "" || text.do == "" {
			t.Errorf("adviceTexts[%s] = %+v, want both texts", p[1], text)
		}
	}
}

func TestOfFailure(t *testing.T) {
	f := &mailer.Failure{Class: mailer.ClassRelay, Stage: mailer.StageAuth, Relay: "backup", Port: 587, Reply: mailer.Reply{Code: 535, Enhanced: "5.7.8", Text: "no"}}
	got := OfFailure(f, "smtp.example.com", []int{587}, Settings{Number: 2})
	if got.Relay != "backup" || !strings.Contains(got.Found, "refused the user name") || !strings.Contains(got.Do, "SMTP2_USERNAME and SMTP2_PASSWORD") {
		t.Errorf("OfFailure(%v) = %+v, want to hear of SMTP2_USERNAME", f, got)
	}
}

// TestOfJudgedFailure: what is known of a reply to mail is told in its own words.
func TestOfJudgedFailure(t *testing.T) {
	f := &mailer.Failure{
		Class: mailer.ClassRelay, Stage: mailer.StageContent, Relay: "backup", Port: 587, Reply: mailer.Reply{Code: 550, Enhanced: "5.4.5", Text: "no"},
		Cause: "The daily limit is used up.", Remedy: "Wait until tomorrow.",
	}
	if got := OfFailure(f, "smtp.example.com", []int{587}, Settings{}); got.Relay != "backup" || got.Found != f.Cause || got.Do != f.Remedy {
		t.Errorf("OfFailure(%v) = %+v, want its cause and remedy", f, got)
	}
}

func TestConclusion(t *testing.T) {
	idle, serving := smtp.RungCheck{Port: 587}, smtp.RungCheck{Port: 2525, Auth: "accepted"}
	for _, c := range []struct {
		ok     bool
		sender string
		rungs  []smtp.RungCheck
		want   string
	}{
		{true, "a@b.example", []smtp.RungCheck{idle, serving}, "Result: mail can go to smtp.example.com on port 2525, from the sender a@b.example."},
		{true, "", []smtp.RungCheck{idle, serving}, "Result: smtp.example.com takes the login on port 2525. No sender was tried: --from names one, or MAILSIDECAR_FROM."},
		{true, "", []smtp.RungCheck{stopped(465, smtp.ProblemRefused), idle}, "Result: smtp.example.com answers on port 587 as it should. No sender was tried: --from names one, or MAILSIDECAR_FROM."},
		{false, "a@b.example", []smtp.RungCheck{stopped(465, smtp.ProblemRefused)}, "Result: no mail can go to smtp.example.com as things are."},
	} {
		if got := Conclusion(smtp.Report{Host: "smtp.example.com", OK: c.ok, Sender: c.sender, Rungs: c.rungs}); got != c.want {
			t.Errorf("Conclusion(%+v) = %q, want %q", c.rungs, got, c.want)
		}
	}
}

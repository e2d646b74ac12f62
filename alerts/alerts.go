// Package alerts tells people that something is wrong, over HTTP: a message to a chat or a
// phone at once, again while it lasts, and another one when it is over. A [Heartbeat] tells
// a monitor each minute that mail flows.
//
// Three parts know nothing of each other's work. [Book] is a value that decides what is to
// be told and when; it has no clock and sends nothing. [Client] sends one message to one
// [Target], in the form of its service, and judges the answer. [Notifier] has a book and a
// goroutine for each target, so that a slow or dead one delays no other, and mail never.
package alerts

import (
	"fmt"
	"strings"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/units"
)

// Kind is what may be wrong. Its text is stable: programs that get alerts as JSON read it.
type Kind string

// The kinds of [Condition].
const (
	RelayUnusable  Kind = "relay_unusable"
	LoginRefused   Kind = "login_refused"
	MailWaits      Kind = "mail_waits"
	MailRefused    Kind = "mail_refused"
	MailHeld       Kind = "mail_held"
	ManyBounces    Kind = "many_bounces"
	PortLost       Kind = "port_lost"
	CredentialEnds Kind = "credential_ends"
	CrashSuspect   Kind = "crash_suspect"
)

// titles have the subject in place of %s.
var titles = map[Kind]string{
	RelayUnusable:  "relay %s cannot be used",
	LoginRefused:   "relay %s: the login fails",
	MailWaits:      "mail waits, and none goes out",
	MailRefused:    "new mail is refused",
	MailHeld:       "mail is held",
	ManyBounces:    "many recipients are refused",
	PortLost:       "relay %s: the first port is lost",
	CredentialEnds: "%s needs attention",
	CrashSuspect:   "a message is held after crashes",
}

// Severity is how much a condition matters.
type Severity string

const (
	// Critical: mail does not go out, or is refused.
	Critical Severity = "critical"
	// Warning: mail goes on, for now or in part.
	Warning Severity = "warning"
)

// Condition is something that is wrong at this moment.
type Condition struct {
	Kind    Kind
	Subject string // such as the name of a relay; empty where the kind says it all
	Severity
	Found string // what is wrong, in whole sentences
	Do    string // what to do about it; may be empty
	// After is how long it must have been there to be told. What comes and goes without
	// being over is there for the sum of the times between two looks that both saw it.
	After time.Duration
	// Again is how often it is told while it lasts; zero means [Hourly].
	Again time.Duration
	// Unknown says that it cannot be judged now. What was known of it stays so: it is
	// neither told nor solved.
	Unknown bool
}

// id tells conditions apart.
func (c Condition) id() string { return string(c.Kind) + " " + c.Subject }

// State is what a [Message] is for. Its text is stable, too.
type State string

const (
	Firing   State = "firing"   // it is new
	Lasting  State = "lasting"  // it was told before
	Resolved State = "resolved" // it is over
	LeftOut  State = "left_out" // others came and went untold: there were too many
	Test     State = "test"
)

// Message is one thing to tell.
type Message struct {
	State State
	Condition
	Instance string    // which server it comes from
	Since    time.Time // when the condition began
	Ended    time.Time // when it was over; zero while it lasts
	LeftOut  int       // how many alerts were left out
}

// Limits of texts, in octets: the words of relays are part of them.
const (
	maxName = 100
	maxText = 1000
)

// Title is one line, such as "mailsidecar on web1: relay smtp.example.com cannot be used".
func (m Message) Title() string {
	instance := "mailsidecar on " + mailer.Printable(m.Instance, maxName) + ": "
	switch m.State {
	case Test:
		return instance + "a test"
	case LeftOut:
		return fmt.Sprintf("%s%d alerts were left out", instance, m.LeftOut)
	case Resolved:
		return "Solved: " + instance + m.what()
	case Lasting:
		return "Still: " + instance + m.what()
	default:
		return instance + m.what()
	}
}

func (m Message) what() string {
	title := titles[m.Kind]
	if !strings.Contains(title, "%s") {
		return title
	}
	return fmt.Sprintf(title, mailer.Printable(m.Subject, maxName))
}

// Body is what Title leaves out, in lines.
func (m Message) Body() string {
	switch m.State {
	case Test:
		return "Alerts arrive here. Nothing is wrong."
	case LeftOut:
		return fmt.Sprintf("More than %d messages would have been sent within an hour. What was left out is over. The log has it all.", maxHourly)
	case Resolved:
		return "It lasted for " + roughly(m.Ended.Sub(m.Since)) + ", since " + clock(m.Since) + "."
	default:
		lines := []string{mailer.Printable(m.Found, maxText)}
		if m.Do != "" {
			lines = append(lines, "What to do: "+mailer.Printable(m.Do, maxText))
		}
		return strings.Join(append(lines, "Since "+clock(m.Since)+"."), "\n")
	}
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// roughly is d as people say it.
func roughly(d time.Duration) string {
	if d >= 2*time.Minute {
		d = d.Truncate(time.Minute)
	}
	return units.Duration(d.Truncate(time.Second)).String()
}

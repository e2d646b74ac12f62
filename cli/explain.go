package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// explainOptions are the flags of explain.
type explainOptions struct {
	preset string // empty: the words may tell
	stage  string // empty: the line may tell, else it is guessed
	json   bool
}

func newExplain() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain [REPLY]",
		Short: "Say what a relay's reply means, and what to do",
		Long: `Says what the reply of a relay means: whose trouble it is, what to do, and what
mailsidecar does about it. Give it the reply, or any line that has one: of our log
or answers, of Postfix or Exim, of a client's error. A reply of several lines is one
argument. Without an argument it reads lines from standard input, and explains each.

It asks no server and needs no settings. It knows what docs/operating.md says under
"What a relay's reply means".

Exit status: 0 explained; 64 wrong flag; 65 a line has no refusal of a relay in it.`,
		Example: `  mailsidecar explain '550 5.7.1 Daily SMTP relay limit exceeded for customer.'
  mailsidecar explain --preset zoho --stage content '553 Relaying disallowed'
  docker logs mailsidecar 2>&1 | grep '"bounced"' | mailsidecar explain --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(cmd, o, args)
		},
	}
	cmd.Flags().StringVar(&o.preset, "preset", "", "the relay that said it: a `NAME` as for SMTP_PROVIDER (default: a host in the line, or its words, may tell)")
	cmd.Flags().StringVar(&o.stage, "stage", "", "the `STAGE` where it was said: greeting, ehlo, starttls, auth, mail, rcpt, data or content (default: the line may tell)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print an object of JSON for each reply")
	return cmd
}

func explain(cmd *cobra.Command, o explainOptions, args []string) error {
	e := explainer{out: cmd.OutOrStdout(), json: o.json, now: time.Now()}
	if err := e.use(o); err != nil {
		return err
	}
	if len(args) > 0 {
		text := strings.Join(args, " ")
		e.number = 1
		if strings.TrimSpace(text) == "" {
			return exit(exitUsage, "the argument is empty: give the reply in quotes, or lines on standard input")
		}
		if !e.line(text) {
			return exit(exitRefused, "%s", noReply(text))
		}
		return nil
	}
	if isTerminal(cmd.InOrStdin()) {
		return exit(exitUsage, "give the reply as an argument, in quotes, or lines on standard input")
	}
	return e.lines(cmd.InOrStdin())
}

// explainer explains one reply after the other.
type explainer struct {
	out   io.Writer
	json  bool
	now   time.Time
	host  string       // of the relay that --preset names; empty without it
	stage mailer.Stage // StageCompose: not given

	number int // of the line that is explained, from 1; the first one of a reply
}

// use reads the flags.
func (e *explainer) use(o explainOptions) error {
	if o.preset != "" {
		p, err := relays.ProviderNamed(o.preset)
		if unknown, ok := errors.AsType[*relays.NameError](err); ok {
			hint := ""
			if len(unknown.Near) > 0 {
				hint = "; did you mean " + unknown.Near[0] + "?"
			}
			return exit(exitUsage, "--preset %q: %w%s", o.preset, err, hint)
		}
		if e.host = p.Host; e.host == "" {
			e.host = p.InRegion("any").Host
		}
	}
	if o.stage == "" {
		return nil
	}
	for s := mailer.StageGreeting; s <= mailer.StageContent; s++ {
		if s.String() == strings.ToLower(o.stage) {
			e.stage = s
			return nil
		}
	}
	return exit(exitUsage, "--stage %q is none of greeting, ehlo, starttls, tls, auth, mail, rcpt, data and content", o.stage)
}

// maxPasted limits the octets of a line that are read; the rest of it is skipped.
const maxPasted = 64 << 10

// lines explains each line that r has. The lines of one reply count as one.
func (e *explainer) lines(r io.Reader) error {
	in := bufio.NewReaderSize(r, maxPasted)
	missed, begun := false, "" // begun: the lines of a reply that goes on
	read, first := 0, 1        // lines that were read, and the first one of begun
	explain := func(text string) {
		e.number = first
		if strings.TrimSpace(text) != "" && !e.line(text) {
			missed = true
			e.none(text)
		}
	}
	for {
		line, err := readLine(in)
		if begun != "" && (!goesOn(begun, line) || len(begun) > maxPasted) {
			explain(begun)
			begun = ""
		}
		if read++; begun == "" {
			first = read
		}
		begun += "\n" + line
		if !isContinued(line) || err != nil {
			explain(begun)
			begun = ""
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case err != nil && missed:
			return exitSilently(exitRefused)
		case err != nil:
			return nil
		}
	}
}

// readLine reads a line, and skips what is over maxPasted.
func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	text := string(bytes.TrimRight(line, "\r\n"))
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	return text, err
}

// isContinued reports whether a line is one of a reply that goes on: "550-…".
func isContinued(line string) bool {
	return len(line) > 3 && line[3] == '-' && strings.Trim(line[:3], "0123456789") == ""
}

// goesOn reports whether a line belongs to the reply begun, which begins after a line
// end.
func goesOn(begun, line string) bool { return len(line) >= 3 && begun[1:4] == line[:3] }

// explanation is what is known of one reply.
type explanation struct {
	Line         int    `json:"line"`         // from 1
	ID           string `json:"id,omitempty"` // of the message; this and the next two are of our own log
	ForwardPath  string `json:"forward_path,omitempty"`
	Relay        string `json:"relay,omitempty"`
	Code         int    `json:"code"`
	EnhancedCode string `json:"enhanced_code,omitempty"`
	Text         string `json:"text"`
	Stage        string `json:"stage"`
	StageGuessed bool   `json:"stage_guessed,omitempty"`
	Preset       string `json:"preset,omitempty"` // whose own rule it is
	Verdict      string `json:"verdict"`
	Known        bool   `json:"known"` // false: judged by its code alone
	Whose        string `json:"whose"`
	Cause        string `json:"cause"`
	Remedy       string `json:"remedy"`
	Follows      string `json:"follows"`                // what mailsidecar does
	PauseSeconds int    `json:"pause_seconds,omitzero"` // with the verdict pause: zero where no time is known
	Passes       bool   `json:"passes,omitzero"`        // nobody has to do anything: it ends by itself
	Source       string `json:"source,omitempty"`
}

// line explains the reply in text. It returns false where there is none.
func (e *explainer) line(text string) bool {
	p, ok := relays.FindReply(text)
	if !ok {
		return relays.IsAccepted(text) && e.accepted(text)
	}
	if e.stage != mailer.StageCompose {
		p.Stage, p.Guessed = e.stage, false
	}
	x := e.explanation(p)
	if e.json {
		data, _ := json.Marshal(x)
		fmt.Fprintf(e.out, "%s\n", data)
		return true
	}
	x.print(e.out)
	return true
}

// lineNote is what is said of a line without a refusal.
type lineNote struct {
	Line     int    `json:"line"`
	Accepted bool   `json:"accepted,omitempty"`
	Error    string `json:"error,omitempty"`
	Text     string `json:"text"`
}

// accepted says that there is nothing to do. It returns true.
func (e *explainer) accepted(text string) bool {
	e.note(lineNote{Accepted: true, Text: text}, "The relay accepted this, there is nothing to do: ")
	return true
}

// none says that a line of standard input has no refusal in it.
func (e *explainer) none(text string) {
	if relays.HidesReply(text) {
		e.note(lineNote{Error: hiddenReply, Text: text}, hiddenReply+": ")
		return
	}
	e.note(lineNote{Error: "no refusal of a relay in this line", Text: text}, "No refusal of a relay in this line: ")
}

func (e *explainer) note(n lineNote, words string) {
	n.Line, n.Text = e.number, mailer.Printable(strings.TrimSpace(n.Text), 80)
	if e.json {
		data, _ := json.Marshal(n)
		fmt.Fprintf(e.out, "%s\n", data)
		return
	}
	fmt.Fprintf(e.out, "%s%s\n\n", words, n.Text)
}

// hiddenReply is said of an error of PHPMailer that has no reply in it.
const hiddenReply = "There is no reply in this line: PHPMailer did not get as far as one, or hides it; run mailsidecar check"

// noReply says why there is nothing to explain.
func noReply(text string) string {
	if relays.HidesReply(text) {
		return hiddenReply
	}
	return "there is no refusal of a relay in this: it begins with a code such as 550 or 421"
}

func (e *explainer) explanation(p relays.Pasted) explanation {
	j := relays.Judge(cmp.Or(e.host, p.Host), p.Stage, p.Reply, e.now)
	x := explanation{
		Line: e.number, ID: p.ID, ForwardPath: p.ForwardPath, Relay: p.Relay,
		Code: p.Reply.Code, EnhancedCode: p.Reply.Enhanced, Text: p.Reply.Text,
		Stage: p.Stage.String(), StageGuessed: p.Guessed, Preset: j.Relay,
		Verdict: j.Verdict.String(), Known: j.Known, Whose: whose(j, p.Stage), Source: j.Source,
		Cause:   cmp.Or(j.Cause, "Nothing is known of these words: this is what stage and code mean."),
		Remedy:  cmp.Or(j.Remedy, "Ask the relay. Please report the reply, so that mailsidecar knows it."),
		Follows: follows(j, p, e.now), Passes: j.Passes,
	}
	if !j.Until.IsZero() {
		x.PauseSeconds = int(j.Until.Sub(e.now) / time.Second)
	}
	return x
}

// whose says whose trouble it is.
func whose(j relays.Judgement, stage mailer.Stage) string {
	switch {
	case j.Verdict == relays.Suppressed, j.OfRecipient && (j.Verdict == relays.Permanent || j.Verdict == relays.Retry):
		return "the recipient's"
	case ofUs(j) && strings.Contains(j.Cause, "IP address"):
		return "yours: this server's IP address"
	case j.Verdict == relays.Pause && (j.Rolling || strings.Contains(j.Cause, "quota")):
		return "yours: the quota"
	case j.Verdict == relays.Login && stage == mailer.StageAuth:
		return "yours: the login"
	case j.Verdict == relays.Pause || j.Verdict == relays.Less || j.Verdict == relays.Login:
		return "yours: the account at the relay, or how fast it sends"
	case j.Verdict == relays.Sender:
		return "yours: the sender's address"
	case j.Verdict == relays.Permanent:
		return "this message's"
	default:
		return "the relay's, and it may pass"
	}
}

// ofUs reports whether the verdict is about the account or about this server.
func ofUs(j relays.Judgement) bool { return j.Verdict == relays.Pause || j.Verdict == relays.Login }

// follows says what mailsidecar does about it.
func follows(j relays.Judgement, p relays.Pasted, now time.Time) string {
	switch j.Verdict {
	case relays.Permanent, relays.Suppressed:
		if !j.Known && !j.OfRecipient {
			return "The recipient bounces. From the second unrelated message on that is refused with these words, mail is kept and tried again."
		}
		return "The recipient bounces."
	case relays.Pause:
		if j.Until.IsZero() {
			return "All mail waits, and the relay is tried again in growing intervals. Nothing bounces."
		}
		return "All mail waits, and the relay is tried again in " + inWords(j.Until.Sub(now)) + ". Nothing bounces."
	case relays.Less:
		return "Fewer connections and less at a time; the message goes once more. Nothing bounces."
	case relays.Login:
		return "All mail waits until the login or the account is mended. Nothing bounces."
	case relays.Sender:
		if p.Reply.Code/100 == 5 {
			return "The next relay of the route is asked; without one the recipient bounces."
		}
		return "The message is tried again later; mail of other senders goes on."
	default:
		return "The message is tried again later, on its own schedule."
	}
}

// inWords prints a duration without units that are zero.
func inWords(d time.Duration) string {
	text := d.Round(time.Second).String()
	text = strings.TrimSuffix(text, "m0s") + map[bool]string{true: "m"}[strings.HasSuffix(text, "m0s")]
	return strings.TrimSuffix(text, "h0m") + map[bool]string{true: "h"}[strings.HasSuffix(text, "h0m")]
}

func (x explanation) print(w io.Writer) {
	reply := mailer.Reply{Code: x.Code, Enhanced: x.EnhancedCode, Text: x.Text}
	stage, known := x.Stage, x.Verdict
	if x.StageGuessed {
		stage += " (guessed; --stage says it)"
	}
	if !x.Known {
		known += " (by its code alone: these words are not known)"
	}
	fmt.Fprintf(w, "%s\n", reply)
	for _, row := range [][2]string{
		{"said at", stage},
		{"verdict", known},
		{"whose trouble", x.Whose},
		{"cause", x.Cause},
		{"what to do", x.Remedy},
		{"mailsidecar", x.Follows},
		{"known of", strings.TrimSpace(x.Preset + " " + x.Source)},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "  %-15s%s\n", row[0], row[1])
		}
	}
	fmt.Fprintln(w)
}

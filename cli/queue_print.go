package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"mailsidecar/api"
)

func encodeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

func printList(w io.Writer, messages []json.RawMessage, more bool) error {
	if len(messages) == 0 {
		fmt.Fprintln(w, "no message")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tACCEPTED\tSTATUS\tPRIORITY\tSENDER\tRECIPIENTS\tSUBJECT\tWAITS FOR")
	for _, raw := range messages {
		var m api.Message
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("the answer cannot be read: %w", err)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, localTime(m.CreatedAt), m.Status, m.Priority, m.Sender, names(m.Recipients), shorten(m.Subject, 40), waitsFor(m.Waits))
	}
	flush(t)
	if more {
		fmt.Fprintf(w, "There are more; --limit %d shows twice as many.\n", 2*len(messages))
	}
	return nil
}

// waitWords are the reasons of a wait for a line of a list.
var waitWords = map[string]string{
	api.WaitSchedule: "its time", api.WaitHeld: "a person", api.WaitRelayPaused: "paused relay", api.WaitRate: "SMTP_RATE", api.WaitRetry: "next try", api.WaitInLine: "its turn",
}

// waitsFor is the first reason for which a message waits, in a few words.
func waitsFor(waits []api.Wait) string {
	if len(waits) == 0 {
		return "-"
	}
	w := waits[0]
	words := cmp.Or(waitWords[w.Reason], w.Reason)
	if !w.Until.IsZero() {
		words += ", " + localTime(w.Until)
	}
	return words
}

// printWaits prints why recipients wait, and what to do.
func printWaits(w io.Writer, waits []api.Wait) {
	if len(waits) == 0 {
		return
	}
	fmt.Fprintln(w, "\nWhy it waits")
	for _, wait := range waits {
		who := fmt.Sprintf("%d recipients wait", wait.Recipients)
		if wait.Recipients == 1 {
			who = "1 recipient waits"
		}
		fmt.Fprintf(w, "  %s for %s", who, cmp.Or(waitWords[wait.Reason], wait.Reason))
		if wait.Relay != "" {
			fmt.Fprintf(w, " (%s)", wait.Relay)
		}
		if !wait.Until.IsZero() {
			fmt.Fprintf(w, " until %s", localTime(wait.Until))
		}
		fmt.Fprintf(w, ": %s\n", shorten(wait.Found, 500))
		if wait.Do != "" {
			fmt.Fprintf(w, "  -> %s\n", wait.Do)
		}
	}
}

// names is the first recipient, and how many others there are.
func names(recipients []api.Recipient) string {
	switch len(recipients) {
	case 0:
		return ""
	case 1:
		return recipients[0].Email
	default:
		return fmt.Sprintf("%s +%d", recipients[0].Email, len(recipients)-1)
	}
}

// shorten makes text safe for one line of a terminal, of up to n characters.
func shorten(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// keptText says until when the content is kept; empty where a server of an earlier release does not say it.
func keptText(k *api.Kept) string {
	switch {
	case k == nil:
		return ""
	case !k.Kept:
		return "removed; " + k.Setting + " keeps it longer"
	case k.Until.IsZero():
		return "kept while the message waits"
	default:
		return "kept until " + localTime(k.Until) + " (" + k.Setting + ")"
	}
}

// printStory prints all that is known of one message.
func printStory(w io.Writer, m api.Message) {
	fmt.Fprintf(w, "message %s: %s\n\n", m.ID, m.Status)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	line("Message-ID", m.MessageID)
	line("From", m.Sender)
	line("Subject", shorten(m.Subject, 200))
	line("Reverse-path", "<"+m.Envelope.ReversePath+">")
	line("Size", fmt.Sprintf("%d octets", m.Size))
	line("Priority", m.Priority)
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		line("Tag", name+": "+m.Tags[name])
	}
	line("Accepted", localTime(m.CreatedAt))
	if !m.SendAt.IsZero() {
		line("Not before", localTime(m.SendAt))
	}
	if !m.ExpiresAt.IsZero() {
		line("Expires", localTime(m.ExpiresAt))
	}
	line("Content", keptText(m.Content))
	if m.ResentOf != "" {
		line("Sends again", m.ResentOf)
	}
	for _, id := range m.ResentAs {
		line("Sent again", "as "+id)
	}
	flush(t)
	fmt.Fprintln(w, "\nRecipients")
	printRecipients(w, m.Recipients)
	printWaits(w, m.Waits)
	if len(m.Attempts) == 0 {
		fmt.Fprintln(w, "\nNo attempt yet.")
		return
	}
	for i, a := range m.Attempts {
		printAttempt(w, m.EarlierAttempts+i+1, a)
	}
}

func printAttempt(w io.Writer, number int, a api.Attempt) {
	way := []string{a.Relay}
	if a.Port != 0 {
		way = append(way, fmt.Sprintf("port %d", a.Port))
	}
	if a.TLS != "" {
		way = append(way, a.TLS)
	}
	if a.Auth != "" {
		way = append(way, "AUTH "+a.Auth)
	}
	fmt.Fprintf(w, "\nAttempt %d, %s: %s (%s)\n", number, localTime(a.StartedAt), strings.Join(way, ", "), millis(a.DurationMS))
	if a.Why != "" {
		fmt.Fprintf(w, "  why this relay: %s\n", shorten(a.Why, 200))
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range a.Ladder {
		found := "not waited for"
		switch {
		case r.Won:
			found = "served"
		case r.Stage != "":
			found = r.Stage + ": " + r.Text
		}
		fmt.Fprintf(t, "  port %d\t%s\t%s\n", r.Port, found, millis(r.DurationMS))
	}
	flush(t)
	for _, r := range a.Results {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", r.Email, r.Kind, r.Outcome)
	}
	flush(t)
	printMeanings(w, a.Results)
}

// printMeanings says what the refusals of an attempt mean and what to do, each once.
func printMeanings(w io.Writer, results []api.Result) {
	told := map[string]bool{}
	for _, r := range results {
		if r.Found == "" || told[r.Found] {
			continue
		}
		told[r.Found] = true
		fmt.Fprintf(w, "  %s\n", shorten(r.Found, 500))
		if r.Do != "" {
			fmt.Fprintf(w, "  -> %s\n", shorten(r.Do, 500))
		}
	}
}

package compose

import (
	"errors"
	"slices"
	"strings"

	"mailsidecar/mailer"
)

// envelope returns the envelope with each recipient once, however often and in
// whichever field it is named.
func (v *validMessage) envelope(m mailer.Message) mailer.Envelope {
	env := mailer.Envelope{ReversePath: v.from.Email}
	if m.ReturnPath != "" {
		env.ReversePath = v.returnPath
	}
	var all []string
	for _, a := range slices.Concat(v.to, v.cc, v.bcc) {
		all = append(all, a.Email)
	}
	env.ForwardPaths = mailer.UniqueEmails(all)
	env.Priority = v.priority
	return env
}

// addresses makes the envelope, from the options or else from the message's own
// fields, and reads the authors.
func (f *finisher) addresses(opts FinishOptions) Composed {
	c := Composed{Authors: f.mailboxes("from")}
	if len(c.Authors) > 0 {
		c.Sender = c.Authors[0]
	} else if len(f.problems.Fields) == 0 {
		f.problems.malformed(whole("from"), "the From field has no address")
	}
	switch {
	case opts.NullFrom:
	case opts.From.Email != "":
		c.Envelope.ReversePath = opts.From.Email
	default:
		c.Envelope.ReversePath = f.ownReversePath(c.Sender)
	}
	c.Envelope.ForwardPaths = f.forwardPaths(opts.To)
	c.Envelope.Priority = precedencePriority(f.first("precedence"))
	return c
}

// ownReversePath returns the address of the last sender (RFC 5322 §3.6.2, §3.6.6).
func (f *finisher) ownReversePath(author string) string {
	keys := []string{"sender"}
	if f.isResent() {
		keys = []string{"resent-sender", "resent-from", "sender"}
	}
	for _, key := range keys {
		if list := f.mailboxes(key); len(list) > 0 {
			return list[0]
		}
	}
	return author
}

// isResent reports whether the message names the recipients it is resent to.
func (f *finisher) isResent() bool {
	return f.count("resent-to")+f.count("resent-cc")+f.count("resent-bcc") > 0
}

func (f *finisher) forwardPaths(to []mailer.Address) []string {
	var all []string
	for _, a := range to {
		all = append(all, a.Email)
	}
	if len(to) == 0 {
		all = f.ownForwardPaths()
		if len(all) == 0 && len(f.problems.Fields) == 0 {
			f.problems.invalid(whole("to"), "at least one recipient is required, beside the message or in its To, Cc or Bcc field")
		}
	}
	return mailer.UniqueEmails(all)
}

func (f *finisher) ownForwardPaths() []string {
	keys := []string{"to", "cc", "bcc"}
	if f.isResent() {
		keys = []string{"resent-to", "resent-cc", "resent-bcc"}
	}
	var all []string
	for _, key := range keys {
		all = append(all, f.mailboxes(key)...)
	}
	return all
}

// maxMailboxes limits the addresses of all fields of one name: as many as a message can
// be allowed recipients.
const maxMailboxes = 100_000

// mailboxes reads the addr-specs of all fields of that name, members of groups
// included.
func (f *finisher) mailboxes(key string) []string {
	var all []string
	for _, field := range f.root.fields {
		if field.key != key || f.isEmpty(field) {
			continue
		}
		if field.cleaned {
			// "ana@example.org\rBcc: eve@example.net" would be a group with Eve in it.
			f.problems.invalid(whole(key), "a bare CR stands in the field")
			continue
		}
		value := readText(f.charset, field.value())
		if err := value.checkAddresses(field); err != nil {
			f.problems.Malformed = f.problems.Malformed || errors.Is(err, errForeign)
			f.problems.invalid(whole(key), err.Error())
			continue
		}
		list, err := mailer.ParseAddressField(value.text)
		if err != nil {
			f.problems.problem(whole(key), err)
			continue
		}
		if len(all)+len(list) > maxMailboxes {
			f.problems.invalid(whole(key), "more than 100000 addresses")
			break
		}
		for _, a := range list {
			if a.Err != nil {
				f.problems.problem(mailer.Position{Field: key, Item: len(all) + 1}, a.Err)
			}
			all = append(all, a.Email)
		}
	}
	return all
}

// precedencePriority returns the priority that a Precedence field asks for. RFC 2076
// §3.9 discourages the field, but mailing lists and newsletters have always set it,
// and sendmail has always queued by it.
func precedencePriority(value string) mailer.Priority {
	switch strings.ToLower(strings.Trim(value, " \t\r\n")) {
	case "bulk", "list", "junk":
		return mailer.PriorityBulk
	default:
		return mailer.PriorityNormal
	}
}

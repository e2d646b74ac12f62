package compose

import (
	"bytes"
	"strings"

	"mailsidecar/mailer"
)

// sameMailbox reports whether two addr-specs are those of one mailbox. Hardly a server
// tells local parts apart by their case.
func sameMailbox(a, b string) bool { return strings.EqualFold(a, b) }

// forced is the mailbox that takes the place of an author of that name.
func forced(force mailer.Address, name string) mailer.Address {
	if name != "" {
		force.Name = name
	}
	return force
}

// force puts another From into the message, unless that is the zero Address. The author
// goes into Reply-To where there is none. A Sender that is not the new author is left
// out, and the reverse-path is the new author's, unless it is null.
func (v *validMessage) force(force mailer.Address, returnPath string) {
	if force.Email == "" {
		return
	}
	if !sameMailbox(v.from.Email, force.Email) && len(v.replyTo) == 0 {
		v.replyTo = []mailer.Address{v.from}
	}
	v.from = forced(force, v.from.Name)
	if !sameMailbox(v.sender.Email, force.Email) {
		v.sender = mailer.Address{}
	}
	if returnPath != "" && returnPath != "<>" {
		v.returnPath = force.Email
	}
}

// force does the same to a finished message, after its fields were made fit for SMTP. What
// is signed by DKIM is refused where it would have to change.
func (f *finisher) force(force mailer.Address, c *Composed) error {
	if force.Email == "" {
		return nil
	}
	c.Sender = force.Email
	if c.Envelope.ReversePath != "" {
		c.Envelope.ReversePath = force.Email
	}
	same := len(c.Authors) == 1 && sameMailbox(c.Authors[0], force.Email)
	changed := !same
	for _, field := range f.root.fields {
		if field.key == "sender" && !f.names(field, force) {
			field.drop, changed = true, true
		}
	}
	if changed && f.signed {
		return conversionRefused("the message is signed (DKIM-Signature), and its From would have to become " + force.Email +
			" (MAILSIDECAR_FORCE_FROM): sign it for that address, or send it unsigned")
	}
	if !same {
		f.replaceFrom(force, c.Authors)
	}
	return nil
}

// names reports whether the field has the address, alone.
func (f *finisher) names(field *rawField, address mailer.Address) bool {
	list, err := mailer.ParseAddressField(readText(f.charset, field.value()).text)
	return err == nil && len(list) == 1 && list[0].Err == nil && sameMailbox(list[0].Email, address.Email)
}

// replaceFrom writes the From field anew, and behind it the old one as Reply-To, unless the
// message has one that is not empty.
func (f *finisher) replaceFrom(force mailer.Address, authors []string) {
	replies := false
	for _, field := range f.root.fields {
		if field.key == "reply-to" {
			field.drop = field.drop || field.value() == ""
			replies = replies || !field.drop
		}
	}
	for _, field := range f.root.fields {
		if field.key != "from" {
			continue
		}
		old := field.raw
		if field.text != nil {
			old = field.text
		}
		field.text = appendMailboxes(nil, "From", []mailer.Address{forced(force, f.nameIn(field))})
		switch {
		case replies:
		case len(old) > maxForced:
			field.text = appendMailboxes(field.text, "Reply-To", withoutNames(authors))
		default:
			field.text = appendRenamed(field.text, "Reply-To", old)
		}
	}
}

// maxForced limits a From field whose names are kept, in octets.
const maxForced = 2 << 10

// withoutNames makes mailboxes of addresses.
func withoutNames(emails []string) []mailer.Address {
	list := make([]mailer.Address, len(emails))
	for i, email := range emails {
		list[i].Email = email
	}
	return list
}

// nameIn is the name of the mailbox in an address field; empty where there are several, or
// the field is very long.
func (f *finisher) nameIn(field *rawField) string {
	if len(field.raw) > maxForced {
		return ""
	}
	a, err := mailer.ParseAddress(readText(f.charset, field.value()).text)
	if err != nil {
		return ""
	}
	return decodeText(f.charset, a.Name)
}

// appendRenamed appends a field under another name. Where its first line would become too
// long for that, the name has a line of its own.
func appendRenamed(dst []byte, name string, field []byte) []byte {
	_, value, _ := bytes.Cut(field, []byte(":"))
	value = bytes.TrimLeft(value, " \t")
	dst = append(dst, name+":"...)
	if first, _, _ := bytes.Cut(value, []byte("\n")); len(name)+len(first) > foldedLine {
		dst = append(dst, "\r\n"...)
	}
	return endLine(appendCRLF(append(dst, ' '), value))
}

package compose

import (
	"bytes"
	"slices"
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
	changed := f.replaceSender(force, c.Authors)
	if changed && f.signed {
		return conversionRefused("the message is signed (DKIM-Signature), and its From would have to become " + force.Email +
			" (MAILSIDECAR_FORCE_FROM): sign it for that address, or send it unsigned")
	}
	return nil
}

// replaceSender puts another author into the message: From, unless it is that of the only
// one of authors, with the old From in Reply-To, and no Sender but the new author. It
// reports whether anything changed.
func (f *finisher) replaceSender(force mailer.Address, authors []string) (changed bool) {
	for _, field := range f.root.fields {
		if field.key == "sender" && !field.drop && !f.names(field, force) {
			field.drop, changed = true, true
		}
	}
	if len(authors) == 1 && sameMailbox(authors[0], force.Email) && f.count("from") == 1 {
		return changed
	}
	f.replaceFrom(force, authors)
	return true
}

// names reports whether the field has the address, alone.
func (f *finisher) names(field *rawField, address mailer.Address) bool {
	list, err := mailer.ParseAddressField(readText(f.charset, field.value()).text)
	return err == nil && len(list) == 1 && list[0].Err == nil && sameMailbox(list[0].Email, address.Email)
}

// replaceFrom writes the From field anew, and behind it the old one as Reply-To, unless the
// message has one that is not empty. A message without From gets one, and a further one
// is left out.
func (f *finisher) replaceFrom(force mailer.Address, authors []string) {
	at := slices.IndexFunc(f.root.fields, func(field *rawField) bool { return field.key == "from" })
	if at < 0 {
		f.root.fields = append(f.root.fields, newField("From", appendMailboxes(nil, "From", []mailer.Address{force})))
		return
	}
	replies := f.dropEmptyReplyTo()
	old := f.root.fields[at]
	fields := []*rawField{newField("From", appendMailboxes(nil, "From", []mailer.Address{forced(force, f.nameIn(old))}))}
	if !replies {
		fields = append(fields, newField("Reply-To", replyTo(old.written(), authors)))
	}
	for _, field := range f.root.fields[at:] {
		field.drop = field.drop || field.key == "from"
	}
	f.root.fields = slices.Insert(f.root.fields, at, fields...)
}

// dropEmptyReplyTo leaves out each Reply-To that is empty, and reports whether there is
// another one.
func (f *finisher) dropEmptyReplyTo() (replies bool) {
	for _, field := range f.root.fields {
		if field.key == "reply-to" {
			field.drop = field.drop || field.value() == ""
			replies = replies || !field.drop
		}
	}
	return replies
}

// replyTo is the Reply-To field of a message whose From field was from. A long one loses
// its names.
func replyTo(from []byte, authors []string) []byte {
	if len(from) > maxForced && len(authors) > 0 {
		return appendMailboxes(nil, "Reply-To", withoutNames(authors))
	}
	return appendRenamed(nil, "Reply-To", from)
}

func newField(name string, raw []byte) *rawField {
	return &rawField{name: name, key: strings.ToLower(name), raw: raw}
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

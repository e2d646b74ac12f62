package compose

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"mailsidecar/mailer"
)

// FinishOptions is the envelope that a client gives beside a finished message. Its
// addresses are as [mailer.ParseAddress] returns them.
type FinishOptions struct {
	Options
	// From is the reverse-path; the zero Address means the message's own.
	From mailer.Address
	// NullFrom asks for the null reverse-path, "<>", whatever From is.
	NullFrom bool
	// ForceFrom takes the place of the message's From and of From here, as in
	// [mailer.Message].
	ForceFrom mailer.Address
	// To are the recipients; none means those that the message names itself.
	To []mailer.Address
	// Date is that of a Date field that the message lacks, as in [mailer.Message].
	Date time.Time

	// keepEightBit signs a message as it is that cannot be made 7-bit.
	keepEightBit bool
}

// Finish makes a finished MIME message fit for SMTP. It changes nothing but this:
//
//   - the ends of lines become CRLF: in the header section LF, with any CRs before it;
//     in bodies LF, CRLF, CR CR LF and CR
//   - any other CR in the header section becomes a blank; blanks before the colon of a
//     field are removed, unless it is signed
//   - Bcc, Resent-Bcc and Return-Path are removed
//   - Date and Message-ID are added when missing
//   - raw 8-bit text in header fields becomes encoded-words or, in parameters,
//     what RFC 2231 has for them; encoded-words stay as they are, and so do addresses
//     but for their domains, which become A-labels unless the field is signed. Text
//     that is not UTF-8 is in the charset that Content-Type names, that of the first
//     text part in a multipart, else in ISO 8859-1
//   - header lines over 998 octets are folded
//   - fields of addresses or message ids that are empty are left out
//   - text in UTF-8 that names no charset gets its Content-Type, and in a message
//     without MIME fields MIME-Version and Content-Transfer-Encoding
//   - with ForceFrom, From is replaced, the old one becomes Reply-To unless there is one,
//     and a Sender that is not the new From is removed
//   - a part with a line over 998 octets, a NUL or, unless it is text, a CR of
//     its own is encoded anew; so is one in the encoding binary whose octets would change
//   - what opts.Signer signs is made 7-bit first, as [SevenBit] does, where that can be: so
//     relays without 8BITMIME need no other form. A message with a DKIM-Signature is not
//     signed
//
// Fields keep their order, and repeated fields are kept. A message without a From
// field or without a header section, with two fields of a name that may stand once, or
// which cannot be made fit, is an [*mailer.InvalidError]. That includes one that would
// become larger than four times its size and 64 KiB, and one whose lines all end with CR.
// A signed message (multipart/signed, DKIM-Signature) that would have to change where the
// signature may cover it is a permanent [*mailer.Failure]. When ctx ends, the error is
// that of the context, and that of opts.Reserve is returned as it is.
func Finish(ctx context.Context, raw []byte, opts FinishOptions) (Composed, error) {
	if bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\r') >= 0 {
		return Composed{}, malformedMessage(whole("message"), "its line ends are bare CR; end each line with CRLF")
	}
	f := &finisher{root: parseMessage(ctx, raw), growth: newGrowth(ctx, raw)}
	f.charset, f.date = f.root.headerCharset(), opts.Date
	if err := ctx.Err(); err != nil {
		return Composed{}, err
	}
	if err := f.checkHeader(); err != nil {
		return Composed{}, err
	}
	f.readSignatures()
	f.checkRepeated()
	if err := f.problems.err(); err != nil {
		return Composed{}, err
	}
	c := f.addresses(opts)
	if err := f.problems.err(); err != nil {
		return Composed{}, err
	}
	c.Subject = decodeText(f.charset, f.first("subject"))
	messageID, err := f.changeHeader(cmp.Or(opts.ForceFrom.Email, c.Sender))
	if err != nil {
		return Composed{}, err
	}
	c.From = f.fromField()
	if err := f.force(opts.ForceFrom, &c); err != nil {
		return Composed{}, err
	}
	room := 0
	if !f.signed {
		room = opts.room(c.Sender)
	}
	e := entityFixer{growth: f.growth, charset: f.charset, signed: f.signed, label: true, sevenBit: room > 0 && !opts.keepEightBit}
	if err := e.fix(f.root); err != nil {
		if e.sevenBit && ctx.Err() == nil {
			opts.keepEightBit = true
			return Finish(ctx, raw, opts)
		}
		return Composed{}, err
	}
	data, err := f.root.renderBehind(ctx, room, opts.Reserve.with(room))
	if err != nil {
		return Composed{}, err
	}
	if c.Content, err = checkedContent(data[room:], messageID); err != nil {
		return Composed{}, err
	}
	c.Content, err = opts.sign(ctx, c.Content, data, room)
	return c, err
}

// finisher is one call of Finish.
type finisher struct {
	root         *mimeEntity
	date         time.Time
	charset      string // of raw header text that is not UTF-8
	growth       *growth
	problems     problemList
	signed       bool            // by DKIM
	sealed       bool            // with DKIM, S/MIME or PGP: fields that stand are passed on
	signedFields map[string]bool // the fields that its signatures cover, in lower case
}

func malformedMessage(at mailer.Position, message string) error {
	return &mailer.InvalidError{Malformed: true, Fields: []mailer.FieldError{{Position: at, Message: message}}}
}

// checkHeader refuses a text that is no message.
func (f *finisher) checkHeader() error {
	switch {
	case len(f.root.fields) == 0:
		return malformedMessage(whole("message"), "the first line is not a header field")
	case f.root.broken:
		return malformedMessage(whole("message"), "a line in the header section is not a header field, or there are too many")
	case f.count("from") == 0:
		return malformedMessage(whole("from"), "the message has no From field")
	}
	for i, field := range f.root.fields {
		if bytes.IndexByte(field.raw, 0) >= 0 {
			return malformedMessage(headerField(i, printableName(field.name)), "NUL is not allowed")
		}
	}
	return nil
}

// isSingleField reports whether a message may have one field of that name only (RFC 5322
// §3.6, RFC 2045 §3). Of Bcc, which is removed, it may have several.
func isSingleField(key string) bool {
	switch key {
	case "date", "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject",
		"mime-version", "content-type", "content-transfer-encoding":
		return true
	}
	return false
}

// checkRepeated refuses fields that may stand once and stand twice: many servers refuse
// such mail, and readers differ on which one counts. A signed message is passed on, for a
// further field may be what its signer wanted to forbid; but it has one author field.
func (f *finisher) checkRepeated() {
	seen := map[string]bool{}
	for i, field := range f.root.fields {
		if !isSingleField(field.key) || f.isEmpty(field) || f.sealed && field.key != "from" {
			continue
		}
		if seen[field.key] {
			at := headerField(i, field.name)
			if isRecipientField(field.key) || field.key == "from" {
				at = whole(field.key)
			}
			f.problems.invalid(at, "the message has more than one "+field.name+" field")
		}
		seen[field.key] = true
	}
}

func isRecipientField(key string) bool { return key == "to" || key == "cc" }

// isEmpty reports whether the field has no content and must have one (RFC 5322 §3.6): it
// is left out, unless the message is signed. Dates and message ids are filled in.
func (f *finisher) isEmpty(field *rawField) bool {
	switch key := strings.TrimPrefix(field.key, "resent-"); {
	case f.sealed || key == "from":
		return false
	case !isAddressField(field.key) && key != "in-reply-to" && key != "references":
		return false
	}
	value := field.value()
	return len(value) <= maxLine && strings.Trim(mailer.StripComments(value), " \t,;") == ""
}

// fromField returns the From field as it will be written, but for a blank before its colon:
// RFC 5322 has that among what is obsolete.
func (f *finisher) fromField() string {
	for _, field := range f.root.fields {
		if field.key == "from" {
			from := string(appendCRLF(nil, field.written()))
			if field.spaced {
				from = field.name + " " + from[len(field.name):]
			}
			return from
		}
	}
	return ""
}

func (f *finisher) count(key string) int {
	n := 0
	for _, field := range f.root.fields {
		if field.key == key {
			n++
		}
	}
	return n
}

// first returns the value of the first field of that name, or the empty string.
func (f *finisher) first(key string) string {
	for _, field := range f.root.fields {
		if field.key == key {
			return field.value()
		}
	}
	return ""
}

// readSignatures records which fields of the message, or of those that Finish adds,
// DKIM signatures cover (RFC 6376 §3.5).
func (f *finisher) readSignatures() {
	f.signedFields = map[string]bool{}
	switch f.root.mediaType {
	case "multipart/signed", "application/pkcs7-mime", "application/x-pkcs7-mime":
		f.sealed = true
	}
	known := map[string]bool{"date": true, "message-id": true, "mime-version": true, "content-type": true, "content-transfer-encoding": true}
	for _, field := range f.root.fields {
		known[field.key] = true
	}
	for _, field := range f.root.fields {
		if field.key != "dkim-signature" {
			continue
		}
		f.signed, f.sealed = true, true
		f.signedFields["dkim-signature"] = true
		for tag := range strings.SplitSeq(field.value(), ";") {
			name, names, _ := strings.Cut(tag, "=")
			if strings.Trim(name, " \t") != "h" {
				continue
			}
			for name := range strings.SplitSeq(names, ":") {
				if key := strings.ToLower(strings.Trim(name, " \t")); known[key] {
					f.signedFields[key] = true
				}
			}
		}
	}
}

// conversionRefused returns the failure of a message that must not be changed
// (RFC 3463 §3.7, X.6.3).
func conversionRefused(text string) error {
	return &mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Reply: mailer.Reply{Enhanced: "5.6.3"}, Text: text}
}

// changeHeader makes the header section fit for SMTP and returns the Message-ID.
func (f *finisher) changeHeader(sender string) (messageID string, err error) {
	for i, field := range f.root.fields {
		if err := f.changeField(i, field); err != nil {
			return "", err
		}
	}
	if f.first("date") == "" {
		f.supply("Date", dateField(f.date))
	}
	if messageID = f.first("message-id"); messageID == "" {
		if messageID, err = newMessageID(sender); err != nil {
			return "", err
		}
		f.supply("Message-ID", messageID)
	}
	for _, added := range f.root.added {
		if f.signedFields[strings.ToLower(added.Name)] {
			return "", conversionRefused("the signed message lacks a " + added.Name + " field")
		}
	}
	if f.root.gap == nil {
		f.root.gap = []byte("\r\n")
	}
	return messageID, nil
}

// supply puts a value into the empty field of that name, or adds the field.
func (f *finisher) supply(name, value string) {
	for _, field := range f.root.fields {
		if field.key == strings.ToLower(name) {
			field.text = appendHeaderField(nil, field.name, headerWords(value))
			return
		}
	}
	f.root.added = append(f.root.added, mailer.Field{Name: name, Value: value})
}

func (f *finisher) changeField(i int, field *rawField) error {
	if !f.signedFields[field.key] {
		field.tidyName()
	}
	switch {
	case field.key == "bcc" || field.key == "resent-bcc" || field.key == "return-path" || f.isEmpty(field):
		field.drop = true
	default:
		if !field.needsASCII() && !hasLongLine(field.raw) {
			break
		}
		field.signed = f.signedFields[field.key]
		if err := f.growth.rewrite(field, f.charset); isLimit(err) {
			return &mailer.InvalidError{Fields: []mailer.FieldError{{Position: headerField(i, printableName(field.name)), Message: err.Error()}}}
		} else if err != nil {
			return err
		}
	}
	changed := field.drop || field.text != nil || field.cleaned || hasLoneCR(field.raw)
	if changed && f.signedFields[field.key] {
		return conversionRefused("the signed field " + field.name + " would have to change")
	}
	if !field.drop && !field.foldable() {
		return &mailer.InvalidError{Fields: []mailer.FieldError{{Position: headerField(i, printableName(field.name)), Message: "a line over 998 octets cannot be folded"}}}
	}
	return nil
}

// checkedContent returns data as content after a check that it is fit for SMTP, so
// that a fault in this package never reaches a relay.
func checkedContent(data []byte, messageID string) (mailer.Content, error) {
	if err := checkLines(data); err != nil {
		return mailer.Content{}, fmt.Errorf("finish: %w", err)
	}
	header, body := splitContent(data)
	if !validHeaderText(header) {
		return mailer.Content{}, malformedMessage(whole("headers"), "an address or identifier is not valid UTF-8")
	}
	return mailer.Content{
		Data:       data,
		MessageID:  messageID,
		EightBit:   hasEightBit(body),
		UTF8Header: hasEightBit(header),
	}, nil
}

package compose

import (
	"context"

	"mailsidecar/mailer"
)

// Form is how a relay needs a message otherwise than it is stored. The zero Form is the
// stored one.
type Form struct {
	// From, unless it is the zero Address, takes the place of the message's From, as
	// [mailer.Message.ForceFrom] does.
	From mailer.Address
	// ASCIIHeader says that the relay does not offer SMTPUTF8, see [ASCIIHeader].
	ASCIIHeader bool
	// SevenBit says that the relay does not offer 8BITMIME, see [SevenBit].
	SevenBit bool
	// Sign, unless it is nil, returns header fields to put in front of a message that was
	// changed, each with its CRLF; none where it is not to be signed.
	Sign func(ctx context.Context, c mailer.Content) ([]byte, error)
}

// signatureRoom is for the fields that Form.Sign returns, in octets: four signatures with
// RSA keys of 4096 bits fit. With more, the message is copied once more.
const signatureRoom = 8 << 10

// Convert returns the content in a form: first with the other From, then with a header
// section in ASCII, then in seven bits, and then signed. It depends on c and the form
// alone, and makes one copy. Content that has the form is returned as it is, and is not
// signed.
//
// A message that cannot be converted is a permanent [*mailer.Failure]: with 5.6.2 where
// it is signed (DKIM-Signature) and has another From, with 5.6.7 as [ASCIIHeader] says,
// with 5.6.3 as [SevenBit] says. When ctx ends, the error is that of the context. Convert
// asks reserve before it makes the octets. An error of Sign is a [*SignError].
func Convert(ctx context.Context, c mailer.Content, f Form, reserve Reserve) (mailer.Content, error) {
	f.SevenBit = f.SevenBit && c.EightBit
	x := converter{root: parseFor(ctx, c.Data, f.SevenBit), growth: newGrowth(ctx, c.Data)}
	if err := ctx.Err(); err != nil {
		return mailer.Content{}, err
	}
	changed, err := x.convert(c, f)
	if err != nil || !changed {
		return c, err
	}
	room := 0
	if f.Sign != nil {
		room = signatureRoom
	}
	data, err := x.root.renderBehind(ctx, room, reserve)
	if err != nil {
		return mailer.Content{}, err
	}
	converted, err := checkedContent(data[room:], c.MessageID)
	switch {
	case err != nil:
		return mailer.Content{}, err
	case f.ASCIIHeader && converted.UTF8Header:
		return mailer.Content{}, needsSMTPUTF8("the header section cannot do without UTF-8")
	case f.SevenBit && converted.EightBit:
		return mailer.Content{}, x.fixer().refuse("part")
	case f.Sign == nil:
		return converted, nil
	}
	return sign(ctx, converted, data, room, f.Sign)
}

// converter is one call of Convert.
type converter struct {
	root   *mimeEntity
	growth *growth
}

// parseFor reads a message: all of it where its body may change, else its header section.
func parseFor(ctx context.Context, data []byte, whole bool) *mimeEntity {
	if whole {
		return parseMessage(ctx, data)
	}
	p := mimeParser{Context: ctx}
	e := &mimeEntity{isMessage: true}
	e.body = p.parseFields(e, data)
	return e
}

// convert plans the changes, and reports whether there are any.
func (x *converter) convert(c mailer.Content, f Form) (changed bool, err error) {
	if f.From.Email != "" {
		if changed, err = x.forceFrom(f.From); err != nil {
			return false, err
		}
	}
	if f.ASCIIHeader && (c.UTF8Header || x.root.needsASCII()) {
		if changed = true; x.root.hasField("dkim-signature") {
			return false, needsSMTPUTF8("the signed message has an address beyond ASCII in its header section")
		}
		if err := x.asciiHeader(); err != nil {
			return false, err
		}
	}
	if f.SevenBit {
		changed = true
		return changed, x.fixer().fix(x.root)
	}
	return changed, nil
}

// fixer encodes the body in seven bits.
func (x *converter) fixer() entityFixer {
	return entityFixer{growth: x.growth, charset: x.root.headerCharset(), sevenBit: true, signed: x.root.hasField("dkim-signature")}
}

// needsASCII reports whether the header section holds raw UTF-8.
func (e *mimeEntity) needsASCII() bool {
	for _, f := range e.fields {
		if !f.drop && f.needsASCII() {
			return true
		}
	}
	return false
}

// asciiHeader plans the fields that hold raw UTF-8 anew.
func (x *converter) asciiHeader() error {
	for _, f := range x.root.fields {
		if f.drop || !f.needsASCII() {
			continue
		}
		if err := f.downgradeWithin(x.growth); err != nil {
			return err
		}
	}
	return nil
}

// forceFrom plans another From, see [finisher.replaceSender].
func (x *converter) forceFrom(force mailer.Address) (changed bool, err error) {
	f := &finisher{root: x.root, growth: x.growth, charset: utf8Charset}
	authors := f.mailboxes("from")
	if len(f.problems.Fields) > 0 {
		authors = nil
	}
	changed = f.replaceSender(force, authors)
	if changed && x.root.hasField("dkim-signature") {
		return false, &mailer.Failure{
			Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Reply: mailer.Reply{Enhanced: "5.6.2"},
			Text: "the message is signed (DKIM-Signature), and its From would have to become " + force.Email +
				" for this relay (SMTP_FORCE_FROM): sign it for that address, or send it unsigned",
		}
	}
	return changed, nil
}

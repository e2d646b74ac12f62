package compose

import (
	"context"
	"strings"

	"mailsidecar/mailer"
)

// ASCIIHeader returns the content for a relay that does not offer SMTPUTF8 (RFC 6531
// §3.1). It depends on c alone, and changes only the fields of the header section that
// hold raw UTF-8, much as RFC 6857 §3 does:
//
//   - An address whose domain alone is not ASCII gets A-labels.
//   - Another address that is not ASCII becomes the name of an empty group, encoded:
//     readers show it, and cannot reply to it.
//   - A further field is renamed to Downgraded-…, its value encoded.
//
// A signed message (DKIM-Signature), an author or sender that would become a group
// (From, Sender), and fields that a reader depends on (Message-ID, Content-…) cannot
// be converted: the error is a permanent [*mailer.Failure] with 5.6.7. So is that of a
// message that would become larger than four times its size and 64 KiB. When ctx ends,
// the error is that of the context. It asks reserve before it makes the octets. Content
// that needs no conversion is returned as it is.
func ASCIIHeader(ctx context.Context, c mailer.Content, reserve Reserve) (mailer.Content, error) {
	if !c.UTF8Header {
		return c, nil
	}
	return Convert(ctx, c, Form{ASCIIHeader: true}, reserve)
}

// needsSMTPUTF8 returns the failure of a message that only a relay with SMTPUTF8 can
// take (RFC 6531 §3.5).
func needsSMTPUTF8(text string) error {
	return &mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageCompose, Reply: mailer.Reply{Enhanced: "5.6.7"}, Text: text}
}

// downgradeWithin is downgrade within the limits of the conversion.
func (f *rawField) downgradeWithin(g *growth) error {
	err := g.rewriting(f)
	if err == nil {
		if !f.downgrade() {
			return needsSMTPUTF8("the field " + printableName(f.name) + " cannot do without UTF-8")
		}
		err = g.replace(len(f.raw), len(f.text))
	}
	if isLimit(err) {
		return needsSMTPUTF8(err.Error())
	}
	return err
}

// downgrade rewrites the field in ASCII. It returns false where that would take its
// meaning away.
func (f *rawField) downgrade() bool {
	value := f.value()
	switch key := strings.TrimPrefix(f.key, "resent-"); {
	case isAddressField(f.key):
		w := addressFieldWriter{charset: "utf-8", name: f.name, ascii: true}
		w.field(value)
		isAuthor := key == "from" || key == "sender"
		if isAuthor && w.groups > 0 {
			return false
		}
		if w.unclear || !mailer.IsASCII(strings.Join(w.words, "")) {
			if isAuthor {
				return false
			}
			w.words = append(encodedWords("utf-8", value, wordRoom(f.name)), " :;")
		}
		f.text = appendHeaderField(nil, f.name, w.words)
	case key == "message-id", key == "date", key == "mime-version", strings.HasPrefix(key, "content-"):
		return false
	default:
		name := "Downgraded-" + f.name
		f.text = appendHeaderField(nil, name, encodedWords("utf-8", value, wordRoom(name)))
	}
	return true
}

// internationalAddress writes an address that is not ASCII, in its angle brackets
// where it has them, so that it is.
func (w *addressFieldWriter) internationalAddress(s string) {
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
	w.groups++
	w.unclear = w.unclear || w.inGroup || !strings.Contains(bare, "@")
	if s != bare { // the name before it is encoded, too, and would run into it
		s = " " + s
	}
	w.words = append(w.words, encodedWords("utf-8", s, wordRoom(w.name))...)
	w.word(":;")
}

package relays

import (
	"strings"
	"sync"
	"unicode"

	"mailsidecar/mailer"
)

// words is a reply, prepared for rules.
type words struct {
	stage    mailer.Stage
	code     int
	enhanced string // the relay's, or the one that stands in its words, such as "(#5.7.1)"
	// text has the words in lower case with one blank before and after each. An address
	// is "@". URLs, quotations and names of hosts are left out: their words say nothing.
	text   string
	begin  beginnings // of the words of text
	raw    string     // the text in lower case
	spoken string     // raw without addresses, URLs and quotations
	of     string     // of whom the reply speaks: ofUs or ofRecipient
	own    *words     // what the relay says itself, where it passes on what another server said; else nil
}

const (
	ofUs        = "us"
	ofRecipient = "recipient"
)

// maxText limits the octets of a reply's text that are looked at, as
// [mailer.Reply.Text] does.
const maxText = 500

// newWords prepares a reply.
func newWords(stage mailer.Stage, r mailer.Reply) words {
	if len(r.Text) > maxText {
		r.Text = r.Text[:maxText]
	}
	w := words{stage: stage, code: r.Code, enhanced: r.Enhanced, raw: strings.ToLower(r.Text)}
	if w.enhanced == "" {
		w.enhanced = enhancedWithin(w.raw, r.Code)
	}
	w.read()
	return w
}

// read reads the words of raw.
func (w *words) read() {
	w.spoken = withoutQuoted(w.raw)
	w.text = withoutBoilerplate(plainWords(w.spoken))
	w.begin = beginningsOf(w.text)
	w.of = w.whom()
}

// plainWords returns the words of a text without quotations, each between blanks, see
// [words].
func plainWords(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 2)
	b.WriteByte(' ')
	for token := range strings.FieldsSeq(text) {
		if token == "@" {
			b.WriteString("@ ")
			continue
		}
		token = strings.TrimLeft(token, `([{<'"`)
		host := hostIn(token)
		writeHost(&b, host)
		if rest := token[len(host):]; host == "" || !strings.HasPrefix(rest, "/") { // not an URL
			writeWords(&b, rest)
		}
	}
	return b.String()
}

// writeWords writes the letters and digits of a token, with one blank in place of
// whatever stands between them. An apostrophe within a word is left out.
func writeWords(b *strings.Builder, token string) {
	inWord := false
	for i, c := range token {
		switch {
		case unicode.IsLetter(c), unicode.IsDigit(c):
			b.WriteRune(c)
			inWord = true
		case c == '\'' && inWord && i+1 < len(token):
		case inWord:
			b.WriteByte(' ')
			inWord = false
		}
	}
	if inWord {
		b.WriteByte(' ')
	}
}

// boilerplate is what RFC 5321 §4.2.2 suggests to say with a code, which some relays
// say before their own words whatever those are.
var boilerplate = []string{
	" requested action not taken mailbox unavailable ", " requested mail action not taken mailbox unavailable ",
	" requested mail action aborted exceeded storage allocation ", " requested action aborted local error in processing ",
	" requested action aborted error in processing ", " requested action not taken mailbox name not allowed ",
	" requested action not taken ", " transaction failed ",
}

// withoutBoilerplate cuts boilerplate off the front, where other words follow.
func withoutBoilerplate(text string) string {
	for _, phrase := range boilerplate {
		if rest, ok := strings.CutPrefix(text, phrase); ok && len(rest) > 2 {
			return " " + rest
		}
	}
	return text
}

// enhancedWithin returns the enhanced status code among the words of a text, as qmail
// and IronPort say it; empty where there is none of the code's class.
func enhancedWithin(text string, code int) string {
	for token := range strings.FieldsSeq(text) {
		token = strings.Trim(token, "()[]#:;,.")
		class, numbers, ok := strings.Cut(token, ".")
		subject, detail, ok2 := strings.Cut(numbers, ".")
		if ok && ok2 && len(class) == 1 && int(class[0]-'0') == code/100 && isNumber(subject) && isNumber(detail) {
			return token
		}
	}
	return ""
}

func isNumber(s string) bool {
	return len(s) > 0 && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}

// What relays say of a recipient and its mailbox, what they say of us, and what may be
// said of either. Own words count more than the weak ones about a recipient: "Email
// account user@example.org is sending too many emails".
const (
	surelyRecipient = "the recipient has|the recipient is|the recipient s |recipient s mailbox|recipients mailbox|the recipients mailbox|trying to contact|trying to reach|tried to reach|" +
		"recipient mailbox|recipient has exceeded|recipient overquota|recipient over quota|recipient is over|recipient rejected|recipient unavailable|recipient temporarily|recipient unknown|" +
		"to this recipient|to this user|to this mailbox|this mailbox|local mailbox|mailbox for user|mailbox of user|mailbox full|mailbox is full|inbox full|inbox is full|" +
		"mailbox not found|invalid mailbox|mailbox over|mailbox is over|mailbox has exceeded|mailbox exceeded|mailbox quota|mailbox size|mailbox disabled|mailbox is disabled|mailbox unavailable|mailbox is inactive|mailbox currently|" +
		"user is over|user over|user overquota|user unknown|unknown user|no such user|user doesnt have|user is receiving|user account disabled|user disabled|user is disabled|user quota exceeded|user has too many|user mailbox|" +
		"rejected by recipient|receiving mail|messages they can receive|can receive per|not receiving|over quota for recipient|boite du destinataire|boite pleine|boite aux lettres|destinataire|destinatario|empfanger|empfänger|postfach|" +
		"addressee|restrictedtogroup|restrictedtorecipient|not permitted to send to the|notforgroup|senderauthenticated|sendernotauthenticatedfor|resolver rst|adr recipient|messages to @ |mail to @ |storedrv deliver|recipient has |recipient is |incoming mail|incoming messages|" +
		"unrouteable address|unroutable address|no such person|no such address"
	surelyUs = "sender|sending|send more|send limit|sent|outgoing|outbound|submission|your account|your ip|your domain|your plan|your daily|your hourly|your monthly|your quota|your limit|your organi|your mailbox|" +
		"your subscription|your server|your host|your smtp|your package|your messaging|your email quota|your mail quota|your free|your trial|your current|your client|customer|relay limit|client |smtp relay|authenticated|you have|youve|you are sending|you exceeded|you reached|you must|" +
		"you are over|from address|mail from|from your|rcpts per|recipients per|recipient limit|recipients limit|message recipients|unique recipients|number of relays|relays per|rate limit exceeded for user|daily limit|hourly limit|monthly limit|outgoing limit|outgoing limits|ratelimit|clientsubmit|messages per|mails per|emails per|mail per|email per|submit|" +
		"absender|ihr konto|votre compte|su cuenta|envoi|envios|enviados|versand|versendet|quota of sent|organization queue"
	notRecipient   = "sending mailbox|sender mailbox|your mailbox|sent items|sent messages|sender verify|sender address"
	maybeRecipient = "mailbox|recipient|user |users |inbox|rcpt to"
)

// whomWords are these words, read when a reply is first judged.
var whomWords = sync.OnceValue(func() (c struct{ recipient, notRecipient, us, maybeRecipient condition }) {
	c.recipient, c.notRecipient = newCondition(surelyRecipient), newCondition(notRecipient)
	c.us, c.maybeRecipient = newCondition(surelyUs), newCondition(maybeRecipient)
	return c
})

// whom tells of whom a reply speaks.
func (w *words) whom() string {
	subject := strings.TrimLeft(w.enhanced, "45")
	said := *w
	if strings.HasPrefix(subject, ".7.") { // a policy of Postfix, not the address
		if text := strings.Replace(w.text, " @ recipient address rejected ", " ", 1); text != w.text {
			said.text, said.begin = text, beginningsOf(text)
		}
	}
	return said.whomBy(subject)
}

// whomBy is whom, with the subject and the detail of the enhanced status code.
func (w *words) whomBy(subject string) string {
	known := whomWords()
	switch {
	case w.stage == mailer.StageRcpt && w.own != nil:
		return ofRecipient
	case w.hasAny(known.recipient) && !w.hasAny(known.notRecipient):
		return ofRecipient
	case w.hasAny(known.us):
		return ofUs
	case strings.HasPrefix(subject, ".1.") && subject != ".1.7" && subject != ".1.8" && subject != ".1.90", strings.HasPrefix(subject, ".2."):
		return ofRecipient
	case w.stage < mailer.StageRcpt:
		return ofUs
	case w.hasAny(known.maybeRecipient):
		return ofRecipient
	case w.stage == mailer.StageRcpt && strings.HasPrefix(w.text, " @ ") && !strings.HasPrefix(subject, ".7."):
		return ofRecipient
	default:
		return ofUs
	}
}

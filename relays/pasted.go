package relays

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"mailsidecar/mailer"
)

// Pasted is a reply that was found in a line of a log, an answer or a mail.
type Pasted struct {
	Reply mailer.Reply
	// Stage is where in the dialogue it came. Guessed says that the line does not tell.
	Stage   mailer.Stage
	Guessed bool
	// Host is the relay's where the line names a known one; empty where it does not.
	Host string
	// ID, ForwardPath and Relay are those of a line of our log; empty in any other.
	ID, ForwardPath, Relay string
}

// FindReply finds the reply of a relay in a text that a person has: the reply itself, of
// one or more lines; a line of our log, of Postfix or Exim; a message of a client; one
// of our answers in JSON. ok is false where there is none. Time is linear in the text.
func FindReply(text string) (p Pasted, ok bool) {
	for _, from := range []func(string) (Pasted, bool){fromJSON, fromLog, fromPHPMailer, fromWords} {
		if p, ok = from(text); ok {
			break
		}
	}
	if !ok {
		return Pasted{}, false
	}
	p.Host = hostNamed(text)
	p.Reply.Text = mailer.Printable(p.Reply.Text, maxText)
	if p.Stage == mailer.StageCompose {
		p.Stage, p.Guessed = guessStage(p.Reply), true
	}
	return p, true
}

// isRefusal reports whether a code is one that needs an explanation.
func isRefusal(code int) bool { return code >= 400 && code < 560 || code == 571 || code == 254 }

// fromWords finds a code that begins a reply, and takes what follows for its text.
func fromWords(text string) (Pasted, bool) {
	begin := replyAt(text)
	if begin < 0 {
		return Pasted{}, false
	}
	code, _ := strconv.Atoi(text[begin : begin+3])
	said, context := cutContext(text[begin+3:])
	p := Pasted{Reply: mailer.Reply{Code: code}, Stage: stageSaid(text[:begin] + " " + context)}
	p.Reply.Enhanced, p.Reply.Text = joined(said, code)
	return p, strings.TrimSpace(text[:begin]) != "" || !isCount(p)
}

// isCount reports whether a text of which nothing stands before the code is a number of
// things, as in "550 orders were placed".
func isCount(p Pasted) bool {
	word, _, _ := strings.Cut(p.Reply.Text, " ")
	plural := len(word) > 3 && strings.HasSuffix(word, "s") && !strings.HasSuffix(word, "ss") && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") == ""
	if p.Reply.Enhanced != "" || !plural {
		return false
	}
	text := strings.ToLower(p.Reply.Text)
	return !Judge("", guessStage(p.Reply), p.Reply, time.Time{}).Known && !slices.ContainsFunc(refusing[:], func(w string) bool { return strings.Contains(text, w) })
}

// refusing are words of which a refusal has one, whatever else it says.
var refusing = [...]string{"refus", "reject", "denied", "block", "not ", "no ", "unable", "cannot", "can't", "fail", "invalid", "unknown", "limit", "exceed", "spam", "policy", "must", "error", "too ", "only", "disabled", "unavailable"}

// maxBefore limits the octets before a code that are looked at.
const maxBefore = 100

// replyAt returns where the first reply code stands that has words of a reply behind it;
// -1 where there is none.
func replyAt(text string) int {
	for i := 0; i+3 <= len(text); i++ {
		if !isCode(text[i:i+3]) || i > 0 && !mayPrecede(text[max(0, i-maxBefore):i]) {
			continue
		}
		rest := text[i+3:]
		if rest == "" && strings.TrimSpace(text[:i]) == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "-") || isTuple(rest) {
			return i
		}
	}
	return -1
}

func isCode(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	code, _ := strconv.Atoi(s)
	return isRefusal(code)
}

// mayPrecede reports whether a reply may follow the text: no number, name or port goes
// on, and it is no port or size in words.
func mayPrecede(before string) bool {
	last := before[len(before)-1]
	if !strings.ContainsRune(" \t\n\"'(<>=:,;`*|[{", rune(last)) {
		return false
	}
	word := strings.ToLower(strings.TrimRight(before, " \t:=\"'"))
	bare := strings.ToLower(strings.TrimRight(before, " \t\n"))
	for _, no := range []string{"port", "size", "pid", "uid", "line", "length", "bytes"} {
		if strings.HasSuffix(word, no) {
			return false
		}
	}
	if !mayIntroduce(bare) {
		return false
	}
	return last != ':' || len(before) < 2 || !strings.ContainsRune("0123456789]", rune(before[len(before)-2]))
}

// introductions are words behind which a reply may stand without a colon.
var introductions = []string{"code", "status", "reply", "replied", "response", "responded", "answer", "answered", "said", "says", "error", "server", "returned", "with", "smtp", "got", "rejected", "failed", "refused"}

// mayIntroduce reports whether a text ends as what stands before a reply: not with any
// word or number, as in "order 550 was placed".
func mayIntroduce(before string) bool {
	word := before[strings.LastIndexAny(before, " \t\n")+1:]
	if strings.Trim(word, "0123456789") == "" {
		return word == ""
	}
	return strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") != "" || slices.Contains(introductions, word)
}

// isTuple reports whether rest is that of a reply as Python prints it: (550, b'…').
func isTuple(rest string) bool {
	rest, ok := strings.CutPrefix(rest, ",")
	rest = strings.TrimLeft(rest, " b")
	return ok && (strings.HasPrefix(rest, "'") || strings.HasPrefix(rest, "\""))
}

// cutContext cuts off what a program says behind the reply.
func cutContext(text string) (said, context string) {
	for _, mark := range []string{"(in reply to", "(in response to", "in reply to end of", "in reply to RCPT", "in reply to MAIL"} {
		if i := strings.Index(text, mark); i >= 0 {
			return text[:i], text[i:]
		}
	}
	return text, ""
}

// joined returns the enhanced status code and the words of a reply whose lines may each
// begin with the code, as a relay sends them or as a program has joined them.
func joined(text string, code int) (enhanced, words string) {
	text = strings.NewReplacer(`\r`, " ", `\n`, " ").Replace(text)
	number := strconv.Itoa(code)
	var kept []string
	first := true
	for i, word := range strings.Fields(strings.TrimLeft(text, "-,:")) {
		if i == 0 {
			word = strings.TrimLeft(strings.TrimPrefix(word, "b'"), `'"`)
		}
		if rest, ok := strings.CutPrefix(word, number+"-"); ok {
			word, first = rest, true
		} else if word == number {
			first = true
			continue
		}
		if first && isEnhanced(word, code) {
			enhanced, first = word, false
			continue
		}
		first = first && word == ""
		if word != "" {
			kept = append(kept, word)
		}
	}
	return enhanced, withoutClosing(strings.Join(kept, " "))
}

// withoutClosing cuts off quotes and brackets that were opened before the reply.
func withoutClosing(text string) string {
	closing := strings.Count(text, ")") - strings.Count(text, "(")
	for {
		text = strings.TrimRight(text, `'",`)
		if closing <= 0 || !strings.HasSuffix(text, ")") {
			return text
		}
		text, closing = text[:len(text)-1], closing-1
	}
}

// isEnhanced reports whether word is an enhanced status code of the code's class.
func isEnhanced(word string, code int) bool {
	return word != "" && enhancedWithin(word, code) == word
}

// stagesSaid are words that tell where in the dialogue a reply came, in lower case. The
// first that occurs counts.
var stagesSaid = []struct {
	words string
	stage mailer.Stage
}{
	{"end of data", mailer.StageContent},
	{"data end command", mailer.StageContent},
	{"message failed", mailer.StageContent},
	{"smtpdataerror", mailer.StageContent},
	{"content:", mailer.StageContent},
	{"stage=content", mailer.StageContent},
	{"rcpt", mailer.StageRcpt},
	{"recipients were rejected", mailer.StageRcpt},
	{"recipients failed", mailer.StageRcpt},
	{"recipientsrefused", mailer.StageRcpt},
	{"onrecipientnotaccepted", mailer.StageRcpt},
	{"mail from", mailer.StageMail},
	{"mail command", mailer.StageMail},
	{"smtpsenderrefused", mailer.StageMail},
	{"mail:", mailer.StageMail},
	{"data command", mailer.StageData},
	{"data:", mailer.StageData},
	{"smtpauthenticationerror", mailer.StageAuth},
	{"invalid login", mailer.StageAuth},
	{"could not authenticate", mailer.StageAuth},
	{"auth", mailer.StageAuth},
	{"starttls", mailer.StageStartTLS},
	{"ehlo", mailer.StageEHLO},
	{"helo", mailer.StageEHLO},
	{"greeting", mailer.StageGreeting},
	{"initial connection", mailer.StageGreeting},
	{"refused to talk to me", mailer.StageGreeting},
}

// stageSaid returns the stage that the words around a reply tell; [mailer.StageCompose]
// where they do not.
func stageSaid(around string) mailer.Stage {
	around = strings.ToLower(around)
	for _, s := range stagesSaid {
		if strings.Contains(around, s.words) {
			return s.stage
		}
	}
	return mailer.StageCompose
}

// guessStage returns the stage at which relays mostly say that.
func guessStage(r mailer.Reply) mailer.Stage {
	if r.Code == 503 && contains(r, "auth") {
		return mailer.StageAuth
	}
	switch r.Code {
	case 534, 535, 538, 454, 435, 525, 526:
		if !contains(r, "throttling") && !contains(r, "envelope") {
			return mailer.StageAuth
		}
	case 421, 501, 502, 503, 504, 530, 555, 432:
		return mailer.StageMail
	}
	w := newWords(mailer.StageContent, r)
	if w.of == ofRecipient || strings.HasPrefix(w.text, " @ ") {
		return mailer.StageRcpt
	}
	return mailer.StageContent
}

// fromLog reads a line of our log as text: code=550 enhanced_code=5.7.1 text="…".
func fromLog(line string) (Pasted, bool) {
	code, _ := strconv.Atoi(logValue(line, "code"))
	if !isRefusal(code) {
		return Pasted{}, false
	}
	p := Pasted{Reply: mailer.Reply{Code: code, Enhanced: logValue(line, "enhanced_code"), Text: logValue(line, "text")}}
	p.ID, p.ForwardPath, p.Relay = logValue(line, "id"), logValue(line, "forward_path"), logValue(line, "relay")
	p.Stage = stageCalled(logValue(line, "stage"))
	return p, true
}

// logValue returns the value of a key in a line of the log as text; empty where it is not
// there.
func logValue(line, key string) string {
	_, rest, ok := strings.Cut(" "+line, " "+key+"=")
	if !ok {
		return ""
	}
	if quoted, err := strconv.QuotedPrefix(rest); err == nil {
		value, _ := strconv.Unquote(quoted)
		return value
	}
	value, _, _ := strings.Cut(rest, " ")
	return value
}

// stageCalled returns the stage of that name; [mailer.StageCompose] where there is none.
func stageCalled(name string) mailer.Stage {
	for s := mailer.StageConnect; s <= mailer.StageContent; s++ {
		if s.String() == name {
			return s
		}
	}
	return mailer.StageCompose
}

// fromJSON reads one of our answers, or a line of our log.
func fromJSON(text string) (Pasted, bool) {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return Pasted{}, false
	}
	var value any
	if json.Unmarshal([]byte(text), &value) != nil {
		return Pasted{}, false
	}
	return within(value, 0)
}

// maxNesting limits how deep an answer is looked into.
const maxNesting = 8

// within finds the first refusal in a value of JSON, the last attempt first.
func within(value any, depth int) (Pasted, bool) {
	switch v := value.(type) {
	case []any:
		for i := len(v) - 1; i >= 0 && depth < maxNesting; i-- {
			if p, ok := within(v[i], depth+1); ok {
				return p, true
			}
		}
	case map[string]any:
		if p, ok := fromFields(v); ok {
			return p, true
		}
		for _, key := range []string{"failure", "recipients", "attempts", "results", "relays", "messages", "error"} {
			if p, ok := within(v[key], depth+1); ok && depth < maxNesting {
				return p, true
			}
		}
	}
	return Pasted{}, false
}

func fromFields(fields map[string]any) (Pasted, bool) {
	code, ok := fields["reply_code"].(float64)
	if !ok {
		code, _ = fields["code"].(float64)
	}
	if !isRefusal(int(code)) {
		return Pasted{}, false
	}
	p := Pasted{Reply: mailer.Reply{Code: int(code)}}
	p.Reply.Enhanced, _ = fields["enhanced_code"].(string)
	p.Reply.Text, _ = fields["text"].(string)
	p.ID, _ = fields["id"].(string)
	p.ForwardPath, _ = fields["forward_path"].(string)
	p.Relay, _ = fields["relay"].(string)
	stage, _ := fields["stage"].(string)
	p.Stage = stageCalled(stage)
	return p, true
}

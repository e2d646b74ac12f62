package smtp

import (
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

// refusals remembers with which words the relay has refused mail since it took some
// last. A relay that refuses everything, such as for a quota in words that no rule of
// [relays] has, says the same to each message, and by its code each would bounce. So a reply counts as
// permanent only until another message meets the same words that has nothing to do with
// the first: another message, to another domain, and no mail was taken in between. That
// one and all that follow are kept ([mailer.ErrRefusesMany]), until the relay takes
// any mail.
//
// The first one has bounced by then. It is not kept in case that another follows: that
// would put off each ordinary bounce, and on a quiet server nothing ever confirms it.
// A person can send it again.
//
// Replies with a known meaning do not count, nor those that are plainly about the
// recipient or the message, see mayMeanAll: what many of a list's recipients get is no
// sign of trouble.
type refusals struct {
	mu    sync.Mutex
	texts []refusedWith // that met last is last
}

// refusedWith is a reply, and the messages that met it: one, or two that have nothing to
// do with each other.
type refusedWith struct {
	words uint64 // hash
	met   []refusedMessage
	last  time.Time
}

// refusedMessage holds hashes.
type refusedMessage struct{ id, domain uint64 }

const (
	// maxRefusals limits the replies that are remembered. What was met least recently
	// is forgotten.
	maxRefusals = 16
	// refusalMemory is how long a reply is remembered that nothing meets any more.
	refusalMemory = 24 * time.Hour
)

// doubtRefusals takes back the refusals that may be about all mail.
func (r *Relay) doubtRefusals(content mailer.Content, results []mailer.Result) {
	if slices.ContainsFunc(results, func(result mailer.Result) bool { return result.Failure == nil }) {
		r.refusals.forget()
		return
	}
	var doubtful []*mailer.Result
	for i := range results {
		if r.mayMeanAll(results[i].Failure) {
			doubtful = append(doubtful, &results[i])
		}
	}
	for _, result := range r.refusals.meetAll(messageHash(content), doubtful, time.Now()) {
		kept := *result.Failure
		kept.Class, kept.Err = mailer.ClassTransient, errors.Join(mailer.ErrRefusesMany, kept.Err)
		kept.Cause = "The relay refuses unrelated messages with these words, and has taken no mail since the first of them: it may refuse all mail, or all of this sender."
		kept.Remedy = "Look for the reason in the account at the relay. The first message that got this reply has bounced: mailsidecar queue retry sends it again."
		result.Failure = &kept
	}
}

// forget forgets all replies, because the relay has taken mail.
func (l *refusals) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.texts = nil
}

// meetAll records that a message met these refusals, and returns those that another one
// has met that has nothing to do with it. Any of its recipients may show that, and then
// it holds for those before it, too.
func (l *refusals) meetAll(id uint64, results []*mailer.Result, now time.Time) []*mailer.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		l.meets(id, r, now)
	}
	return slices.DeleteFunc(results, func(r *mailer.Result) bool { return !l.meets(id, r, now) })
}

// meets records that a message met a reply for a recipient, and reports whether another
// message has met it that has nothing to do with this one. The caller holds the lock.
func (l *refusals) meets(id uint64, r *mailer.Result, now time.Time) bool {
	reply := r.Failure.Reply
	m := refusedMessage{id: id, domain: hash(mailer.Lower(r.ForwardPath[strings.LastIndexByte(r.ForwardPath, '@')+1:]))}
	words := hash(reply.Enhanced, refusalWords(reply.Text), strconv.Itoa(reply.Code))
	l.texts = slices.DeleteFunc(l.texts, func(t refusedWith) bool { return now.Sub(t.last).Abs() > refusalMemory })
	t := refusedWith{words: words}
	if i := slices.IndexFunc(l.texts, func(t refusedWith) bool { return t.words == words }); i >= 0 {
		t = l.texts[i]
		l.texts = slices.Delete(l.texts, i, i+1)
	}
	t.last = now
	if len(t.met) == 0 || len(t.met) == 1 && t.met[0].id != m.id && t.met[0].domain != m.domain {
		t.met = append(t.met, m)
	}
	l.texts = append(l.texts, t)
	l.texts = l.texts[max(0, len(l.texts)-maxRefusals):]
	return len(t.met) > 1
}

func messageHash(c mailer.Content) uint64 {
	if c.MessageID != "" {
		return hash(c.MessageID)
	}
	h := fnv.New64a()
	h.Write(c.Data)
	return h.Sum64()
}

func hash(texts ...string) uint64 {
	h := fnv.New64a()
	for _, text := range texts {
		h.Write([]byte(text))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// mayMeanAll reports whether a refusal may be about all mail: no rule of [relays] knows
// its meaning, and its words and codes are not about the recipient (RFC 3463 §3.2: X.1.1 to X.1.6, X.1.10; §3.3
// at RCPT: the mailbox; X.4.4: its domain) or the message (X.6, X.3.4). X.1.7 and X.1.8
// are about the sender, and X.1.0 says nothing. 500–504 and 555 are about a command.
func (r *Relay) mayMeanAll(f *mailer.Failure) bool {
	reply := f.Reply
	switch {
	case f.Class != mailer.ClassPermanent, f.OnlyHere(), f.Stage < mailer.StageMail, reply.Code/100 != 5:
		return false
	case reply.Code <= 504, reply.Code == 555, reply.Code == 556:
		return false
	}
	subject, detail, _ := strings.Cut(strings.TrimPrefix(reply.Enhanced, "5."), ".")
	switch {
	case subject == "1" && detail != "0" && detail != "7" && detail != "8",
		subject == "2" && f.Stage == mailer.StageRcpt,
		subject == "4" && detail == "4",
		subject == "3" && detail == "4",
		subject == "6":
		return false
	}
	j := relays.Judge(r.opts.Host, f.Stage, reply, time.Now())
	return !j.Known && !j.OfRecipient && !saysNoSuch(reply)
}

// saysNoSuch reports whether a reply says that something does not exist, in words of
// which the table does not know what they are said of: that may be a recipient, and is
// no quota.
func saysNoSuch(r mailer.Reply) bool {
	text := strings.ToLower(r.Text)
	return slices.ContainsFunc([]string{"no such", "unknown", "does not exist", "doesn't exist", "unrout", "not found"}, func(words string) bool {
		return strings.Contains(text, words)
	})
}

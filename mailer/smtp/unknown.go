package smtp

import (
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"mailsidecar/mailer"
)

const (
	// maxUnknown limits how many unknown replies a relay remembers to have logged.
	maxUnknown = 200
	// maxOfKind limits how many texts with the same stage and code are logged in an hour,
	// and maxUnknownLines how many there are of all: a relay may have new words for each
	// message.
	maxOfKind, maxUnknownLines = 5, 50
)

// unknownReplies are the replies that no rule of the table knows, so that each is logged
// once. When there are too many, all are forgotten.
type unknownReplies struct {
	mu     sync.Mutex
	seed   maphash.Seed
	logged map[uint64]struct{} // hashes of stage, code and words; nil until there is one

	since  time.Time      // when the hour began
	ofKind map[string]int // lines since then, by stage and code
	lines  int            // of all
}

// isNew reports whether a reply is to be logged: its words were not logged yet, and not too
// many others were in this hour. It notes that.
func (u *unknownReplies) isNew(f *mailer.Failure, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	kind := f.Stage.String() + strconv.Itoa(f.Reply.Code)
	if now.Sub(u.since).Abs() >= time.Hour {
		u.since, u.ofKind, u.lines = now, map[string]int{}, 0
	}
	if u.ofKind[kind] >= maxOfKind || u.lines >= maxUnknownLines {
		return false
	}
	if !u.notes(kind, f) {
		return false
	}
	u.ofKind[kind]++
	u.lines++
	return true
}

// notes reports whether the words of a reply were not logged yet, and notes them.
func (u *unknownReplies) notes(kind string, f *mailer.Failure) bool {
	if u.logged == nil || len(u.logged) >= maxUnknown {
		u.seed, u.logged = maphash.MakeSeed(), map[uint64]struct{}{}
	}
	key := maphash.String(u.seed, kind+f.Reply.Enhanced+refusalWords(f.Reply.Text))
	_, known := u.logged[key]
	u.logged[key] = struct{}{}
	return !known
}

// logUnknown logs a reply that no rule of the table knows, once for each text, and few
// of a kind. So people
// can report it.
func (r *Relay) logUnknown(f *mailer.Failure) {
	if r.unknown.isNew(f, time.Now()) {
		r.opts.Logger.Info("unknown reply", "relay", r.opts.Name, "stage", f.Stage.String(),
			"code", f.Reply.Code, "enhanced_code", f.Reply.Enhanced, "text", f.Reply.Text, "class", f.Class.String())
	}
}

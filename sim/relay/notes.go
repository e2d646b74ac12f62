package relay

import (
	"strconv"
	"strings"
	"time"
)

// Notes are what the relay remembers of a history.
type Notes struct {
	Said   []Said
	Mails  []Transaction
	Takes  []Take
	Logins []Login
	// Foreign are faults of the client that need no model to be seen: what it sent in a
	// content that does not belong there.
	Foreign []string
}

// Said is a reply. Its place in Notes.Said stands in its text.
type Said struct {
	At    time.Time
	Stage Stage
	Code  int
	// Quota says that it is one whose meaning is known: no judgement of the mail.
	Quota bool
	// Path is the forward-path that it is about; empty: all of the transaction.
	Path string
	// Transaction is the place in Notes.Mails; -1 where there is none.
	Transaction int
	// Paths are those that a reply to the content or to DATA is about.
	Paths []string
	// Stray says that it answers no command.
	Stray bool
}

// Transaction is what began with a MAIL.
type Transaction struct {
	At          time.Time
	ReversePath string
	Paths       []string // of all RCPT
	Conn        int
	Ahead       bool      // MAIL came before the relay was ready for it
	After       time.Time // when the relay read the command or the dot before it; zero: there was none
	Content     bool      // a part of its content came, or all
	Opened      time.Time // when its connection was
	Instance    int       // that sent it
	Begun       time.Time // when the first octet of its content came; zero: none did
	Ended       time.Time // when its final dot came; zero: it did not
	Over        time.Time // when the relay had done with it, or its connection ended; zero: the client does not learn that
}

// Take is a message for one recipient for which the relay is responsible from then on.
type Take struct {
	At          time.Time
	Path        string
	Transaction int
	Said        int  // place of its reply in Notes.Said; -1: it said nothing
	Told        bool // the reply was sent
}

// Login is an AUTH command.
type Login struct {
	At       time.Time
	Accepted bool
	Refused  bool // by a 5yz; neither: undecided
	Conn     int
	Instance int       // that sent it
	Over     time.Time // when the relay had replied to it, or its connection ended; zero: nobody learns that
}

// Notes returns what the relay remembers.
func (r *Relay) Notes() Notes {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notes
}

// Serial is the text of the n-th reply of the relay.
func (r *Relay) serial(n int) string { return r.opts.Name + "-" + strconv.Itoa(n) }

// Serial finds the relay's name and the place of the reply in its text; ok is false
// where there is none.
func Serial(text string) (name string, n int, ok bool) {
	for word := range strings.FieldsSeq(text) {
		before, number, found := strings.Cut(word, "-")
		if !found {
			continue
		}
		if n, err := strconv.Atoi(number); err == nil {
			return before, n, true
		}
	}
	return "", 0, false
}

package service

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"mailsidecar/mailer"
)

// refusedSenders remembers which reverse-paths a relay was told to refuse, so that each is
// logged once an hour. Its zero value remembers none.
type refusedSenders struct {
	mu     sync.Mutex
	logged map[string]time.Time // by reverse-path; nil until there is one
}

const (
	// senderInterval is how often a reverse-path that a relay refuses is logged.
	senderInterval = time.Hour
	// maxSenders limits the reverse-paths that are remembered, and so what is logged in an
	// hour: whoever may send from any address could fill the log.
	maxSenders = 100
)

// isDue reports whether the reverse-path is to be logged now, and notes it.
func (s *refusedSenders) isDue(reversePath string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.logged[reversePath]; ok && now.Sub(last).Abs() < senderInterval {
		return false
	}
	for other, last := range s.logged {
		if now.Sub(last).Abs() >= senderInterval {
			delete(s.logged, other)
		}
	}
	if len(s.logged) >= maxSenders {
		return false
	}
	if s.logged == nil {
		s.logged = map[string]time.Time{}
	}
	s.logged[reversePath] = now
	return true
}

// noteSender logs that a relay takes no mail of a sender. Where another relay takes it,
// nothing else would tell that the first one never does.
func (m *relayMonitor) noteSender(i int, env mailer.Envelope, a mailer.Attempt) {
	for _, r := range a.Results {
		f := r.Failure
		if f == nil || f.Stage < mailer.StageMail || !errors.Is(f.Err, mailer.ErrSenderRefused) {
			continue
		}
		reversePath := cmp.Or(a.ReversePath, env.ReversePath)
		if m.senders[i].isDue(reversePath, time.Now()) {
			found, do := f.MailAdvice()
			m.log.Warn("sender refused", "relay", m.relays[i].Name(), "reverse_path", reversePath, "stage", f.Stage.String(), "code", f.Reply.Code,
				"cause", f.Error(), "found", found, "do", do)
		}
		return
	}
}

package memory

import (
	"bytes"
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// settle derives from its recipients what a message is, and says whether it
// became final by that. The content of one that cannot be retried is dropped.
func (s *Store) settle(id string, now time.Time) bool {
	m := s.messages[id]
	if m == nil {
		return false
	}
	was, final, useless := m.final, true, true
	for _, r := range m.recipients {
		final = final && r.State.Final()
		useless = useless && r.State != queue.Bounced && r.State != queue.Expired
	}
	status := m.copy().Status()
	s.numbers.Apply(tally.Change{Key: m.Key, From: m.status, To: status})
	m.status = status
	s.unfile(m)
	switch m.final = final; {
	case !final:
		m.clock = m.Expires
	case !was:
		m.clock = now
	}
	s.file(m)
	switch {
	case !final || !useless:
	case s.opts.KeepBodies > 0:
		m.dropAt = now.Add(min(s.opts.KeepBodies, s.opts.Retention))
	default:
		m.drop()
	}
	return final && !was
}

func (m *message) drop() { m.content.Data, m.gone, m.dropAt = nil, true, time.Time{} }

// Get returns a message with its recipients and attempts.
func (s *Store) Get(ctx context.Context, key, id string) (found queue.Message, err error) {
	err = s.read(ctx, "Get", func() error {
		m, err := s.message(key, id)
		if err == nil {
			found = m.copy()
			latest, earlier := queue.LatestAttempts(m.attempts)
			found.Attempts, found.EarlierAttempts, found.Kept = slices.Clone(latest), earlier, m.kept(s.opts.Retention)
		}
		return err
	})
	return found, err
}

// kept says how long the content is kept.
func (m *message) kept(retention time.Duration) queue.Kept {
	switch until := m.clock.Add(retention); {
	case m.gone || !m.final:
		return queue.Kept{Gone: m.gone}
	case !m.dropAt.IsZero() && m.dropAt.Before(until):
		return queue.Kept{Until: m.dropAt}
	default:
		return queue.Kept{Until: until}
	}
}

// message returns the message when key may see it.
func (t *tables) message(key, id string) (*message, error) {
	m := t.messages[id]
	if m == nil || key != queue.AnyKey && key != m.Key {
		return nil, queue.ErrNotFound
	}
	return m, nil
}

// copy returns the message with its recipients.
func (m *message) copy() queue.Message {
	c := m.Message
	c.Tags = maps.Clone(c.Tags)
	c.ResentAs = slices.Clone(c.ResentAs)
	c.Envelope.ForwardPaths = slices.Clone(c.Envelope.ForwardPaths)
	for _, r := range m.recipients {
		shown := r.Recipient
		shown.SetTaken(r.route)
		c.Recipients = append(c.Recipients, shown)
	}
	return c
}

// Content returns the message's bytes, which must not be changed.
func (s *Store) Content(ctx context.Context, key, id string) (c mailer.Content, err error) {
	err = s.read(ctx, "Content", func() error {
		m, err := s.message(key, id)
		switch {
		case err != nil:
			return err
		case m.gone:
			return queue.ErrContentGone
		}
		c = m.content
		return nil
	})
	return c, err
}

// List returns a page of the messages that f selects. The cursor is the id of
// the last message on the page before.
func (s *Store) List(ctx context.Context, f queue.Filter, limit int, cursor string) (page queue.Page, err error) {
	if cursor != "" && (uuid.Validate(cursor) != nil || len(cursor) != 36) {
		return queue.Page{}, queue.ErrInvalidCursor
	}
	err = s.read(ctx, "List", func() error {
		ids := slices.Sorted(maps.Keys(s.messages))
		for _, id := range slices.Backward(ids) {
			m := s.messages[id]
			if cursor != "" && id >= cursor || !m.selected(f) {
				continue
			}
			if len(page.Messages) == limit {
				page.Next = page.Messages[limit-1].ID
				break
			}
			page.Messages = append(page.Messages, m.copy())
		}
		return nil
	})
	return page, err
}

// Count counts the messages that f selects.
func (s *Store) Count(ctx context.Context, f queue.Filter, cursor string) (n int, next string, err error) {
	page, err := s.List(ctx, f, math.MaxInt, cursor)
	return len(page.Messages), "", err
}

func (m *message) selected(f queue.Filter) bool {
	tag, tagged := m.Tags[f.TagName]
	switch {
	case f.Key != queue.AnyKey && f.Key != m.Key,
		f.Sender != "" && !strings.EqualFold(f.Sender, m.Sender),
		f.MessageID != "" && f.MessageID != m.MessageID,
		!f.HasSubject(m.Subject),
		f.TagName != "" && (!tagged || f.TagValue != "" && f.TagValue != tag),
		!f.Since.IsZero() && m.Created.Before(f.Since),
		!f.Until.IsZero() && !m.Created.Before(f.Until),
		f.Status != "" && f.Status != m.copy().Status(),
		!f.Among.Has(m.copy().Status()),
		!strings.HasPrefix(strings.ReplaceAll(m.ID, "-", ""), f.ID):
		return false
	}
	if f.State != "" && !slices.ContainsFunc(m.recipients, func(r *recipient) bool { return r.State == f.State }) {
		return false
	}
	return !f.ByRecipient() || slices.ContainsFunc(m.recipients, func(r *recipient) bool {
		return (f.Recipient == "" || strings.EqualFold(r.ForwardPath, f.Recipient)) &&
			(f.Domain == "" || strings.EqualFold(r.ForwardPath[strings.LastIndexByte(r.ForwardPath, '@')+1:], f.Domain)) &&
			(f.RecipientState == "" || r.State == f.RecipientState) && (!f.ByReply() || failedSo(r.Result.Failure, f))
	})
}

func failedSo(failure *mailer.Failure, f queue.Filter) bool {
	if failure == nil {
		return false
	}
	text := failure.Reply.Text
	if failure.Reply.Code == 0 {
		text = failure.Text
	}
	return (f.Relay == "" || f.Relay == failure.Relay) && (f.ReplyCode == 0 || f.ReplyCode == failure.Reply.Code) &&
		(f.EnhancedCode == "" || f.EnhancedCode == failure.Reply.Enhanced) && (f.Text == "" || tally.Matches(f.Text, text)) && (!f.NoText || text == "")
}

// Retry makes what did not go out due again.
func (s *Store) Retry(ctx context.Context, key string, ids []string, now time.Time) (changed []string, err error) {
	err = s.write(ctx, "Retry", func() error {
		for _, id := range ids {
			if m, err := s.message(key, id); err == nil && s.retry(m, now) {
				changed = append(changed, id)
			}
		}
		return nil
	})
	return changed, err
}

func (s *Store) retry(m *message, now time.Time) bool {
	retried := false
	for _, r := range m.recipients {
		if m.gone || r.owner != "" || r.State == queue.Queued || r.State == queue.Delivered || r.State == queue.Canceled {
			continue
		}
		s.update(r, func() {
			if r.State != queue.Deferred && queue.TakenBy(r.route) != "" {
				r.route = queue.Unfiled
			}
			r.State, r.NextAttempt, r.tries, r.cancel = queue.Deferred, now, 0, false
		})
		retried = true
	}
	if !retried {
		return false
	}
	m.crashes = 0
	if m.lifetime == 0 {
		begin := m.Created
		if m.SendAt.After(begin) {
			begin = m.SendAt
		}
		m.lifetime = m.Expires.Sub(begin)
	}
	if again := now.Add(m.lifetime); again.After(m.Expires) {
		m.Expires = again
	}
	s.settle(m.ID, now)
	return true
}

// Cancel ends what is not final.
func (s *Store) Cancel(ctx context.Context, key, owner string, messages []queue.Withdrawal, now time.Time) (canceled []queue.Ended, err error) {
	err = s.write(ctx, "Cancel", func() error {
		for _, w := range messages {
			if m, err := s.message(key, w.ID); err == nil && !m.final {
				canceled = append(canceled, s.cancel(m, owner, w.ForwardPaths, now))
			}
		}
		return nil
	})
	return canceled, err
}

func (s *Store) cancel(m *message, owner string, withdrawn []string, now time.Time) queue.Ended {
	e := queue.Ended{ID: m.ID, Size: m.Size, ReversePath: m.Envelope.ReversePath}
	for _, r := range m.recipients {
		switch {
		case r.State.Final():
		case r.owner == "" || r.owner == owner && slices.Contains(withdrawn, r.ForwardPath):
			s.update(r, func() { r.end(queue.Canceled) })
			e.ForwardPaths = append(e.ForwardPaths, r.ForwardPath)
		default:
			r.cancel = true
		}
	}
	e.Final = s.settle(m.ID, now)
	return e
}

// Reschedule changes when a scheduled message is due.
func (s *Store) Reschedule(ctx context.Context, key, id string, sendAt time.Time, content *mailer.Content, now time.Time) (scheduled bool, err error) {
	err = s.write(ctx, "Reschedule", func() error {
		m, err := s.message(key, id)
		if err != nil {
			return err
		}
		if scheduled = m.scheduled(now); scheduled {
			s.reschedule(m, sendAt, content, now)
		}
		return nil
	})
	return scheduled, err
}

// scheduled says that the message waits for its SendAt.
func (m *message) scheduled(now time.Time) bool {
	return m.SendAt.After(now) && !slices.ContainsFunc(m.recipients, func(r *recipient) bool {
		return r.State != queue.Queued || r.attempts > 0 || r.owner != ""
	})
}

func (s *Store) reschedule(m *message, sendAt time.Time, content *mailer.Content, now time.Time) {
	if sendAt.Before(now) {
		sendAt = now
	}
	s.unfile(m)
	lifetime := m.Expires.Sub(m.SendAt)
	if m.Created.After(m.SendAt) {
		lifetime = m.Expires.Sub(m.Created)
	}
	m.SendAt, m.Expires = sendAt, sendAt.Add(lifetime)
	m.clock = m.Expires
	if content != nil {
		m.content, m.Size = *content, int64(len(content.Data))
		m.content.Data = bytes.Clone(content.Data)
	}
	s.file(m)
	for _, r := range m.recipients {
		s.update(r, func() { r.NextAttempt = sendAt })
	}
}

// Usage returns what is counted whenever a message changes.
func (s *Store) Usage(ctx context.Context) (u queue.Usage, err error) {
	err = s.read(ctx, "Usage", func() error {
		u = s.usage
		return nil
	})
	return u, err
}

// Stats returns what is counted whenever a message changes.
func (s *Store) Stats(ctx context.Context, key string, now time.Time) (stats queue.Stats, err error) {
	err = s.read(ctx, "Stats", func() error {
		var due []tally.Due
		for l, recipients := range s.waiting {
			due = append(due, tally.Due{Lane: l.lane, At: recipients[0].NextAttempt})
		}
		for _, m := range s.unfinished {
			for _, r := range m.recipients {
				if r.owner != "" && !r.NextAttempt.IsZero() {
					due = append(due, tally.Due{Lane: m.Lane(), At: r.NextAttempt})
				}
			}
		}
		stats = s.numbers.Stats(key, now, due)
		return nil
	})
	return stats, err
}

// Week returns what is counted whenever a message changes.
func (s *Store) Week(ctx context.Context, key string, now time.Time) (hours []queue.Bucket, err error) {
	err = s.read(ctx, "Week", func() error {
		hours = s.numbers.Week(key, now)
		return nil
	})
	return hours, err
}

// Sweep removes what retention no longer covers.
func (s *Store) Sweep(ctx context.Context, now time.Time, limit int) (removed int, err error) {
	err = s.write(ctx, "Sweep", func() error {
		for removed < limit && len(s.finished) > 0 && s.finished[0].clock.Before(now.Add(-s.opts.Retention)) {
			m := s.finished[0]
			s.numbers.Apply(tally.Change{Key: m.Key, From: m.status})
			delete(s.messages, m.ID)
			s.finished = s.finished[1:]
			removed++
		}
		for _, m := range s.finished {
			if removed < limit && !m.dropAt.IsZero() && !m.dropAt.After(now) {
				m.drop()
				removed++
			}
		}
		for key, r := range s.requests {
			if removed < limit && !r.expires.After(now) {
				delete(s.requests, key)
				removed++
			}
		}
		removed += s.sweepTurns(now.Add(-queue.LongestWindow))
		s.numbers.Prune(now)
		s.sweepNotes()
		return nil
	})
	return removed, err
}

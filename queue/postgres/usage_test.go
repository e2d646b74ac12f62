//go:build linux

package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mailsidecar/mailer"
	"mailsidecar/queue"
	"mailsidecar/queue/storetest"
)

// TestUsage: what is not final is known without a look at the messages, whatever happens to them, and is right again after a
// start if it was not.
func TestUsage(t *testing.T) {
	o := options(t, start(t).url())
	s := open(t, o)
	count := func() (u queue.Usage) {
		t.Helper()
		err := s.pool.QueryRow(t.Context(), s.sql(`SELECT count(*), coalesce(sum(size), 0)::bigint FROM {s}.messages WHERE NOT final`)).Scan(&u.Messages, &u.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	check := func(when string, s *Store) {
		t.Helper()
		if u, err := s.Usage(t.Context()); err != nil || u != count() || u.Messages == 0 {
			t.Errorf("%s: Usage = %+v, %v, want %+v", when, u, err, count())
		}
	}
	insert(t, s, entry("", "a@example.org"))
	check("in the beginning", s)
	now := storetest.Start
	for seed := range uint64(6) {
		now = storetest.Churn(t, s, 60+seed, now)
		check("after changes", s)
		if seed%2 == 0 {
			if _, err := write(t.Context(), s, (*tx).addUp); err != nil {
				t.Fatal(err)
			}
			check("after they were added up", s)
		}
	}
	scheduled := entry("", "a@example.org")
	scheduled.Message.SendAt = time.Now().Add(time.Hour)
	scheduled.Due = scheduled.Message.SendAt
	insert(t, s, scheduled)
	longer := mailer.Content{Data: append(scheduled.Content.Data, "more of it\r\n"...)}
	if done, err := s.Reschedule(t.Context(), queue.AnyKey, scheduled.Message.ID, time.Now().Add(2*time.Hour), &longer, time.Now()); err != nil || !done {
		t.Fatalf("Reschedule = %v, %v", done, err)
	}
	check("after another content", s)
	if _, err := s.pool.Exec(t.Context(), s.sql(`UPDATE {s}.unfinished SET messages = 1000, octets = -5`)); err != nil {
		t.Fatal(err)
	}
	check("of an instance that starts", open(t, o))
	// While nobody may look at the messages it answers.
	locked, err := s.connect(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locked.Close(context.Background()) }()
	u := count()
	for _, sql := range []string{`BEGIN`, `LOCK TABLE {s}.messages IN ACCESS EXCLUSIVE MODE`} {
		if _, err := locked.Exec(t.Context(), s.sql(sql), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Usage(t.Context()); err != nil || got != u {
		t.Errorf("Usage while the messages are locked = %+v, %v, want %+v", got, err, u)
	}
}

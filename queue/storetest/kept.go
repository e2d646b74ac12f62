package storetest

import (
	"testing"
	"time"

	"mailsidecar/queue"
)

// testKept: a look-up says how long the content is kept.
func testKept(t *testing.T, s queue.Store) {
	check := func(when string, e queue.Entry, want queue.Kept) {
		t.Helper()
		got := get(t, s, e.Message.ID).Kept
		if got.Gone != want.Gone || !got.Until.Equal(want.Until) {
			t.Errorf("%s: Kept = %+v, want %+v", when, got, want)
		}
	}
	for state, want := range map[queue.State]queue.Kept{
		queue.Delivered: {Gone: true}, queue.Canceled: {Gone: true},
		queue.Bounced: {Until: Start.Add(time.Hour + Retention)}, queue.Expired: {Until: Start.Add(time.Hour + Retention)},
	} {
		e := entry(0, "a@example.org")
		insert(t, s, e)
		check("waits", e, queue.Kept{})
		finish(t, s, e, state, Start.Add(time.Hour))
		check(string(state), e, want)
		page, err := s.List(t.Context(), queue.Filter{Key: queue.AnyKey, Status: get(t, s, e.Message.ID).Status()}, 10, "")
		if err != nil || len(page.Messages) == 0 || page.Messages[0].Kept != (queue.Kept{}) {
			t.Errorf("List = %+v, %v, want it without Kept", page, err)
		}
		if want.Gone {
			continue
		}
		if _, err := s.Retry(t.Context(), "app", []string{e.Message.ID}, Start.Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		check("retried after "+string(state), e, queue.Kept{})
	}
}

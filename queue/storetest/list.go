package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/queue"
)

// wantList compares what a filter selects, of messages that are numbered by id, the newest
// first, in pages of every length.
func wantList(t *testing.T, s queue.Store, number map[string]string, f queue.Filter, want string) {
	t.Helper()
	for _, limit := range []int{1, 2, 100} {
		got, cursor := "", ""
		for more := true; more; more = cursor != "" {
			page, err := s.List(t.Context(), f, limit, cursor)
			if err != nil {
				t.Fatalf("List(%+v) = %v", f, err)
			}
			for _, m := range page.Messages {
				got += number[m.ID]
			}
			cursor = page.Next
		}
		if got != want {
			t.Errorf("List(%+v) by %d = %s, want %s", f, limit, got, want)
		}
	}
	if n, next, err := s.Count(t.Context(), f, ""); n != len(want) || next != "" || err != nil {
		t.Errorf("Count(%+v) = %d, %q, %v, want %d", f, n, next, err, len(want))
	}
	if page, err := s.List(t.Context(), f, 1, ""); page.Next != "" || err != nil {
		if n, _, err := s.Count(t.Context(), f, page.Next); n != len(want)-1 || err != nil {
			t.Errorf("Count(%+v) behind the first = %d, %v, want %d", f, n, err, len(want)-1)
		}
	}
}

// testListByRecipient: what a filter asks of a recipient is asked of one and the same.
func testListByRecipient(t *testing.T, s queue.Store) {
	failed := mailer.Result{Failure: &mailer.Failure{Class: mailer.ClassPermanent, Relay: "one", Reply: mailer.Reply{Code: 550}}}
	number := map[string]string{}
	for i, states := range [][2]queue.State{
		{queue.Bounced, queue.Delivered},
		{queue.Delivered, queue.Bounced},
		{queue.Deferred, queue.Bounced},
		{queue.Held, queue.Canceled},
		{queue.Queued, queue.Queued},
	} {
		e := entry(time.Duration(i)*time.Minute, "Ana@Example.org", `"b@example.org"@xn--exmple-cua.org`)
		e.Message.Key = []string{"app", "other"}[i%2]
		if states[0] != queue.Queued {
			e.Owner = "me"
		}
		insert(t, s, e)
		number[e.Message.ID] = fmt.Sprint(i)
		if states[0] == queue.Queued {
			continue
		}
		o := queue.Outcome{ID: e.Message.ID, Owner: "me", Route: e.Route, At: Start, Attempts: []mailer.Attempt{{Relay: "one"}}}
		for n, path := range e.Message.Envelope.ForwardPaths {
			r := mailer.Result{ForwardPath: path}
			if states[n] == queue.Bounced {
				r.Failure = failed.Failure
			}
			o.Attempts[0].Results = append(o.Attempts[0].Results, r)
			c := queue.Change{ForwardPath: path, State: states[n]}
			if !c.State.Final() && c.State != queue.Held {
				c.Next = Start.Add(24 * time.Hour)
			}
			o.Changes = append(o.Changes, c)
		}
		record(t, s, o)
	}
	for _, tc := range []struct {
		f    queue.Filter
		want string
	}{
		{queue.Filter{Domain: "example.ORG"}, "43210"},
		{queue.Filter{Domain: "xn--EXMPLE-cua.org"}, "43210"},
		{queue.Filter{Domain: "ample.org"}, ""},
		{queue.Filter{Domain: "org"}, ""},
		{queue.Filter{Domain: "mail.example.org"}, ""},
		{queue.Filter{RecipientState: queue.Bounced}, "210"},
		{queue.Filter{RecipientState: queue.Queued}, "4"},
		{queue.Filter{RecipientState: queue.Canceled}, "3"},
		{queue.Filter{RecipientState: queue.Expired}, ""},
		{queue.Filter{Domain: "example.org", RecipientState: queue.Bounced}, "0"},
		{queue.Filter{Domain: "xn--exmple-cua.org", RecipientState: queue.Bounced}, "21"},
		{queue.Filter{Domain: "xn--exmple-cua.org", RecipientState: queue.Bounced, Status: queue.StatusPartial}, "1"},
		{queue.Filter{Recipient: "ana@example.org", Domain: "xn--exmple-cua.org"}, ""},
		{queue.Filter{Recipient: "ana@example.org", ReplyCode: 550}, "0"},
		{queue.Filter{Recipient: "ana@example.org", Domain: "example.org", RecipientState: queue.Bounced, ReplyCode: 550, Relay: "one"}, "0"},
		{queue.Filter{State: queue.Bounced, RecipientState: queue.Deferred}, "2"},
		{queue.Filter{Among: queue.SetOf(queue.StatusQueued, queue.StatusDeferred, queue.StatusHeld)}, "432"},
		{queue.Filter{Among: queue.SetOf(queue.StatusHeld), Status: queue.StatusPartial}, ""},
		{queue.Filter{Among: queue.SetOf(queue.StatusHeld, queue.StatusPartial), Sender: entry(0).Message.Sender}, "310"},
	} {
		tc.f.Key = queue.AnyKey
		wantList(t, s, number, tc.f, tc.want)
		tc.f.Key = "app"
		wantList(t, s, number, tc.f, strings.NewReplacer("1", "", "3", "").Replace(tc.want))
	}
}

// testListByID: how an id begins selects it, beside other filters.
func testListByID(t *testing.T, s queue.Store) {
	number := map[string]string{}
	var ids []string
	for i, id := range []string{
		"01a2f3c4-0000-7000-8000-000000000000", "01a2f3c4-ffff-7fff-bfff-ffffffffffff", "01a2f3c5-0000-7000-8000-000000000000", "01a30000-0000-7000-8000-000000000001",
	} {
		e := entry(time.Duration(i)*time.Minute, "ana@example.org")
		e.Message.ID, e.Message.Created = id, queue.TimeOf(id)
		insert(t, s, e)
		number[id], ids = fmt.Sprint(i), append(ids, id)
	}
	for prefix, want := range map[string]string{
		"01a2": "210", "01a2f": "210", "01a2f3c": "210", "01a2f3c4": "10", "01A2F3C4-f": "1", "01a2f3c4f": "1", "01a3": "3", "01a4": "", "0000": "", "ffff": "",
		ids[0]: "0", ids[1]: "1", ids[3]: "3", strings.ReplaceAll(ids[2], "-", ""): "2",
	} {
		digits, err := queue.ParseIDPrefix(prefix)
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, s, number, queue.Filter{Key: queue.AnyKey, ID: digits}, want)
		wantList(t, s, number, queue.Filter{Key: "app", ID: digits, Status: queue.StatusQueued, Domain: "example.org"}, want)
		wantList(t, s, number, queue.Filter{Key: "app", ID: digits, Since: queue.TimeOf(ids[1])}, strings.ReplaceAll(want, "0", ""))
	}
}

// testListBySubject: every word must be there, in any case, also within other words; nothing in a word is a pattern.
func testListBySubject(t *testing.T, s queue.Store) {
	number := map[string]string{}
	for i, subject := range []string{
		"Your order 1042: Größe M", "YOUR ORDER 1043: GRÖẞE M", "Заказ № 7 готов", "100% [off] * a_b \\ ^x ]-", "", "Παραγγελία σας έτοιμος ΣΊΓΜΑΣ",
		strings.Repeat("ä", queue.SubjectSearched) + "late", "早い ご注文 \U0001F600 \u212a", // the last is the sign of Kelvin
		"İstanbul ﬁne",
	} {
		e := entry(time.Duration(i)*time.Minute, "ana@example.org")
		e.Message.Subject, e.Message.Key = subject, []string{"app", "other"}[i%2]
		insert(t, s, e)
		number[e.Message.ID] = fmt.Sprint(i)
	}
	for text, want := range map[string]string{
		"order": "10", "ORDER your": "10", "rder 1042": "0", "größe": "10", "GRÖSSE": "", "order order 104": "10", "order готов": "",
		"заказ": "2", "ЗАКАЗ готов": "2", "№": "2", "*": "3", "?": "", "[": "3", "]": "3", "[off]": "3", "[o": "3", "%": "3", "a_b": "3", "axb": "", `\`: "3", "^x": "3", "]-": "3", "100%": "3", "1*2": "", "[a-z]": "",
		"σίγμας": "5", "ΣΑΣ": "5", "έτοιμοσ": "5", "ä": "6", "Ä": "6", "late": "", "注文": "7", "\U0001F600": "7", "\U0001F601": "", "k": "7", "istanbul": "", "stanbul": "8", "FINE": "", "ﬁne": "8",
		"'": "", `"`: "", "$1": "", "\u00a0order\u2003your ": "10",
	} {
		f := queue.Filter{Key: queue.AnyKey, Subject: text}
		wantList(t, s, number, f, want)
		f.Key = "app"
		wantList(t, s, number, f, strings.NewReplacer("1", "", "3", "", "5", "", "7", "").Replace(want))
		f.Status, f.Domain = queue.StatusQueued, "example.org"
		wantList(t, s, number, f, strings.NewReplacer("1", "", "3", "", "5", "", "7", "").Replace(want))
	}
}

// testCancelMany: one commit cancels many messages, of the key's own, and tells of each
// which recipients ended.
func testCancelMany(t *testing.T, s queue.Store) {
	waits, inHand, withdrawn, done, theirs := entry(0, "a@example.org", "b@example.org"), entry(1, "a@example.org"), entry(2, "a@example.org", "b@example.org"), entry(3, "a@example.org"), entry(4, "a@example.org")
	theirs.Message.Key = "other"
	inHand.Owner, withdrawn.Owner, done.Owner = "me", "me", "me"
	insert(t, s, waits, inHand, withdrawn, done, theirs)
	record(t, s, queue.Outcome{
		ID: done.Message.ID, Owner: "me", Route: done.Route, At: Start,
		Changes: []queue.Change{{ForwardPath: "a@example.org", State: queue.Delivered}},
	})
	var messages []queue.Withdrawal
	for _, e := range []queue.Entry{waits, inHand, withdrawn, done, theirs} {
		messages = append(messages, queue.Withdrawal{ID: e.Message.ID})
	}
	messages[2].ForwardPaths = []string{"b@example.org"}
	messages = append(messages, queue.Withdrawal{ID: queue.NewID(Start)}, queue.Withdrawal{ID: "none"})
	size, path := waits.Message.Size, waits.Message.Envelope.ReversePath
	want := []queue.Ended{
		{ID: waits.Message.ID, Size: size, Final: true, ReversePath: path, ForwardPaths: []string{"a@example.org", "b@example.org"}},
		{ID: inHand.Message.ID, Size: size, ReversePath: path},
		{ID: withdrawn.Message.ID, Size: size, ReversePath: path, ForwardPaths: []string{"b@example.org"}},
	}
	got, err := s.Cancel(t.Context(), "app", "me", messages, Start)
	if err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "Cancel", got, want)
	wantStates(t, s, waits, "canceled canceled", queue.StatusCanceled)
	wantStates(t, s, withdrawn, "queued canceled", queue.StatusDeferred)
	wantStates(t, s, done, "delivered", queue.StatusDelivered)
	wantStates(t, s, theirs, "queued", queue.StatusQueued)
	if got, err = s.Cancel(t.Context(), "app", "me", nil, Start); len(got) > 0 || err != nil {
		t.Errorf("Cancel of no message = %v, %v", got, err)
	}
}

// testResent: a message and those that send it again know each other, up to a limit.
func testResent(t *testing.T, s queue.Store) {
	first := entry(0, "a@example.org")
	insert(t, s, first)
	var want []string
	for i := range queue.MaxResent + 2 {
		again := entry(time.Duration(1+i)*time.Second, "b@example.org")
		again.Message.ResentOf = first.Message.ID
		insert(t, s, again)
		insert(t, s, again) // as after a commit that failed and happened
		if got := get(t, s, again.Message.ID); got.ResentOf != first.Message.ID || len(got.ResentAs) > 0 {
			t.Fatalf("the new message has ResentOf %q, ResentAs %v", got.ResentOf, got.ResentAs)
		}
		want = append(want, again.Message.ID)
	}
	if got := get(t, s, first.Message.ID); got.ResentOf != "" || len(got.ResentAs) != queue.MaxResent {
		t.Errorf("the first message has ResentOf %q, %d of ResentAs, want %d", got.ResentOf, len(got.ResentAs), queue.MaxResent)
	}
	wantDiff(t, "ResentAs", get(t, s, first.Message.ID).ResentAs, want[2:])
	gone := entry(time.Hour, "b@example.org") // the earlier one was removed meanwhile
	gone.Message.ResentOf = idOf(Start)
	insert(t, s, gone)
	if got := get(t, s, gone.Message.ID); got.ResentOf != gone.Message.ResentOf {
		t.Errorf("ResentOf = %q, want %q", got.ResentOf, gone.Message.ResentOf)
	}
}

package keys

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/units"
)

// TestReport: who used a key when, and how much of its rate, without its secret.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := units.Rate{Messages: 10, Per: time.Minute}
		r, err := NewRing([]Entry{{Name: "shop", Secret: "s3cret", Rate: rate, Senders: []string{"Shop@Example.com"}}, {Name: "ops", Secret: "0ther", Roles: []string{"admin"}}}, true)
		if err != nil {
			t.Fatal(err)
		}
		shop, _ := r.Find("s3cret")
		_ = shop.Enter(t.Context())
		if err := shop.Charge(4); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		time.Sleep(7 * time.Second) // one and a bit are paid for
		got := r.Report(t.Context())
		if k := got[0]; k.Name != "shop" || k.Used != 3 || !k.LastUsed.Equal(at) || k.Rate != rate || fmt.Sprint(k.Senders, k.Roles.Names()) != "[shop@example.com] [send read]" {
			t.Errorf("Report()[0] = %+v", k)
		}
		if k := got[1]; k.Used != 0 || !k.LastUsed.IsZero() || fmt.Sprint(k.Roles.Names()) != "[admin]" {
			t.Errorf("Report()[1] = %+v", k)
		}
		if text := fmt.Sprintf("%+v", got); strings.Contains(text, "s3cret") || strings.Contains(text, "0ther") {
			t.Errorf("a secret is in %s", text)
		}
		time.Sleep(time.Hour)
		if err := shop.Charge(10_000); err != nil { // as much as a batch may have, at once
			t.Fatal(err)
		}
		if got := r.Report(t.Context())[0].Used; got != 10_000 {
			t.Errorf("after a large batch %d are used, want 10000", got)
		}
	})
}

// TestReportKeyless: without keys one without a name stands for all requests.
func TestReportKeyless(t *testing.T) {
	r, err := NewRing(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.keyless.Enter(t.Context())
	if got := r.Report(t.Context()); len(got) != 1 || got[0].Name != "" || got[0].Roles != everything || got[0].LastUsed.IsZero() {
		t.Errorf("Report() = %+v", got)
	}
	other, _ := NewRing(nil, false)
	if got := other.Report(t.Context()); !got[0].LastUsed.IsZero() {
		t.Errorf("another server's key was used: %+v", got)
	}
}

// TestReportShared: what all instances have used counts, not what they hold; looking changes
// nothing, and ends while the database is away.
func TestReportShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := units.Rate{Messages: 100, Per: time.Minute}
		b := &notes{values: map[string][]byte{}}
		var rings []*Ring
		for range 2 {
			r, err := NewRing([]Entry{{Name: "shop", Secret: "s3cret", Rate: rate}, {Name: "blog", Secret: "0ther", Rate: rate}}, false)
			if err != nil {
				t.Fatal(err)
			}
			r.Share(b.change)
			rings = append(rings, r)
			if err := r.keys[0].Charge(10); err != nil {
				t.Fatal(err)
			}
		}
		before := string(b.values[noteKind+"shop"])
		for _, r := range rings {
			if got := r.Report(t.Context()); got[0].Used < 19 || got[0].Used > 20 || got[1].Used != 0 {
				t.Errorf("Report() = %+v, want 20 of 100 used", got)
			}
		}
		if after := string(b.values[noteKind+"shop"]); after != before {
			t.Errorf("looking changed %s to %s", before, after)
		}
		b.hangs = true
		start := time.Now()
		if got := rings[0].Report(t.Context()); got[0].Used != -1 || got[1].Used != -1 {
			t.Errorf("Report() = %+v while the database is away", got)
		}
		if took := time.Since(start); took > reportTime {
			t.Errorf("Report() took %v", took)
		}
	})
}

// TestMessagesIn: no rounding of floating point makes a message that nobody sent.
func TestMessagesIn(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		rate := units.Rate{Messages: 1 + random.IntN(100_000), Per: []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[random.IntN(4)]}
		n := random.IntN(rate.Messages + 1)
		now := time.Now()
		b := &bucket{}
		if _, ok := b.take(rate, n, now); !ok {
			t.Fatal("not taken")
		}
		if got := messagesIn(rate, max(b.full.Sub(now), 0)); got != n && got != n-1 { // what is taken ends on a whole nanosecond
			t.Fatalf("messagesIn(%v) after %d = %d", rate, n, got)
		}
	}
}

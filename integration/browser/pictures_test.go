package browser_test

import (
	"database/sql"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	_ "modernc.org/sqlite" // for the numbers of a past week

	"mailsidecar/api"
)

// TestPictures takes the pictures of README.md and docs/dashboard.md, when PICTURES names the
// directory to put them in:
//
//	PICTURES=$PWD/docs/images go test -C integration/browser -run Pictures
func TestPictures(t *testing.T) {
	dir := os.Getenv("PICTURES")
	if dir == "" {
		t.Skip("PICTURES is not set")
	}
	data := filepath.Join(t.TempDir(), "data")
	env := newRelay(t, nil).withKeys().with(settings{"MAILSIDECAR_DATA_DIR": data, "MAILSIDECAR_KEEP_BODIES": "1d", "SMTP_HOST": "localhost"})
	first := serve(t, env)
	_, _, waits := first.mixedMail(t)
	first.process.Stop(t)
	writePast(t, filepath.Join(data, "queue.db"))

	s := serve(t, env)
	s.settle(t, s.send(t, s.client(t, shopSecret), api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1066 is on its way"}), api.StatusDelivered)
	p := open(t, s, everyday)
	p.signIn(adminSecret)
	p.visit("/ui/")
	p.save(filepath.Join(dir, "dashboard-overview.png"), chromedp.CaptureScreenshot())
	p.visit("/ui/messages")
	p.save(filepath.Join(dir, "dashboard-messages.png"), chromedp.CaptureScreenshot())
	p.visit("/ui/messages/" + waits)
	p.save(filepath.Join(dir, "dashboard-message.png"), chromedp.CaptureScreenshot())
	p = open(t, s, look{phone, true, true})
	p.signIn(adminSecret)
	var paused api.Relay
	call(t, s.admin, http.MethodPost, "/v1/relays/localhost/pause", api.Pause{For: "2h", Reason: "the provider moves"}, &paused, http.StatusOK)
	s.send(t, s.admin, api.Request{To: []string{"ana@example.org"}, Subject: "Your order 1067"})
	p.visit("/ui/relays")
	p.save(filepath.Join(dir, "dashboard-phone.png"), chromedp.CaptureScreenshot())
}

// writePast gives a store the numbers of a shop's week: more by day than by night, and a few
// refusals.
func writePast(t *testing.T, file string) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	now := time.Now().UTC().Truncate(10 * time.Minute)
	for i := 1; i < 7*24*6; i++ {
		at := now.Add(-time.Duration(i) * 10 * time.Minute)
		hour := float64(at.Hour()) + float64(at.Minute())/60
		n := int64(4 + 32*bell((hour-12)/3) + 24*bell((hour-19)/2) + 6*math.Abs(math.Sin(float64(i*7))))
		deferred, bounced := int64(0), int64(0)
		if i%11 == 0 {
			deferred = 1
		}
		if i%17 == 0 {
			bounced = 1
		}
		if i > 24*6 { // kept by the hour
			at = at.Truncate(time.Hour)
		}
		if _, err := db.Exec(`INSERT INTO stats_counts (at, key, relay, messages, accepted, delivered, deferred, bounced, uncertain) VALUES (?, 'shop', 'localhost', ?, ?, ?, ?, ?, 0)
			ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, accepted = accepted + excluded.accepted, delivered = delivered + excluded.delivered,
				deferred = deferred + excluded.deferred, bounced = bounced + excluded.bounced`,
			at.UnixMicro(), n, n, n-bounced, deferred, bounced); err != nil {
			t.Fatal(fmt.Errorf("write the numbers of a week: %w", err))
		}
	}
}

// bell is 1 at 0, and falls to both sides.
func bell(x float64) float64 { return math.Exp(-x * x) }

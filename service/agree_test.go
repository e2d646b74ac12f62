package service

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailsidecar/config"
	"mailsidecar/queue/memory"
)

// configOf is what these variables say, beside those that every configuration has.
func configOf(t *testing.T, variables ...string) config.Config {
	t.Helper()
	for _, v := range append([]string{
		"SMTP_HOST=smtp.example.com", "SMTP_USERNAME=u", "SMTP_PASSWORD=secret-of-the-relay", "MAILSIDECAR_ADDR=127.0.0.1:8587", "MAILSIDECAR_DATA_DIR=" + t.TempDir(),
		"SMTP_RATE=", "MAILSIDECAR_LEASE=", "MAILSIDECAR_KEEP_BODIES=", "MAILSIDECAR_LOG_LEVEL=", // of another one
	}, variables...) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	c, _, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAgreement: instances whose settings are to be alike and are not say so, once for each difference, with both values.
// One that was replaced is not taken for another one.
func TestAgreement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		database := memory.NewDatabase(time.Minute)
		store := database.Open(memory.Options{})
		defer func() { _ = store.Close() }()
		begin := func(variables ...string) (log *bytes.Buffer, stop func()) {
			log = &bytes.Buffer{}
			ctx, cancel := context.WithCancel(t.Context())
			a := newAgreement(store, configOf(t, variables...), slog.New(slog.NewTextHandler(log, nil)))
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.run(ctx)
			}()
			return log, func() {
				cancel()
				<-done
			}
		}
		old, stopOld := begin("SMTP_RATE=5/s", "MAILSIDECAR_LEASE=30s")
		time.Sleep(time.Hour + 10*time.Second)
		stopOld() // it was killed, say, just after it had said something
		one, stopOne := begin("SMTP_RATE=10/h")
		same, stopSame := begin("SMTP_RATE=10/h", "MAILSIDECAR_LOG_LEVEL=debug")
		time.Sleep(time.Hour)
		if text := old.String() + one.String() + same.String(); text != "" {
			t.Errorf("instances that are set alike say\n%s", text)
		}
		other, stopOther := begin("SMTP_RATE=20/h", "MAILSIDECAR_KEEP_BODIES=1d")
		time.Sleep(time.Hour)
		for log, want := range map[*bytes.Buffer][]string{
			one:   {"setting=SMTP_RATE here=10/h there=20/h", "setting=MAILSIDECAR_KEEP_BODIES here=0 there=1d"},
			same:  {"setting=SMTP_RATE here=10/h there=20/h"},
			other: {"setting=SMTP_RATE here=20/h there=10/h"},
		} {
			for _, want := range want {
				if strings.Count(log.String(), want) == 0 {
					t.Errorf("the log has\n%s\nwant %s", log, want)
				}
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 2 {
				t.Errorf("%d warnings, want one for each of two settings\n%s", n, log)
			}
			if strings.Contains(log.String(), "secret") {
				t.Errorf("a secret is in the log\n%s", log)
			}
		}
		stopOne()
		stopSame()
		stopOther()
		_, stop := begin("SMTP_RATE=20/h")
		defer stop()
		time.Sleep(time.Hour)
		if notes, _, err := store.Notes(t.Context(), agreeKind); err != nil || len(notes) != 1 {
			t.Errorf("%d instances say something, %v, want that which runs", len(notes), err)
		}
	})
}

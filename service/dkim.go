package service

import (
	"context"
	"log/slog"
	"net"
	"time"

	"mailsidecar/diagnosis"
	"mailsidecar/mailer/compose"
	"mailsidecar/mailer/dkim"
	"mailsidecar/mailer/smtp"
)

// newSigner returns what signs messages before they are stored; nil without keys.
func newSigner(keys []dkim.Entry) compose.Signer {
	if len(keys) == 0 {
		return nil
	}
	return dkim.NewSigner(keys)
}

// newResigner returns what signs the forms that relays need otherwise; nil without keys.
func newResigner(keys []dkim.Entry) smtp.Signer {
	if len(keys) == 0 {
		return nil
	}
	return dkim.NewSigner(keys).Resigner()
}

// recordTime limits the check of the records at the start.
const recordTime = time.Minute

// recordCheck compares the keys with the records in the DNS, once, in the background.
type recordCheck struct {
	cancel context.CancelFunc // nil before it began
	done   chan struct{}
}

// begin begins it, and waits for nothing. A nil lookup is that of the system's DNS.
func (r *recordCheck) begin(ctx context.Context, keys []dkim.Entry, lookup dkim.LookupTXT, log *slog.Logger) {
	if len(keys) == 0 {
		return
	}
	if lookup == nil {
		lookup = net.DefaultResolver.LookupTXT
	}
	ctx, r.cancel = context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		for _, f := range dkim.Check(ctx, keys, lookup) {
			if ctx.Err() == nil {
				logRecord(f, log)
			}
		}
	}()
}

// stop ends it.
func (r *recordCheck) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.done
	}
}

func logRecord(f dkim.Finding, log *slog.Logger) {
	a, name := diagnosis.OfDKIM(f), f.Entry.Name()
	switch f.State {
	case dkim.Published:
		log.Info("DKIM record is published", "record", name, "algorithm", f.Entry.Key.Algorithm())
	case dkim.Unknown:
		log.Info("DKIM record was not checked", "record", name, "found", a.Found, "do", a.Do)
	default:
		log.Warn("DKIM record is not right", "record", name, "state", string(f.State), "found", a.Found, "do", a.Do)
	}
}

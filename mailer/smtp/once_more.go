package smtp

import (
	"errors"

	"mailsidecar/mailer"
)

// A recipient may go once more within an attempt, and the failure that it had is taken
// back. Where the relay is not asked again after all, because the message expires or a
// login must wait, that failure is what became of the recipient: the relay has seen MAIL,
// and what it said belongs into the story.

// reopen takes f back from the recipients of a transaction, and returns them.
func (d *delivery) reopen(t *transaction, f *mailer.Failure) []*mailer.Result {
	list := t.reopen(f)
	for _, r := range list {
		d.keep(r, f)
	}
	return list
}

// keep notes the failure of a recipient that goes once more. A refusal that is in doubt
// bounces nothing.
func (d *delivery) keep(r *mailer.Result, f *mailer.Failure) {
	if d.before == nil {
		d.before = map[*mailer.Result]*mailer.Failure{}
	}
	kept := *f
	if kept.Class == mailer.ClassPermanent {
		kept.Class = mailer.ClassTransient
	}
	d.before[r] = &kept
}

// fail gives f to the recipients without a verdict. Where that means that the relay was not
// asked, those that it was asked for before have the failure that they had.
func (d *delivery) fail(f *mailer.Failure) {
	for _, r := range d.undecided() {
		if before := d.before[r]; before != nil && notAsked(f) {
			r.Reply, r.Failure = before.Reply, before
			continue
		}
		r.Reply, r.Failure = f.Reply, f
	}
}

func notAsked(f *mailer.Failure) bool {
	login, waits := errors.AsType[*mailer.LoginError](f.Err)
	return errors.Is(f.Err, mailer.ErrExpired) || errors.Is(f.Err, mailer.ErrMayNotSend) || waits && !login.Tried
}

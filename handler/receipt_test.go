package handler

import (
	"testing"

	"mailsidecar/mailer"
)

// TestOutcomeMeans: a permanent refusal says what it means and what to do. What waits
// does not: its waits tell what is so now.
func TestOutcomeMeans(t *testing.T) {
	f := mailer.Failure{Class: mailer.ClassPermanent, Stage: mailer.StageRcpt, Cause: "No such mailbox.", Remedy: "Correct the address."}
	if o := newOutcome(mailer.Result{Failure: &f}); o.Found != f.Cause || o.Do != f.Remedy {
		t.Errorf("newOutcome() = %+v, want cause and remedy", o)
	}
	f.Class = mailer.ClassTransient
	if o := newOutcome(mailer.Result{Failure: &f}); o.Found+o.Do != "" {
		t.Errorf("newOutcome() = %+v, want neither", o)
	}
}

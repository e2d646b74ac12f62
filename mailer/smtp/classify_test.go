package smtp

import (
	"testing"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/relays"
)

func TestClassify(t *testing.T) {
	tests := []struct {
		stage mailer.Stage
		reply string
		want  mailer.Class
	}{
		{mailer.StageGreeting, "554 no", mailer.ClassRelay},
		{mailer.StageGreeting, "450 later", mailer.ClassRelay},
		{mailer.StageGreeting, "421 later", mailer.ClassTransient},
		{mailer.StageEHLO, "501 what", mailer.ClassRelay},
		{mailer.StageStartTLS, "454 4.7.0 not now", mailer.ClassRelay},
		{mailer.StageAuth, "535 5.7.8 wrong", mailer.ClassRelay},
		{mailer.StageAuth, "454 4.7.0 later", mailer.ClassRelay},
		{mailer.StageAuth, "421 4.7.0 later", mailer.ClassTransient},
		{mailer.StageMail, "499 odd", mailer.ClassTransient},
		{mailer.StageMail, "500 what", mailer.ClassTransient},
		{mailer.StageMail, "504 what", mailer.ClassTransient},
		{mailer.StageMail, "505 odd", mailer.ClassPermanent},
		{mailer.StageMail, "530 5.7.0 AUTH first", mailer.ClassTransient},
		{mailer.StageMail, "550 5.7.1 not you", mailer.ClassPermanent},
		{mailer.StageMail, "552 5.3.4 too large", mailer.ClassPermanent},
		{mailer.StageMail, "555 parameter", mailer.ClassTransient},
		{mailer.StageMail, "550 5.7.30 Basic authentication is not supported", mailer.ClassRelay},
		{mailer.StageRcpt, "500 what", mailer.ClassPermanent},
		{mailer.StageRcpt, "550 5.1.1 unknown", mailer.ClassPermanent},
		{mailer.StageRcpt, "450 4.2.1 busy", mailer.ClassTransient},
		{mailer.StageRcpt, "450 4.2.1 The user you are trying to contact is receiving mail too quickly", mailer.ClassTransient},
		{mailer.StageRcpt, "450 The given data was invalid.", mailer.ClassPermanent},
		{mailer.StageRcpt, "254 4.7.1 Suppression for user a to b", mailer.ClassPermanent},
		{mailer.StageRcpt, "552 5.4.5 Daily sending quota exceeded", mailer.ClassRelay},
		{mailer.StageData, "451 4.3.0 later", mailer.ClassTransient},
		{mailer.StageData, "554 5.5.1 no", mailer.ClassPermanent},
		{mailer.StageContent, "451 4.3.0 later", mailer.ClassTransient},
		{mailer.StageContent, "454 Throttling failure: Maximum sending rate exceeded.", mailer.ClassTransient},
		{mailer.StageContent, "454 Throttling failure: Daily message quota exceeded.", mailer.ClassRelay},
		{mailer.StageContent, "554 5.7.1 spam", mailer.ClassPermanent},
		{mailer.StageContent, "554 5.2.0 STOREDRV.Submission; SubmissionQuotaExceededException", mailer.ClassRelay},
		{mailer.StageContent, "354 odd", mailer.ClassUncertain},
	}
	for _, tt := range tests {
		r, err := readString(tt.reply + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := classify(tt.stage, r, relays.Judge("", tt.stage, r, time.Time{})); got != tt.want {
			t.Errorf("classify(%s, %s) = %s, want %s", tt.stage, tt.reply, got, tt.want)
		}
	}
}

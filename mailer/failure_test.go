package mailer

import "testing"

func TestClassify(t *testing.T) {
	tests := []struct {
		stage Stage
		reply string
		want  Class
	}{
		{StageGreeting, "554 no", ClassRelay},
		{StageGreeting, "450 later", ClassRelay},
		{StageGreeting, "421 later", ClassTransient},
		{StageEHLO, "501 what", ClassRelay},
		{StageStartTLS, "454 4.7.0 not now", ClassRelay},
		{StageAuth, "535 5.7.8 wrong", ClassRelay},
		{StageAuth, "454 4.7.0 later", ClassRelay},
		{StageAuth, "421 4.7.0 later", ClassTransient},
		{StageMail, "499 odd", ClassTransient},
		{StageMail, "500 what", ClassRelay},
		{StageMail, "504 what", ClassRelay},
		{StageMail, "505 odd", ClassPermanent},
		{StageMail, "530 5.7.0 AUTH first", ClassRelay},
		{StageMail, "550 5.7.1 not you", ClassPermanent},
		{StageMail, "552 5.3.4 too large", ClassPermanent},
		{StageMail, "555 parameter", ClassRelay},
		{StageMail, "550 5.7.30 Basic authentication is not supported", ClassRelay},
		{StageRcpt, "500 what", ClassPermanent},
		{StageRcpt, "550 5.1.1 unknown", ClassPermanent},
		{StageRcpt, "450 4.2.1 busy", ClassTransient},
		{StageRcpt, "450 4.2.1 The user you are trying to contact is receiving mail too quickly", ClassTransient},
		{StageRcpt, "450 The given data was invalid.", ClassPermanent},
		{StageRcpt, "254 4.7.1 Suppression for user a to b", ClassPermanent},
		{StageRcpt, "552 5.4.5 Daily sending quota exceeded", ClassRelay},
		{StageData, "451 4.3.0 later", ClassTransient},
		{StageData, "554 5.5.1 no", ClassPermanent},
		{StageContent, "451 4.3.0 later", ClassTransient},
		{StageContent, "454 Throttling failure: Maximum sending rate exceeded.", ClassTransient},
		{StageContent, "454 Throttling failure: Daily message quota exceeded.", ClassRelay},
		{StageContent, "554 5.7.1 spam", ClassPermanent},
		{StageContent, "554 5.2.0 STOREDRV.Submission; SubmissionQuotaExceededException", ClassRelay},
		{StageContent, "354 odd", ClassUncertain},
	}
	for _, tt := range tests {
		w, err := readString(tt.reply + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := classify(tt.stage, w); got != tt.want {
			t.Errorf("classify(%s, %s) = %s, want %s", tt.stage, tt.reply, got, tt.want)
		}
	}
}

func TestEnhancedCode(t *testing.T) {
	tests := []struct {
		f    Failure
		want string
	}{
		{Failure{Class: ClassPermanent, Stage: StageRcpt, Reply: Reply{550, "5.1.1", "no"}}, "5.1.1"},
		{Failure{Class: ClassPermanent, Stage: StageRcpt, Reply: Reply{550, "", "no"}}, "5.0.0"},
		{Failure{Class: ClassPermanent, Stage: StageMail, Reply: Reply{Enhanced: "5.3.4"}}, "5.3.4"},
		{Failure{Class: ClassPermanent, Stage: StageCompose}, "5.6.0"},
		{Failure{Class: ClassRelay, Stage: StageConnect}, "4.4.1"},
		{Failure{Class: ClassTransient, Stage: StageData}, "4.4.2"},
		{Failure{Class: ClassUncertain, Stage: StageContent}, "4.4.2"},
	}
	for _, tt := range tests {
		if got := tt.f.EnhancedCode(); got != tt.want {
			t.Errorf("EnhancedCode() of %s %s = %s, want %s", tt.f.Class, &tt.f, got, tt.want)
		}
	}
}

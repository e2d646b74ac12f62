package mailer

import "testing"

func TestEnhancedCode(t *testing.T) {
	tests := []struct {
		f    Failure
		want string
	}{
		{Failure{Class: ClassPermanent, Stage: StageRcpt, Reply: Reply{Code: 550, Enhanced: "5.1.1", Text: "no"}}, "5.1.1"},
		{Failure{Class: ClassPermanent, Stage: StageRcpt, Reply: Reply{Code: 550, Enhanced: "", Text: "no"}}, "5.0.0"},
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

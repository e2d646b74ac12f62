package mailer

import (
	"fmt"
	"testing"
	"time"
)

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

func TestScope(t *testing.T) {
	reply := func(code int) Reply { return Reply{Code: code} }
	tests := []struct {
		f    Failure
		want Scope
		next bool // relay
	}{
		{Failure{Class: ClassRelay, Stage: StageConnect}, ScopeRelay, true},
		{Failure{Class: ClassRelay, Stage: StageAuth, Reply: reply(535)}, ScopeRelay, true},
		{Failure{Class: ClassRelay, Stage: StageContent, Reply: reply(550)}, ScopeRelay, true}, // a quota
		{Failure{Class: ClassTransient, Stage: StageGreeting, Reply: reply(421)}, ScopeRelay, true},
		{Failure{Class: ClassRelay, Stage: StageConnect, Err: &RateError{time.Time{}}}, ScopeMessage, true},
		{Failure{Class: ClassTransient, Stage: StageConnect, Text: "shutting down"}, ScopeMessage, false},
		{Failure{Class: ClassTransient, Stage: StageMail, Reply: reply(501)}, ScopeSender, true},
		{Failure{Class: ClassTransient, Stage: StageMail, Reply: reply(530)}, ScopeSender, true},
		{Failure{Class: ClassTransient, Stage: StageMail, Reply: reply(450)}, ScopeMessage, false},
		{Failure{Class: ClassTransient, Stage: StageRcpt, Reply: reply(552)}, ScopeMessage, false}, // too many
		{Failure{Class: ClassTransient, Stage: StageMail}, ScopeConnection, true},
		{Failure{Class: ClassTransient, Stage: StageRcpt}, ScopeConnection, true},
		{Failure{Class: ClassTransient, Stage: StageContent}, ScopeConnection, true}, // before the dot
		{Failure{Class: ClassTransient, Stage: StageRcpt, Reply: reply(421)}, ScopeConnection, true},
		{Failure{Class: ClassTransient, Stage: StageMail, Reply: reply(421), Err: ErrPushedBack}, ScopeMessage, false},
		{Failure{Class: ClassUncertain, Stage: StageContent}, ScopeConnection, false},
		{Failure{Class: ClassUncertain, Stage: StageContent, Reply: reply(354)}, ScopeMessage, false},
		{Failure{Class: ClassPermanent, Stage: StageMail, Reply: Reply{Enhanced: "5.3.4"}}, ScopeMessage, false},
		{Failure{Class: ClassPermanent, Stage: StageMail, Reply: Reply{Enhanced: "5.3.4"}, Err: ErrCannotTake}, ScopeMessage, true},
		{Failure{Class: ClassPermanent, Stage: StageMail, Reply: reply(553), Err: fmt.Errorf("not owned: %w", ErrSenderRefused)}, ScopeMessage, true},
		{Failure{Class: ClassPermanent, Stage: StageContent, Reply: reply(550), Err: ErrSenderRefused}, ScopeMessage, true},
		{Failure{Class: ClassTransient, Stage: StageRcpt, Reply: reply(450), Err: ErrSenderRefused}, ScopeSender, true},
		{Failure{Class: ClassTransient, Stage: StageData, Reply: reply(421), Err: ErrSenderRefused}, ScopeSender, true},
		{Failure{Class: ClassTransient, Stage: StageContent, Reply: reply(550), Err: ErrRefusesMany}, ScopeSender, true},
		{Failure{Class: ClassPermanent, Stage: StageMail, Reply: reply(550)}, ScopeMessage, false},
		{Failure{Class: ClassPermanent, Stage: StageCompose}, ScopeMessage, false},
	}
	for _, tt := range tests {
		what := fmt.Sprintf("%s %s (cause %v)", tt.f.Class, &tt.f, tt.f.Err)
		if got := tt.f.Scope(); got != tt.want {
			t.Errorf("Scope() of %s = %s, want %s", what, got, tt.want)
		}
		if got := tt.f.TriesNext(); got != tt.next {
			t.Errorf("TriesNext() of %s = %v, want %v", what, got, tt.next)
		}
	}
}

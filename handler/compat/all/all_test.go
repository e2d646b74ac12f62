package all

import "testing"

func TestChoose(t *testing.T) {
	if got, err := Choose([]string{"resend", "ses"}); err != nil || len(got) != 3 || got[0].Name != "resend" || got[1].Name != "ses" || !got[2].Owns("/v3/x") {
		t.Errorf("Choose(resend, ses) = %v, %v", got, err)
	}
	if got, err := Choose([]string{}); err != nil || len(got) != 0 {
		t.Errorf("Choose of none = %v, %v", got, err)
	}
	if got, err := Choose([]string{"sendgird"}); err == nil {
		t.Errorf("Choose(sendgird) = %v, want an error", got)
	}
}

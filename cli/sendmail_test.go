package cli

import (
	"slices"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct{ argv, want []string }{
		{nil, nil},
		{[]string{"/usr/local/bin/mailsidecar", "serve"}, []string{"serve"}},
		{[]string{"/usr/sbin/sendmail", "-t"}, []string{"sendmail", "-t"}},
		{[]string{"mailq"}, []string{"sendmail", "-bp"}},
	} {
		if got := CommandLine(tt.argv); !slices.Equal(got, tt.want) {
			t.Errorf("CommandLine(%q) = %q, want %q", tt.argv, got, tt.want)
		}
	}
}

// The command and its help are package sendmail's.
func TestSendmailCommand(t *testing.T) {
	t.Setenv("MAILSIDECAR_URL", "")
	for _, args := range [][]string{{"sendmail", "-q"}, {"sendmail", "--help"}, {"help", "sendmail"}} {
		if status, _, errOut := run(t.Context(), args...); status != exitOK || errOut != "" {
			t.Errorf("Run(%q) = %d, %q, want 0 and silence", args, status, errOut)
		}
	}
	if status, _, _ := run(t.Context(), "sendmail", "-Z"); status != exitUsage {
		t.Errorf("sendmail -Z = %d, want %d", status, exitUsage)
	}
}

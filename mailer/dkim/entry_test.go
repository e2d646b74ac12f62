package dkim

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestUnreadableKey: a key that another user owns is not to be made anew.
func TestUnreadableKey(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}
	for _, tt := range []struct {
		file string
		err  error
		want string
	}{
		{"/etc/mailsidecar/s.pem", denied, "chown " + strconv.Itoa(os.Getuid()) + " /etc/mailsidecar/s.pem"},
		{"/etc/mailsidecar/s.pem", denied.Err, "chown "},
		{"MIIEvQIBADANBgkqhkiG9w0B", denied, "mailsidecar dkim new"},
		{"/etc/mailsidecar/s.pem", fs.ErrNotExist, "mailsidecar dkim new"},
	} {
		if got := readRemedy(tt.file, tt.err); !strings.Contains(got, tt.want) || strings.Contains(got, "MII") {
			t.Errorf("readRemedy(%s, %v) = %q, want %q", tt.file, tt.err, got, tt.want)
		}
	}
}

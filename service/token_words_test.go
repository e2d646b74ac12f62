package service

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"mailsidecar/config"
)

// TestTokenFileIsTold: a token file that is missing is told by its own setting, wherever
// advice is given, and not with a code of a relay that was not asked.
func TestTokenFileIsTold(t *testing.T) {
	c, _ := oauth2Relay(t, nil, http.StatusOK, "{}")
	c.OAuth2 = config.OAuth2{AccessTokenFile: filepath.Join(t.TempDir(), "token")}
	for place, text := range tellsOf(t, c) {
		if !strings.Contains(text, "the file with the access token (SMTP2_OAUTH2_ACCESS_TOKEN_FILE) cannot be read") {
			t.Errorf("%s = %s\nwant the setting in it", place, text)
		}
		for _, no := range []string{"SMTP2_OAUTH2_CERT_FILE", "proves the OAuth2 client", "4.4.2"} {
			if strings.Contains(text, no) {
				t.Errorf("%s = %s\nwant no %q", place, text, no)
			}
		}
	}
}

// TestMissingLoginIsSaidOnce: the advice on a login that is missing does not repeat the
// error.
func TestMissingLoginIsSaidOnce(t *testing.T) {
	c, _ := oauth2Relay(t, nil, http.StatusOK, "{}")
	c.OAuth2.RefreshToken = config.Secret{}
	for place, text := range tellsOf(t, c) {
		if !strings.Contains(text, "no OAuth2 login is stored for this relay") || strings.Contains(text, "The error is") {
			t.Errorf("%s = %s\nwant the advice, and no error in it", place, text)
		}
	}
}

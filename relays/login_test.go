package relays

import "testing"

// TestLoginRefusal has the replies that relays are known to give, and what they mean
// to a password and to a token.
func TestLoginRefusal(t *testing.T) {
	const (
		disabled  = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
		forbidden = "535 5.7.139 Authentication unsuccessful, "
	)
	tests := []struct {
		line        string
		password    LoginWord
		token       LoginWord
		tokenStatus string
	}{
		// Microsoft 365 and Outlook.com.
		{"535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]", CredentialsWrong, TokenUnfit, ""},
		{disabled + "Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.", SubmissionDisabled, SubmissionDisabled, ""},
		{disabled + "Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.", SubmissionDisabled, SubmissionDisabled, ""},
		{forbidden + "user is locked by your organization's security defaults policy. Contact your administrator.", LoginForbidden, LoginForbidden, ""},
		{forbidden + "the organization configuration doesn't allow this.", LoginForbidden, LoginForbidden, ""},
		{forbidden + "the request did not meet the criteria to be authenticated successfully. Contact your administrator.", LoginForbidden, LoginForbidden, ""},
		{forbidden + "basic authentication is disabled.", TokenWanted, LoginForbidden, ""},
		{forbidden + "the user credentials were incorrect.", CredentialsWrong, LoginForbidden, ""},
		{"535 5.7.139 Authentication unsuccessful", TokenWanted, LoginForbidden, ""},
		{"550 5.7.30 Basic authentication is not supported for Client Submission.", TokenWanted, LoginForbidden, ""},
		{"504 5.7.4 Unrecognized authentication type", MechanismRefused, MechanismRefused, ""},
		{"503 AUTH command used when not advertised", NoLoginHere, NoLoginHere, ""},
		{"502 5.5.1 AUTH not implemented", NoLoginHere, NoLoginHere, ""},
		{"530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful", LoginWanted, LoginWanted, ""},
		{"501 5.5.127 Token will expire soon", CredentialsWrong, TokenEndsSoon, ""},
		{"501 5.5.124 Invalid data", CredentialsWrong, TokenUnfit, ""},
		{"454 4.7.0 Temporary authentication failure", LoginLater, LoginLater, ""},
		// Gmail.
		{"535 5.7.8 Username and Password not accepted.", CredentialsWrong, TokenDead, "401"},
		{"535 5.7.8 Username and Password not accepted.", CredentialsWrong, TokenUnfit, "400"},
		{"535 5.7.8 Username and Password not accepted.", CredentialsWrong, TokenWithoutRight, "403"},
		{"535 5.7.8 Username and Password not accepted.", CredentialsWrong, TokenDead, ""},
		{"534 5.7.9 Application-specific password required.", AppPasswordWanted, BrowserWanted, "400"},
		{"534 5.7.14 Please log in with your web browser and then try again.", AppPasswordWanted, BrowserWanted, ""},
		{"454 4.7.0 Too many login attempts, please try again later.", LoginLater, LoginLater, "400"},
		// Others.
		{"535 5.7.8 Error: authentication failed: invalid token", CredentialsWrong, TokenDead, "invalid_token"},
		{"535 5.7.8 authentication failed", CredentialsWrong, TokenWithoutRight, "Insufficient_Scope"},
		{"535 5.7.8 authentication failed", CredentialsWrong, TokenUnfit, "invalid_request"},
		{"535 use an App Password", AppPasswordWanted, TokenDead, ""},
		{"535 no", CredentialsWrong, TokenDead, ""},
		{"435 4.7.8 Error: authentication failed", LoginLater, LoginLater, "401"},
		{"500 5.5.2 what", CredentialsWrong, TokenUnfit, ""},
	}
	for _, tt := range tests {
		r := parse(t, tt.line)
		if got := LoginRefusal(r, nil); got != tt.password {
			t.Errorf("LoginRefusal(%s) of a password = %d, want %d", tt.line, got, tt.password)
		}
		if got := LoginRefusal(r, &TokenError{Status: tt.tokenStatus}); got != tt.token {
			t.Errorf("LoginRefusal(%s) of a token with status %q = %d, want %d", tt.line, tt.tokenStatus, got, tt.token)
		}
	}
}

// TestNewTokenHelps: a new token cannot change what the customer or the provider has
// switched off.
func TestNewTokenHelps(t *testing.T) {
	for w := CredentialsWrong; w <= TokenWithoutRight; w++ {
		if got, want := w.NewTokenHelps(), w == TokenDead || w == TokenEndsSoon; got != want {
			t.Errorf("NewTokenHelps() of %d = %v, want %v", w, got, want)
		}
		if w.NewTokenHelps() && !w.AboutToken() || w < TokenDead && w.AboutToken() {
			t.Errorf("AboutToken() of %d = %v", w, w.AboutToken())
		}
	}
}

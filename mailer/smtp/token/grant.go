package token

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailsidecar/credentials"
)

// Refresh spends a refresh token (RFC 6749 §6). Microsoft wants the scopes again.
func (e *Endpoint) Refresh(ctx context.Context, refreshToken string, scopes []string) (Answer, error) {
	return e.request(ctx, withScopes(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}}, scopes))
}

// ClientCredentials asks with the client's own proof (RFC 6749 §4.4).
func (e *Endpoint) ClientCredentials(ctx context.Context, scopes []string) (Answer, error) {
	return e.request(ctx, withScopes(url.Values{"grant_type": {"client_credentials"}}, scopes))
}

// ActFor asks for a token of the mailbox subject with a Google service account (RFC
// 7523 §2.1).
func (e *Endpoint) ActFor(ctx context.Context, a credentials.ServiceAccount, subject string, scopes []string) (Answer, error) {
	assertion, err := actFor(a, subject, strings.Join(scopes, " "), e.TokenURL)
	if err != nil {
		return Answer{}, err
	}
	return e.request(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}})
}

// ExchangeCode spends the code that the browser brought back (RFC 6749 §4.1.3), with
// the redirect URI and the verifier of the request (RFC 7636 §4.5).
func (e *Endpoint) ExchangeCode(ctx context.Context, code, redirectURI, verifier string) (Answer, error) {
	return e.request(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifier},
	})
}

func withScopes(form url.Values, scopes []string) url.Values {
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	return form
}

// NewVerifier returns a random secret for one login in a browser (RFC 7636 §4.1).
func NewVerifier() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// Challenge returns the code_challenge of a verifier, by the method S256 (RFC 7636
// §4.2).
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

const (
	// devicePause is the wait between two questions where the endpoint does not say,
	// and what slow_down adds to it (RFC 8628 §3.2, §3.5).
	devicePause = 5 * time.Second
	// longestDevicePause and longestDeviceLife limit what the endpoint says.
	longestDevicePause = time.Minute
	longestDeviceLife  = time.Hour
)

// DeviceCode is what a person types in on another device (RFC 8628 §3.2).
type DeviceCode struct {
	UserCode string
	// VerificationURI is where the code is typed in.
	VerificationURI string
	// CompleteURI includes the code; empty where the endpoint gives none.
	CompleteURI string
	Expires     time.Time

	device string // the secret that asks for the token
	pause  time.Duration
}

// AskDeviceCode asks the device authorization endpoint for a code.
func (e *Endpoint) AskDeviceCode(ctx context.Context, deviceURL string, scopes []string) (DeviceCode, error) {
	a, secrets, err := e.post(ctx, deviceURL, withScopes(url.Values{}, scopes))
	if err != nil {
		return DeviceCode{}, err
	}
	text := func(name string) string {
		s := textField(a.fields[name])
		if len(s) > maxRecordText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return ""
		}
		return s
	}
	d := DeviceCode{
		UserCode: text("user_code"), VerificationURI: text("verification_uri"), CompleteURI: text("verification_uri_complete"),
		device: text("device_code"), pause: lifeField(a.fields["interval"]),
	}
	if d.VerificationURI == "" { // an older name, still Google's
		d.VerificationURI = text("verification_url")
	}
	if a.response.StatusCode != http.StatusOK || a.fields == nil || a.names("error") {
		return DeviceCode{}, a.refused(secrets)
	}
	if d.UserCode == "" || d.device == "" || d.VerificationURI == "" {
		return DeviceCode{}, &Error{Status: a.response.StatusCode, Description: "the answer holds no device code"}
	}
	life := lifeField(a.fields["expires_in"])
	if life == 0 {
		life = 15 * time.Minute
	}
	d.Expires = time.Now().Add(min(life, longestDeviceLife))
	if d.pause == 0 {
		d.pause = devicePause
	}
	d.pause = min(d.pause, longestDevicePause)
	return d, nil
}

// AwaitDevice asks again and again, until the person has typed in the code and the
// endpoint gives a token, refuses one, or the code expires. One request that fails
// ends nothing. After the code's end the error is an [*Error] with the code
// "expired_token".
func (e *Endpoint) AwaitDevice(ctx context.Context, d DeviceCode) (Answer, error) {
	pause := d.pause
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
		if time.Now().After(d.Expires) {
			return Answer{}, &Error{Status: http.StatusBadRequest, Code: "expired_token", Description: "the code was not typed in in time"}
		}
		answer, err := e.request(ctx, url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.device},
		})
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return Answer{}, ctx.Err()
		}
		wait, ok := devicePauseAfter(err, pause)
		if !ok {
			return Answer{}, err
		}
		pause = wait
	}
}

// devicePauseAfter returns the wait after a failed question; false where the endpoint
// has decided.
func devicePauseAfter(err error, pause time.Duration) (time.Duration, bool) {
	e, _ := errors.AsType[*Error](err)
	switch {
	case e != nil && e.Code == "authorization_pending":
		return pause, true
	case KindOf(err) == KindTooOften:
		return min(max(pause+devicePause, e.RetryAfter), longestDevicePause), true
	case KindOf(err) == KindPassing:
		return min(2*pause, longestDevicePause), true
	default:
		return 0, false
	}
}

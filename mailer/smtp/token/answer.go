package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// longestLife limits what an endpoint says of the life of a token.
const longestLife = 10 * 365 * 24 * time.Hour

// Answer is what a token endpoint gives (RFC 6749 §5.1).
type Answer struct {
	// AccessToken is printable ASCII without blanks.
	AccessToken string
	// Life is how long the access token is good; zero where the endpoint does not say.
	Life time.Duration
	// RefreshToken is empty where the one that was used stays good, and where the
	// grant has none.
	RefreshToken string
	// RefreshLife is how long the refresh token is good; zero where the endpoint does
	// not say. Google says it for apps that are in testing.
	RefreshLife time.Duration
	// Scopes are those granted; nil where the endpoint does not say, which means those
	// asked for.
	Scopes []string
	// ID says who logged in; zero where the answer has no id_token.
	ID Identity
	// Skew is how far the endpoint's clock is ahead of ours, from its Date; it is true
	// within the time that the request took. Zero where there is no Date.
	Skew time.Duration
}

// Identity is who logged in, from an id_token (OpenID Connect Core §2). The endpoint
// gave it directly over TLS, so that its signature need not be verified (§3.1.3.7).
type Identity struct {
	Username string // preferred_username: at Microsoft the sign-in name
	Email    string
	Tenant   string // tid: Microsoft's directory of the account
}

// Account is the name by which the person is known: the address where there is one in
// the id_token; empty where the id_token has no name at all.
func (i Identity) Account() string {
	if strings.Contains(i.Username, "@") || i.Email == "" {
		return i.Username
	}
	return i.Email
}

// parseAnswer reads the body of an answer with status 200, given as its JSON object. With
// an error about the access token the answer holds the refresh token alone.
func parseAnswer(fields map[string]json.RawMessage) (Answer, error) {
	a := Answer{
		AccessToken: textField(fields["access_token"]), RefreshToken: textField(fields["refresh_token"]),
		Life: lifeField(fields["expires_in"]), RefreshLife: lifeField(fields["refresh_token_expires_in"]),
		Scopes: scopesField(fields["scope"]), ID: parseIdentity(textField(fields["id_token"])),
	}
	if a.RefreshToken != "" {
		if err := checkRefreshToken(a.RefreshToken); err != nil {
			return Answer{}, err
		}
	}
	err := checkToken(a.AccessToken)
	if kind := textField(fields["token_type"]); err == nil && kind != "" && !strings.EqualFold(kind, "Bearer") {
		err = errors.New("the access token is no bearer token")
	}
	if err != nil {
		return Answer{RefreshToken: a.RefreshToken, RefreshLife: a.RefreshLife}, err
	}
	return a, nil
}

// lifeField reads a number of seconds, which some servers send as a string. Zero
// means that it says nothing: it is missing, negative or no number.
func lifeField(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(strings.Trim(string(raw), `"`)), 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, longestLife.Seconds())) * time.Second
}

// scopesField reads a list of scopes, separated by blanks or as a JSON array; nil
// where it is neither, or empty.
func scopesField(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		list = strings.Fields(textField(raw))
	}
	if len(list) == 0 {
		return nil
	}
	return list[:min(len(list), maxScopes)]
}

// parseIdentity reads the claims of an id_token; zero where it is none. What is too
// long or holds control characters is left out.
func parseIdentity(jwt string) Identity {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return Identity{}
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return Identity{}
	}
	var claims map[string]json.RawMessage
	if json.Unmarshal(data, &claims) != nil {
		return Identity{}
	}
	claim := func(name string) string {
		text := textField(claims[name])
		if len(text) > 320 || strings.ContainsFunc(text, isControl) {
			return ""
		}
		return text
	}
	return Identity{Username: claim("preferred_username"), Email: claim("email"), Tenant: claim("tid")}
}

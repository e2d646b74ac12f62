// Package weblogin is the part of OAuth2 that needs a person: the first login, with a
// browser on this machine or on another one. What comes of it is a grant, for which
// the token endpoint gives the first refresh token. The login with a device code
// needs no browser that comes back, and is in package token.
//
// [Browser] is the authorization code grant with PKCE, whose answer comes back to a
// port of the loopback interface or is pasted (RFC 6749 §4.1, RFC 7636, RFC 8252 §7.3).
package weblogin

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"mailsidecar/mailer"
	"mailsidecar/mailer/smtp/token"
)

const (
	// maxText limits what an error quotes of an answer, in octets.
	maxText = 500
	// maxNumbers limits the numbers of an error.
	maxNumbers = 10
)

// Request is what a person is asked to allow.
type Request struct {
	// AuthorizeURL is the authorization endpoint. It may have a query of its own.
	AuthorizeURL string
	ClientID     string
	Scopes       []string
	Params       map[string]string // further parameters, for one issuer
	// RedirectHost is the host of the redirect URI: "localhost" or a loopback address,
	// as it is registered with the client.
	RedirectHost string
	// Port is where the browser comes back to; zero means any that is free.
	Port int
}

// Grant is a login that succeeded: what the token endpoint wants to see. Code and
// Verifier are secrets, and of use once.
type Grant struct {
	Code, Verifier, RedirectURI string
}

// RefusedError is an error in place of a grant (RFC 6749 §4.1.2.1): the person
// declined, or the issuer does not let this account or this client in. Both texts are
// printable; Description may be empty.
type RefusedError struct {
	Code, Description string
	Numbers           []int // Microsoft's, that the description names as AADSTS…
}

// aadsts finds Microsoft's numbers in a description.
var aadsts = regexp.MustCompile(`AADSTS(\d{4,8})\b`)

func newRefusedError(code, description string) *RefusedError {
	e := &RefusedError{Code: oneLine(code), Description: oneLine(description)}
	for _, m := range aadsts.FindAllStringSubmatch(e.Description, maxNumbers) {
		n, _ := strconv.Atoi(m[1]) // a few digits
		e.Numbers = append(e.Numbers, n)
	}
	return e
}

func (e *RefusedError) Error() string {
	if e.Description == "" {
		return "the login was refused: " + e.Code
	}
	return fmt.Sprintf("the login was refused: %s: %s", e.Code, e.Description)
}

var (
	errForeign  = errors.New("this is the answer to another login, perhaps an older one: its state differs")
	errNoAnswer = errors.New("this is not the answer to a login: it has no code")
	errTwice    = errors.New("this is not the answer to a login: a parameter is there twice")
)

// proof is what ties an answer to its request: state to this process (RFC 6749
// §10.12), and the verifier to the code (RFC 7636).
type proof struct {
	state, verifier string
}

// newProof makes both of 256 random bits, 43 characters long.
func newProof() proof { return proof{state: token.NewVerifier(), verifier: token.NewVerifier()} }

// authorizeURL returns the address where the person logs in.
func (r Request) authorizeURL(redirect string, p proof) (string, error) {
	u, err := url.Parse(r.AuthorizeURL)
	if err != nil {
		return "", errors.New("the authorization endpoint is no URL")
	}
	query := u.Query()
	for name, value := range r.Params {
		query.Set(name, value)
	}
	for name, value := range map[string]string{
		"response_type": "code", "client_id": r.ClientID, "redirect_uri": redirect,
		"state":          p.state,
		"code_challenge": token.Challenge(p.verifier), "code_challenge_method": "S256",
	} {
		query.Set(name, value)
	}
	if len(r.Scopes) > 0 {
		query.Set("scope", strings.Join(r.Scopes, " "))
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// codeIn returns the code in the parameters of an answer. What is not the answer to
// this request never counts, whatever else it holds.
func (p proof) codeIn(answer url.Values) (string, error) {
	for _, name := range []string{"state", "code", "error"} {
		if len(answer[name]) > 1 {
			return "", errTwice
		}
	}
	code, refused := answer.Get("code"), answer.Get("error")
	switch {
	case code == "" && refused == "":
		return "", errNoAnswer
	case subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(p.state)) != 1:
		return "", errForeign
	case refused != "":
		return "", newRefusedError(refused, answer.Get("error_description"))
	default:
		return code, nil
	}
}

// oneLine is an issuer's text, fit for a terminal and a log.
func oneLine(text string) string {
	return mailer.Printable(strings.Join(strings.Fields(text), " "), maxText)
}

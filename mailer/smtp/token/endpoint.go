package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mailsidecar/mailer"
)

const (
	// RequestTimeout limits one request to an endpoint, from the connection to the end
	// of the answer.
	RequestTimeout = 30 * time.Second
	// maxAnswer limits the answer of an endpoint, in octets.
	maxAnswer = 1 << 20
	// maxAnswerHeader limits its header section, in octets.
	maxAnswerHeader = 64 << 10
)

// Endpoint is an OAuth2 server as one client sees it. It is safe for concurrent use.
type Endpoint struct {
	// TokenURL is the token endpoint, an https URL.
	TokenURL string
	Client   Client
	// Transport sends the requests; nil means one that uses the proxy of HTTPS_PROXY.
	// Redirects are never followed.
	Transport http.RoundTripper
}

// defaultTransport keeps no connections: a request comes about once an hour.
var defaultTransport = &http.Transport{
	Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	MaxResponseHeaderBytes: maxAnswerHeader, TLSHandshakeTimeout: 15 * time.Second,
	OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
		if answer.StatusCode != http.StatusOK {
			return &ProxyError{answer.StatusCode}
		}
		return nil
	},
}

// ProxyError is an HTTP proxy that lets no connection to the endpoint pass.
type ProxyError struct{ Status int }

func (e *ProxyError) Error() string {
	return fmt.Sprintf("the HTTP proxy answered %d", e.Status)
}

// answered is one answer of an endpoint, read as a whole.
type answered struct {
	response *http.Response             // its body is closed
	fields   map[string]json.RawMessage // of the JSON object; nil where it is none
	skew     time.Duration
}

// names reports whether the answer has the field. Some servers send null, or an empty
// text, for what others leave out.
func (a answered) names(field string) bool {
	value := string(a.fields[field])
	return value != "" && value != "null" && value != `""`
}

// request asks for a token. An answer without one is an [*Error]. If the access token
// alone is of no use, the refresh token comes with that error: it may have replaced the
// one that was sent.
func (e *Endpoint) request(ctx context.Context, form url.Values) (Answer, error) {
	a, secrets, err := e.post(ctx, e.TokenURL, form)
	if err != nil {
		return Answer{}, err
	}
	if a.response.StatusCode != http.StatusOK || a.fields == nil || a.names("error") {
		return Answer{}, a.refused(secrets)
	}
	answer, err := parseAnswer(a.fields)
	if err != nil {
		return answer, &Error{Status: a.response.StatusCode, Description: err.Error(), Skew: a.skew}
	}
	answer.Skew = a.skew
	return answer, nil
}

// refused makes an error of the answer. One that is no JSON object of OAuth2 says so:
// it often comes from a proxy, or from a URL that is no token endpoint.
func (a answered) refused(secrets []string) *Error {
	err := refusal(a.response, a.fields, time.Now(), secrets)
	err.Skew = a.skew
	if err.Code != "" {
		return err
	}
	switch {
	case a.response.StatusCode/100 == 3:
		err.Description = "it redirects to another address, which is not followed; is the token URL right?"
	case a.fields == nil:
		err.Description = "the answer is no JSON object; does a proxy answer, and is the token URL right?"
	}
	return err
}

// post sends a form with the client's proof and reads the answer. It returns the
// secrets that were sent.
func (e *Endpoint) post(ctx context.Context, to string, form url.Values) (a answered, secrets []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	header := http.Header{}
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Accept", "application/json")
	if err := e.Client.prove(form, header, e.TokenURL); err != nil {
		return answered{}, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return answered{}, nil, errors.New("the token URL is no URL")
	}
	r.Header = header
	for _, name := range secretFields {
		secrets = append(secrets, form[name]...)
	}
	_, basic, _ := strings.Cut(header.Get("Authorization"), " ")
	secrets = append(secrets, e.Client.Secret, basic)
	a, err = e.exchange(r)
	if err != nil {
		err = fmt.Errorf("token endpoint %s: %w", r.URL.Host, bare(err, secrets))
	}
	return a, secrets, err
}

// secretFields are the fields of a form that no error may show.
var secretFields = []string{
	"refresh_token", "client_secret", "client_assertion", "assertion", "code", "code_verifier", "device_code",
}

// exchange sends a request and reads the answer, which is limited.
func (e *Endpoint) exchange(r *http.Request) (answered, error) {
	client := &http.Client{
		Transport: e.Transport,
		// A redirect would carry the secrets to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if e.Transport == nil {
		client.Transport = defaultTransport
	}
	sent := time.Now()
	response, err := client.Do(r)
	if err != nil {
		return answered{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answered{}, err
	case len(body) > maxAnswer:
		return answered{}, fmt.Errorf("the answer is over %d octets long", maxAnswer)
	}
	a := answered{response: response, skew: clockSkew(response.Header.Get("Date"), sent, time.Now())}
	if json.Unmarshal(body, &a.fields) != nil {
		a.fields = nil
	}
	return a, nil
}

// clockSkew returns how far the clock that gave the Date field is ahead of ours.
func clockSkew(date string, sent, received time.Time) time.Duration {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	// The field has whole seconds, and was written between the two times.
	switch {
	case theirs.Before(sent.Add(-time.Second)):
		return theirs.Sub(sent)
	case theirs.After(received):
		return theirs.Sub(received)
	default:
		return 0
	}
}

// bare is err without the URL that net/http puts in front, printable, and without the
// secrets.
func bare(err error, secrets []string) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	text := mailer.Printable(mailer.Redact(err.Error(), secrets), maxErrorText)
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/api"
	"mailsidecar/config"
)

// client is a client of a running server whose errors know their exit status.
type client struct {
	*api.Client
	// offline says that the client calls the server itself, without a network.
	offline bool
	// cmd is the command that asks, whose flags errors name; nil names the interface's fields.
	cmd *cobra.Command
}

// connect returns a client of the server that MAILSIDECAR_URL names, or that the
// same configuration would start here.
func connect(cmd *cobra.Command, timeout time.Duration) (*client, error) {
	cfg, err := config.LoadClient()
	if err != nil {
		return nil, misconfigured(err, nil)
	}
	return configuredClient(cmd, cfg, timeout)
}

func configuredClient(cmd *cobra.Command, cfg config.Client, timeout time.Duration) (*client, error) {
	c, err := newClient(cfg.URL, cfg.APIKey.Reveal(), timeout)
	if err != nil {
		return nil, err
	}
	c.cmd = cmd
	trust, err := api.Trust(cfg.TLSCAFile)
	if err != nil {
		return nil, &statusError{exitConfig, err}
	}
	if trust != nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = trust
		c.HTTP.Transport = transport
	}
	return c, nil
}

// newClient returns a client of the server at base. timeout limits one request
// with its answer.
func newClient(base, key string, timeout time.Duration) (*client, error) {
	c, err := api.New(base, key, buildVersion().version, timeout)
	if err != nil {
		return nil, &statusError{exitConfig, err}
	}
	return &client{Client: c}, nil
}

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   []byte
	from   *client // that asked; nil in tests
}

// do sends one request and reads the whole answer. The error says that there is
// no answer of mailsidecar; what kind of answer it is, is for the caller to judge.
func (c *client) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	got, err := c.Do(ctx, method, path, header, body)
	var none *api.NoAnswerError
	var foreign *api.ForeignAnswerError
	switch {
	case err == nil:
		return answer{got.Status, got.Header, got.Body, c}, nil
	case errors.As(err, &foreign):
		return answer{}, &statusError{exitUnavailable, err}
	case !errors.As(err, &none):
		return answer{}, err
	case none.Connected:
		return answer{}, &statusError{exitUncertain, err}
	default:
		return answer{}, &statusError{exitUnavailable, err}
	}
}

// problem is an error answer.
type problem struct {
	api.Problem
	offline bool           // it came from no server
	cmd     *cobra.Command // that asked; may be nil
}

// problem reads the answer as an error. One that has no code becomes a problem
// without a code.
func (a answer) problem() problem {
	var p problem
	if err := json.Unmarshal(a.body, &p.Problem); err != nil || p.Code == "" {
		p.Problem = api.Problem{Title: http.StatusText(a.status), Detail: cmp.Or(api.Answer{Header: a.header, Body: a.body}.Text(), "the answer cannot be read")}
	}
	p.Status = a.status
	if p.Code == api.CodeUnauthorized {
		p.Detail = a.keyAdvice()
	}
	if a.from != nil {
		p.offline, p.cmd = a.from.offline, a.from.cmd
	}
	return p
}

// keyAdvice says which variable to set, where the server's own words are for
// authors of HTTP requests.
func (a answer) keyAdvice() string {
	const remedy = "set MAILSIDECAR_API_KEY to the secret, without the name, of one of the server's MAILSIDECAR_API_KEYS"
	if a.from != nil && a.from.HasKey() {
		return "the server does not know the key that was sent: " + remedy
	}
	return "no key was sent: " + remedy + ". Only where that variable is set here, too, and holds a single key, is it taken by itself"
}

// repeats says that the detail is one of the errors, which are printed anyway.
func (p problem) repeats() bool {
	for _, e := range p.Errors {
		if p.Detail == e.Field+": "+e.Message {
			return true
		}
	}
	return false
}

// err makes an error of a refusal: what the server said, and the exit status
// that goes with it.
func (p problem) err() error {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" && strings.TrimSuffix(p.Detail, ".") != p.Title && !p.repeats() {
		b.WriteString(": " + inFlags(p.cmd, p.Detail))
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", cmp.Or(flagOf(p.cmd, e.Field), e.Field), inFlags(p.cmd, e.Message))
	}
	fmt.Fprintf(&b, "\n  (%s)", strings.Join(p.origin(), ", "))
	return &statusError{p.exitStatus(), errors.New(b.String())}
}

// origin is for a search of the cause: the answer's status and code, and the
// request's id in the server's log.
func (p problem) origin() []string {
	if p.offline {
		return []string{string(p.Code)}
	}
	all := []string{fmt.Sprintf("HTTP %d", p.Status)}
	if p.Code != "" {
		all = append(all, string(p.Code))
	}
	if p.RequestID != "" {
		all = append(all, "request "+p.RequestID)
	}
	return all
}

func (p problem) exitStatus() int {
	switch {
	case p.Code == api.CodeInvalidParameter:
		return exitUsage // parameters come from flags
	case p.Code == api.CodeUncertain:
		return exitUncertain
	case p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden:
		return exitNoPerm
	case p.Retryable:
		return exitTransient
	case p.Status >= 500 || p.Code == "":
		return exitUnavailable
	default:
		return exitRefused
	}
}

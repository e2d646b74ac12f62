package token

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// issuer plays a token endpoint, as the transport of its clients.
type issuer struct {
	// rotate replaces the refresh token with each use. Then, with reuseKills, a use of
	// an earlier one ends the family, and without it the earlier ones stay good, as
	// with Microsoft.
	rotate, reuseKills bool
	life               int // of access tokens, in seconds; zero leaves it out
	latency            time.Duration
	// fail, if not nil, makes the answer to a request; nil from it means the usual one.
	fail func(n int, form url.Values) *http.Response

	mu      sync.Mutex
	forms   []url.Values
	refresh []string // good ones, oldest first
	dead    bool
	issued  int // access tokens
	busy    int
	overlap bool // two requests came at a time
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	i.busy++
	i.overlap = i.overlap || i.busy > 1
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.busy--
	}()
	if i.latency > 0 {
		select {
		case <-time.After(i.latency):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forms = append(i.forms, form)
	if i.fail != nil {
		if answer := i.fail(len(i.forms), form); answer != nil {
			if answer.StatusCode == 0 { // from another port each time, and to another address
				return nil, &net.OpError{
					Op: "read", Net: "tcp", Err: syscall.ECONNRESET,
					Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: len(i.forms)},
					Addr:   &net.TCPAddr{IP: net.IP{0x20, 0x01, 0x0d, 0xb8, 15: byte(len(i.forms))}, Port: 443},
				}
			}
			return answer, nil
		}
	}
	return i.grant(form), nil
}

// grant answers as the endpoint does in health. The caller holds the lock.
func (i *issuer) grant(form url.Values) *http.Response {
	answer := map[string]any{"token_type": "Bearer"}
	if used := form.Get("refresh_token"); used != "" {
		if i.refresh == nil {
			i.refresh = []string{used} // the configured one
		}
		known, last := -1, len(i.refresh)-1
		for n, token := range i.refresh {
			if token == used {
				known = n
			}
		}
		if known < 0 || i.dead || i.reuseKills && known < last {
			i.dead = i.dead || known >= 0
			return answerWith(400, `{"error":"invalid_grant","error_description":"the token is spent or revoked"}`)
		}
		if i.rotate {
			next := fmt.Sprintf("refresh%d", len(i.refresh))
			i.refresh = append(i.refresh, next)
			answer["refresh_token"] = next
		}
	}
	i.issued++
	answer["access_token"] = fmt.Sprintf("access%d", i.issued)
	if i.life > 0 {
		answer["expires_in"] = i.life
	}
	data, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	return answerWith(200, string(data))
}

// answerWith is an answer of an endpoint. Further arguments are names and values of
// header fields.
func answerWith(status int, body string, header ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	return r
}

// noAnswer stands for a connection that fails.
var noAnswer = &http.Response{}

func (i *issuer) asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.forms)
}

func (i *issuer) form(n int) url.Values {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.forms[n]
}

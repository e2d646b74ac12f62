package handler

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/netaddr"
	"mailsidecar/queue"
	"mailsidecar/units"
)

// Key is an API key. Messages belong to the key, by its name, that submitted
// them.
type Key struct {
	Name   string
	Secret string `json:"-"`
	// Rate is how many messages may be submitted in a time; zero means any number.
	// As many may come at once.
	Rate units.Rate
	// Senders are the addresses ("a@example.com") and domains ("example.com")
	// that may stand in From; none means any.
	Senders []string
}

// LogValue keeps the secret out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.Name) }

// String keeps the secret out of everything else.
func (k Key) String() string { return k.Name }

// apiKey is a Key that no longer knows its secret.
type apiKey struct {
	name    string
	digest  [sha256.Size]byte
	rate    units.Rate
	senders []string
}

func hashKeys(keys []Key) ([]apiKey, error) {
	seen := map[string]bool{}
	var hashed []apiKey
	for _, k := range keys {
		switch {
		case k.Name == "" || k.Name == queue.AnyKey:
			return nil, fmt.Errorf("an API key cannot be named %q", k.Name)
		case k.Secret == "":
			return nil, fmt.Errorf("API key %s has no secret", k.Name)
		case seen[k.Name]:
			return nil, fmt.Errorf("API key %s is given twice", k.Name)
		}
		seen[k.Name] = true
		a := apiKey{name: k.Name, digest: sha256.Sum256([]byte(k.Secret)), rate: k.Rate}
		for _, sender := range k.Senders {
			a.senders = append(a.senders, strings.ToLower(sender))
		}
		hashed = append(hashed, a)
	}
	return hashed, nil
}

// authenticate finds the request's key. It looks at the header only, so that a
// stranger's body is never read.
func (s *Server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if len(s.keys) == 0 {
			if err := checkLoopback(c.Request()); err != nil {
				return err
			}
		} else {
			k, err := s.keyOf(c.Request().Header.Values(echo.HeaderAuthorization))
			if err != nil {
				return err
			}
			request(c).key = k.name
		}
		if s.version != "" { // nobody else is told
			c.Response().Header().Set(echo.HeaderServer, "mailsidecar/"+s.version)
		}
		return next(c)
	}
}

// checkLoopback refuses what a foreign name led here, where no key is asked for.
func checkLoopback(r *http.Request) error {
	if loopbackHost(r.Host) {
		return nil
	}
	return problem.New(api.CodeForeignHost, "Without API keys only localhost and loopback addresses are answered as Host.")
}

func (s *Server) keyOf(authorization []string) (*apiKey, error) {
	if len(authorization) != 1 {
		return nil, problem.New(api.CodeUnauthorized, "Send the key in one field: Authorization: Bearer KEY.")
	}
	scheme, secret, _ := strings.Cut(authorization[0], " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return nil, problem.New(api.CodeUnauthorized, wrongScheme(scheme, secret))
	}
	return s.findKey(secret)
}

// findKey returns the key with that secret.
func (s *Server) findKey(secret string) (*apiKey, error) {
	digest := sha256.Sum256([]byte(secret))
	var found *apiKey
	for i := range s.keys { // all of them, so that the time tells nothing
		if subtle.ConstantTimeCompare(digest[:], s.keys[i].digest[:]) == 1 {
			found = &s.keys[i]
		}
	}
	if found == nil {
		return nil, problem.New(api.CodeUnauthorized, unknownKey(secret))
	}
	return found, nil
}

// unknownKey reminds whoever may have sent a whole entry of the configuration.
// It does so whatever the name is, for a stranger need not learn which there are.
func unknownKey(secret string) string {
	if strings.Contains(secret, ":") {
		return "The API key is not known here. If a name and a colon stand before it, send what follows the colon, alone."
	}
	return "The API key is not known here."
}

// wrongScheme names the scheme used, unless that could be the key itself, sent
// without any scheme.
func wrongScheme(scheme, secret string) string {
	for _, known := range []string{"Basic", "Digest", "Token", "Negotiate", "NTLM", "ApiKey"} {
		if strings.EqualFold(scheme, known) {
			return "The scheme " + known + " is not understood: send Authorization: Bearer KEY."
		}
	}
	if strings.EqualFold(scheme, "Bearer") && secret == "" {
		return "The key after Bearer is missing."
	}
	return "The scheme is missing or not understood: send Authorization: Bearer KEY."
}

// loopbackHost says whether a Host header names this machine. A foreign name
// that resolves to 127.0.0.1 (DNS rebinding) does not.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return strings.HasSuffix(name, ".localhost") || netaddr.IsLoopback(strings.Trim(name, "[]"))
}

// key returns the settings of the named key; the keyless one has none.
func (s *Server) key(name string) apiKey {
	for _, k := range s.keys {
		if k.name == name {
			return k
		}
	}
	return apiKey{}
}

// maySend says whether the key's settings let it send from the address.
func (k apiKey) maySend(sender string) bool {
	if len(k.senders) == 0 {
		return true
	}
	sender = strings.ToLower(sender)
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	for _, allowed := range k.senders {
		if allowed == sender || allowed == domain {
			return true
		}
	}
	return false
}

// limiter holds each key to its rate (a token bucket, kept as the time at which
// it will be full again).
type limiter struct {
	mu   sync.Mutex
	full map[string]time.Time
}

// take spends n messages of the key's rate, or returns how long to wait.
func (l *limiter) take(k apiKey, n int, now time.Time) (wait time.Duration, ok bool) {
	if k.rate.Messages <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == nil {
		l.full = map[string]time.Time{}
	}
	full := l.full[k.name]
	if full.Before(now) {
		full = now
	}
	after := full.Add(time.Duration(n) * k.rate.Per / time.Duration(k.rate.Messages))
	// A batch larger than the whole bucket passes when the bucket is full.
	if wait := after.Sub(now) - k.rate.Per; wait > 0 && full.After(now) {
		return min(wait, full.Sub(now)), false
	}
	l.full[k.name] = after
	return 0, true
}

// charge takes n messages from the key's rate: last of all, for what is refused
// for another reason uses none of it.
func (s *Server) charge(c echo.Context, n int) error {
	key := s.key(request(c).key)
	wait, ok := s.limiter.take(key, n, time.Now())
	if ok {
		return nil
	}
	p := problem.New(api.CodeRateLimited, fmt.Sprintf("The rate of the key %s, %s in MAILSIDECAR_KEY_RATES, is used up.", key.name, key.rate))
	p.RetryAfter = wholeSeconds(wait)
	return p
}

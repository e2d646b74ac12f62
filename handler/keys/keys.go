// Package keys knows the API keys: whose a request is, which senders the key may use
// and how many messages it may submit.
package keys

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"mailsidecar/api"
	"mailsidecar/handler/conns"
	"mailsidecar/handler/problem"
	"mailsidecar/mailer"
	"mailsidecar/units"
)

// Entry is an API key as it is configured.
type Entry struct {
	Name   string
	Secret string `json:"-"`
	// Rate is how many messages may be submitted in a time; zero means any number.
	// Bursts up to this number are allowed.
	Rate units.Rate
	// Senders are the addresses ("a@example.com") and domains ("example.com")
	// that are allowed in From; without any, every sender is.
	Senders []string
	// Roles are what the key may do, as in MAILSIDECAR_KEY_ROLES; without any, it may
	// send, and read its own messages.
	Roles []string
}

// LogValue keeps the secret out of logs.
func (e Entry) LogValue() slog.Value { return slog.StringValue(e.Name) }

// String keeps the secret out of everything else.
func (e Entry) String() string { return e.Name }

// Key is an API key in use. Messages belong to the key, by its name, that submitted
// them. The nil Key is that of a request that has proven none: it has no role.
type Key struct {
	name    string
	digest  [sha256.Size]byte
	senders []string // in lower case
	rate    units.Rate
	bucket  bucket
	shared  *sharedBucket // in place of bucket; nil: the rate is this instance's alone
	roles   Role
	used    atomic.Int64 // when a request last proved the key, in Unix nanoseconds; 0: never
}

// Name is the key's name; empty for the nil Key and on a server without keys.
func (k *Key) Name() string {
	if k == nil {
		return ""
	}
	return k.name
}

// Bound reports whether the key may send from some addresses only.
func (k *Key) Bound() bool { return k != nil && len(k.senders) > 0 }

// MaySend reports whether the key may send from the address.
func (k *Key) MaySend(sender string) bool {
	if !k.Bound() {
		return true
	}
	sender = mailer.Lower(sender)
	domain := sender[strings.LastIndexByte(sender, '@')+1:]
	for _, allowed := range k.senders {
		if allowed == sender || allowed == domain {
			return true
		}
	}
	return false
}

// Enter makes the request of this context one of the key, or returns a problem if the
// key has too many requests under way. Call it when the request has proven the key.
func (k *Key) Enter(ctx context.Context) error {
	if k != nil {
		k.used.Store(time.Now().UnixNano())
	}
	if conns.Prove(ctx, k.Name()) {
		return nil
	}
	return problem.New(api.CodeBusy, "Too many requests are under way with this key. One key may have half of MAILSIDECAR_MAX_CONNECTIONS, and less while others have many.")
}

// maxBursts is how many times its rate's number of messages a key may submit at once.
// The bucket is full again after as many times the rate's period: without a limit that
// would be a time that no client waits for.
const maxBursts = 1000

// Charge takes n messages from the key's rate, or returns a problem that says when to
// come again. Call it last: a request that is refused for another reason uses none of
// the rate.
func (k *Key) Charge(n int) error {
	if k == nil {
		return nil
	}
	if most := maxBursts * k.rate.Messages; k.rate.Messages > 0 && n > most {
		return problem.New(api.CodeTooManyMessages, fmt.Sprintf("A request of the key %s may have %d messages, a thousand times its rate, %s in MAILSIDECAR_KEY_RATES.", k.name, most, k.rate))
	}
	wait, ok, err := k.take(n)
	switch {
	case err != nil:
		return problem.New(api.CodeQueueUnavailable, "The database of the queue does not answer, which has the rates of keys. Nothing was stored.")
	case ok:
		return nil
	}
	p := problem.New(api.CodeRateLimited, fmt.Sprintf("The rate of the key %s, %s in MAILSIDECAR_KEY_RATES, is used up.", k.name, k.rate))
	p.RetryAfter = problem.Seconds(wait)
	return p
}

func (k *Key) take(n int) (wait time.Duration, ok bool, err error) {
	if k.shared != nil {
		return k.shared.take(k.rate, n)
	}
	wait, ok = k.bucket.take(k.rate, n, time.Now())
	return wait, ok, nil
}

// Ring holds the keys of a server.
type Ring struct {
	keys []*Key
	// keyless is the key of every request to a server without keys. It has no name and no
	// limits: whoever is on this host may do everything.
	keyless *Key
	// signers are by name; nil unless secrets are kept.
	signers map[string]signer
	// decoy takes the place of a key's secret for names that no key has.
	decoy string
}

type signer struct {
	key    *Key
	secret string
}

// NewRing returns a ring of the keys. It keeps their digests and, where keepSecrets
// says so, the secrets: a signature cannot be checked with a digest.
func NewRing(entries []Entry, keepSecrets bool) (*Ring, error) {
	r := &Ring{keyless: &Key{roles: everything}}
	seen := map[string]bool{}
	for _, e := range entries {
		switch {
		case e.Name == "":
			return nil, fmt.Errorf("an API key cannot be named %q", e.Name)
		case e.Secret == "":
			return nil, fmt.Errorf("API key %s has no secret", e.Name)
		case seen[e.Name]:
			return nil, fmt.Errorf("API key %s is given twice", e.Name)
		}
		seen[e.Name] = true
		roles, err := ParseRoles(e.Roles)
		if err != nil {
			return nil, fmt.Errorf("API key %s: %w", e.Name, err)
		}
		k := &Key{name: e.Name, digest: sha256.Sum256([]byte(e.Secret)), rate: e.Rate, roles: roles}
		for _, sender := range e.Senders {
			k.senders = append(k.senders, mailer.Lower(sender))
		}
		r.keys = append(r.keys, k)
	}
	if keepSecrets {
		r.decoy = rand.Text()
		r.signers = map[string]signer{}
		for i, e := range entries {
			r.signers[e.Name] = signer{r.keys[i], e.Secret}
		}
	}
	return r, nil
}

// Empty reports whether there are no keys: then every request on loopback is let in.
func (r *Ring) Empty() bool { return len(r.keys) == 0 }

// Keyless is the key of a request to a server without keys, or a problem: it must come to a
// name of this host.
func (r *Ring) Keyless(req *http.Request) (*Key, error) {
	if err := checkLoopback(req); err != nil {
		return nil, err
	}
	return r.keyless, nil
}

// Bearer finds the key in an Authorization field (RFC 6750 §2.1). It looks at the
// header only, so that a stranger's body is never read.
func (r *Ring) Bearer(h http.Header) (*Key, error) {
	authorization := h.Values("Authorization")
	if len(authorization) != 1 {
		return nil, problem.New(api.CodeUnauthorized, "Send the key in one field: Authorization: Bearer KEY.")
	}
	scheme, secret, _ := strings.Cut(authorization[0], " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return nil, problem.New(api.CodeUnauthorized, wrongScheme(scheme, secret))
	}
	return r.Find(secret)
}

// Find returns the key with that secret.
func (r *Ring) Find(secret string) (*Key, error) {
	digest := sha256.Sum256([]byte(secret))
	var found *Key
	for _, k := range r.keys { // all of them, so that the time says nothing
		if subtle.ConstantTimeCompare(digest[:], k.digest[:]) == 1 {
			found = k
		}
	}
	if found == nil {
		return nil, problem.New(api.CodeUnauthorized, unknownKey(secret))
	}
	return found, nil
}

// Signer returns the key of that name and its secret. For an unknown name, and where
// secrets are not kept, the key is nil and the secret one that no client knows: let the
// caller do with it as with the others, so that strangers do not learn the names.
func (r *Ring) Signer(name string) (k *Key, secret string) {
	s, known := r.signers[name]
	if !known {
		s.secret = r.decoy
	}
	return s.key, s.secret
}

// unknownKey reminds a client that may have sent a whole entry of the configuration.
// It does so whatever the name is, so that a stranger does not learn the names.
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

// Named returns the key of that name, or nil. On a server without keys the empty name is that
// of the key of every request.
func (r *Ring) Named(name string) *Key {
	if r.Empty() && name == "" {
		return r.keyless
	}
	for _, k := range r.keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

// MAC authenticates text with the digest of the secret; nil for the nil Key. Do not call it
// on a server without keys.
func (k *Key) MAC(text string) []byte {
	if k == nil {
		return nil
	}
	return MAC(k.digest[:], text)
}

// MAC is HMAC-SHA256 (RFC 2104).
func MAC(secret []byte, text string) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(text))
	return m.Sum(nil)
}

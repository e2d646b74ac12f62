package token

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// KeySize is the length of a [SealedStore]'s key, in octets.
const KeySize = 32

// Vault keeps values for relays in a place that several machines share, and that others may
// read. It is safe for concurrent use.
type Vault interface {
	// Load returns the relay's value; nil where there is none.
	Load(ctx context.Context, relay int) ([]byte, error)
	// Save replaces it, durably.
	Save(ctx context.Context, relay int, value []byte) error
	// Lock is that of [Store].
	Lock(ctx context.Context, relay int) (unlock func(), err error)
	// Holds says whether a lock that was taken still lasts: it may end with a connection, or after
	// some time in which Holds is not called.
	Holds(relay int) bool
	// Place names the vault.
	Place() string
}

// SealedStore keeps logins in a vault, sealed with a key (AES-256-GCM): who can read the vault,
// or a copy of it, has no login. All instances that share it use one login.
type SealedStore struct {
	// Careful is that of [FileStore].
	Careful bool

	vault Vault
	aead  cipher.AEAD
}

var (
	_ Store  = (*SealedStore)(nil)
	_ prober = (*SealedStore)(nil)
)

// NewSealedStore returns the store. The key has [KeySize] octets.
func NewSealedStore(vault Vault, key []byte) (*SealedStore, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the key has %d octets, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// Each value gets a nonce of its own at random, which begins it. Logins are sealed some times in an hour:
	// that two are ever alike need not be feared before 2^32 of them.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &SealedStore{vault: vault, aead: aead}, nil
}

// sealedVersion begins what is stored, for another form to come.
const sealedVersion = 1

// bound is what a sealed value is bound to, so that nobody can put it in another's place.
func bound(relay int) []byte { return fmt.Appendf(nil, "mailsidecar oauth2 login %d", relay) }

// errSealed: the value was not sealed with this key, or not for this relay, or it was changed.
var errSealed = errors.New("it was sealed with another key than that in MAILSIDECAR_STORE_KEY_FILE, or changed")

// Load returns the relay's record. One that was sealed with another key is a [*DamagedError].
func (s *SealedStore) Load(ctx context.Context, relay int) (Record, error) {
	value, err := s.vault.Load(ctx, relay)
	if err != nil {
		return Record{}, err
	}
	if value == nil {
		return Record{}, ErrNotStored
	}
	if value[0] != sealedVersion {
		return Record{}, &DamagedError{s.vault.Place(), fmt.Errorf("it has the form %d of a newer version", value[0])}
	}
	data, err := s.aead.Open(nil, nil, value[1:], bound(relay))
	if err != nil {
		return Record{}, &DamagedError{s.vault.Place(), errSealed}
	}
	r, err := ParseRecord(data)
	if err != nil {
		return Record{}, &DamagedError{s.vault.Place(), err}
	}
	return r, nil
}

// Save seals the record, and replaces the relay's.
func (s *SealedStore) Save(ctx context.Context, relay int, r Record) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	value := s.aead.Seal([]byte{sealedVersion}, nil, data, bound(relay)) //nolint:gosec // it makes its own nonce, at random
	return s.vault.Save(ctx, relay, value)
}

// Lock takes the lock of the relay's record, which holds between instances.
func (s *SealedStore) Lock(ctx context.Context, relay int) (unlock func(), err error) {
	return s.vault.Lock(ctx, relay)
}

func (s *SealedStore) holds(relay int) bool { return s.vault.Holds(relay) }

// Lasting is true.
func (s *SealedStore) Lasting() bool { return true }

// probe writes what is there once more, or something that is no login and is removed.
func (s *SealedStore) probe(relay int) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveAgain)
	defer cancel()
	value, err := s.vault.Load(ctx, relay)
	if err != nil {
		return err
	}
	return s.vault.Save(ctx, relay, value)
}

func (s *SealedStore) careful() bool { return s.Careful }

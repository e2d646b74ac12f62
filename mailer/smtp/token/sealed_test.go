package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memoryVault is a vault that instances in one process share.
type memoryVault struct {
	MemoryStore // for its locks
	mu          sync.Mutex
	values      map[int][]byte
	fault       error
	late        bool // locks are granted when ctx has ended
	ended       bool // the lock has, though nobody has ended it
}

func (v *memoryVault) Lock(ctx context.Context, relay int) (unlock func(), err error) {
	v.mu.Lock()
	late := v.late
	v.ended = false
	v.mu.Unlock()
	if late {
		<-ctx.Done()
		ctx = context.WithoutCancel(ctx)
	}
	return v.MemoryStore.Lock(ctx, relay)
}

func (v *memoryVault) Holds(int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.ended
}

func (v *memoryVault) Load(_ context.Context, relay int) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return bytes.Clone(v.values[relay]), v.fault
}

func (v *memoryVault) Save(_ context.Context, relay int, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fault != nil {
		return v.fault
	}
	if v.values == nil {
		v.values = map[int][]byte{}
	}
	v.values[relay] = bytes.Clone(value)
	return nil
}

func (v *memoryVault) Place() string { return "the vault" }

func sealedStore(t *testing.T, v Vault, key byte) *SealedStore {
	t.Helper()
	s, err := NewSealedStore(v, bytes.Repeat([]byte{key}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealed: a login is read again with its key, for its relay, and as it was written; nothing of it can be read in the
// vault.
func TestSealed(t *testing.T) {
	v := &memoryVault{}
	s := sealedStore(t, v, 1)
	if _, err := s.Load(t.Context(), 1); !errors.Is(err, ErrNotStored) {
		t.Errorf("Load of nothing = %v, want %v", err, ErrNotStored)
	}
	if err := s.probe(1); err != nil {
		t.Errorf("probe = %v", err)
	}
	want := Record{RefreshToken: "refresh-secret", AccessToken: "access-secret", TokenURL: "https://login.example.com/token", ClientID: "id", Issued: time.Unix(1, 0).UTC()}
	for range 2 {
		if err := s.Save(t.Context(), 1, want); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.probe(1); err != nil {
		t.Errorf("probe = %v", err)
	}
	got, err := s.Load(t.Context(), 1)
	if err != nil || !got.same(want) {
		t.Errorf("Load = %+v, %v, want %+v", got, err, want)
	}
	sealed := bytes.Clone(v.values[1])
	for _, secret := range []string{"secret", "example.com"} {
		if bytes.Contains(sealed, []byte(secret)) {
			t.Errorf("the vault has %q", secret)
		}
	}
	if err := s.Save(t.Context(), 1, want); err != nil || bytes.Equal(v.values[1], sealed) {
		t.Errorf("the same login is sealed to the same octets twice, %v", err)
	}
	damaged := func(what string, s *SealedStore, relay int) {
		t.Helper()
		if _, err := s.Load(t.Context(), relay); !errors.As(err, new(*DamagedError)) {
			t.Errorf("%s: Load = %v, want a DamagedError", what, err)
		}
	}
	damaged("another key", sealedStore(t, v, 2), 1)
	v.values[2] = sealed
	damaged("the place of another relay", s, 2)
	for _, i := range []int{0, 1, 20, len(sealed) - 1} {
		v.values[1] = bytes.Clone(sealed)
		v.values[1][i] ^= 1
		damaged(fmt.Sprintf("octet %d is another one", i), s, 1)
	}
	for _, n := range []int{1, 2, 13, 20} {
		v.values[1] = sealed[:n]
		damaged(fmt.Sprintf("only %d octets", n), s, 1)
	}
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := NewSealedStore(v, make([]byte, n)); err == nil {
			t.Errorf("a key of %d octets is taken", n)
		}
	}
	v.fault = errors.New("away")
	if _, err := s.Load(t.Context(), 1); !errors.Is(err, v.fault) || errors.Is(err, ErrNotStored) {
		t.Errorf("Load of a vault that is away = %v, want that it is", err)
	}
}

// TestSealedShared: instances that refresh at the same time, with an endpoint that ends the login when a spent refresh token comes
// again, lose no login.
func TestSealedShared(t *testing.T) {
	v, i := &memoryVault{}, &issuer{rotate: true, reuseKills: true, life: 3600, latency: 5 * time.Millisecond}
	for round := range 20 {
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				s := open(t, Options{
					Endpoint: Endpoint{TokenURL: "https://login.example.com/token", Client: Client{ID: "id"}, Transport: i},
					Scopes:   []string{fmt.Sprint("round", round)}, RefreshToken: "configured", Store: sealedStore(t, v, 1), Relay: 1,
				}, false)
				if _, err := s.Token(t.Context(), ""); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
	}
	stored, err := sealedStore(t, v, 1).Load(t.Context(), 1)
	if err != nil || i.dead || i.overlap || stored.RefreshToken != i.refresh[len(i.refresh)-1] {
		t.Errorf("the login ended: %v, two requests at a time: %v, stored %s, %v, want the newest of %d", i.dead, i.overlap, stored.RefreshToken, err, len(i.refresh))
	}
}

// TestSealedLateLock: a lock that is granted after the time to wait for it is given back.
func TestSealedLateLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &memoryVault{late: true}
		(&keeper{}).tryStore(t.Context(), &Source{opts: Options{Store: sealedStore(t, v, 1), Relay: 1}})
		v.late = false
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.Lock(ctx, 1); err != nil {
			t.Errorf("Lock after one that came late = %v", err)
		}
	})
}

// TestSealedLockEnds: a lock that is kept for a spent refresh token is used again while it lasts, and taken anew where the
// database has ended it.
func TestSealedLockEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &memoryVault{}
		s := &Source{opts: Options{Store: sealedStore(t, v, 1), Relay: 1}}
		ends := 0
		hold := func() {
			unlock, err := v.Lock(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			s.keeper.held = func() {
				ends++
				unlock()
			}
		}
		for _, ended := range []bool{false, true} {
			hold()
			v.ended = ended
			unlock, err := s.lockStore(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if took := ends == 1; took != ended || v.ended {
				t.Errorf("the lock has ended: %v; taken anew: %v", ended, took)
			}
			unlock()
			ends = 0
		}
	})
}

package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// loginOptions are those of a relay with the refresh token "configured".
func loginOptions(i *issuer, store Store) Options {
	return Options{
		Endpoint: Endpoint{TokenURL: "https://login.test/token", Client: Client{ID: "id", Secret: "client-secret"}, Transport: i},
		Scopes:   []string{"mail", "offline_access"}, RefreshToken: "configured", Store: store, Relay: 1,
	}
}

func clientOptions(i *issuer) Options {
	o := loginOptions(i, nil)
	o.Grant, o.RefreshToken = GrantClient, ""
	return o
}

// open makes a source that is closed with the test, and runs it if it is to run.
func open(t *testing.T, o Options, run bool) *Source {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if run {
			s.Run(ctx)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		s.Close(context.Background())
	})
	return s
}

// want checks the token that the source gives.
func want(t *testing.T, s *Source, refused, token string) {
	t.Helper()
	if got, err := s.Token(t.Context(), refused); got != token || err != nil {
		t.Errorf("Token(%q) = %q, %v, want %q", refused, got, err, token)
	}
}

func TestSourceFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{rotate: true, reuseKills: true, life: 3600}
		s := open(t, loginOptions(i, nil), false)
		want(t, s, "", "access1")
		want(t, s, "", "access1")
		time.Sleep(time.Hour - leastLeft)
		want(t, s, "", "access2")
		for n, refresh := range []string{"configured", "refresh1"} {
			form := i.form(n)
			if form.Get("grant_type") != "refresh_token" || form.Get("refresh_token") != refresh || form.Get("client_id") != "id" ||
				form.Get("client_secret") != "client-secret" || form.Get("scope") != "mail offline_access" {
				t.Errorf("request %d = %v, want the refresh token %s", n, form, refresh)
			}
		}
	})
}

// TestSourceAlone: all callers wait for one request.
func TestSourceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 3600, latency: 5 * time.Second}
		s := open(t, clientOptions(i), true)
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() { want(t, s, "", "access1") })
		}
		callers.Wait()
		if i.asked() != 1 || i.form(0).Get("grant_type") != "client_credentials" {
			t.Errorf("the endpoint was asked %d times, want once with client credentials", i.asked())
		}
	})
}

// TestSourceRenewsAhead: while Run goes on, a token has always as much time left as
// the pickiest relay wants, no caller waits, and the endpoint is asked once in the
// life of a token.
func TestSourceRenewsAhead(t *testing.T) {
	for _, tt := range []struct {
		life        int
		left        time.Duration // at least
		most, least int           // requests in a day
	}{
		{3600, 10 * time.Minute, 31, 29},
		{86400, 10 * time.Minute, 2, 2},
		{600, 2 * time.Minute, 200, 190},
		{60, 10 * time.Second, 2000, 1800},
		{0, time.Minute, 400, 380}, // unknown: taken for 5 minutes
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{rotate: true, reuseKills: true, life: tt.life, latency: 2 * time.Second}
			s := open(t, loginOptions(i, nil), true)
			time.Sleep(5 * time.Second)
			for range 24 * 60 * 6 {
				begin := time.Now()
				if _, err := s.Token(t.Context(), ""); err != nil {
					t.Fatalf("life %d s: %v", tt.life, err)
				}
				if waited := time.Since(begin); waited > 0 {
					t.Fatalf("life %d s: a caller waited %v", tt.life, waited)
				}
				if left := time.Until(s.Status().Expires); left < tt.left {
					t.Fatalf("life %d s: %v are left, want %v", tt.life, left, tt.left)
				}
				time.Sleep(10 * time.Second)
			}
			if n := i.asked(); n > tt.most || n < tt.least {
				t.Errorf("life %d s: the endpoint was asked %d times in a day, want %d to %d", tt.life, n, tt.least, tt.most)
			}
			if i.overlap {
				t.Errorf("life %d s: two requests at a time", tt.life)
			}
		})
	}
}

// TestAccessSuspended: a token ages while the machine sleeps, and while its clock is
// set back.
func TestAccessSuspended(t *testing.T) {
	begin := time.Now()
	a := access{"token", begin, begin.Add(time.Hour)}
	for _, tt := range []struct {
		name            string
		monotonic, wall time.Duration
		fresh, usable   bool
	}{
		{"at once", 0, 0, true, true},
		{"suspended for a while", time.Minute, 50 * time.Minute, false, true},
		{"suspended for long", time.Minute, 3 * time.Hour, false, false},
		{"clock set back", 50 * time.Minute, -3 * time.Hour, false, true},
		{"clock set back for long", 2 * time.Hour, time.Minute, false, false},
	} {
		now := later(t, begin, tt.monotonic, tt.wall)
		if fresh, usable := a.fresh(now), a.usable(now); fresh != tt.fresh || usable != tt.usable {
			t.Errorf("%s: fresh %v, usable %v, want %v, %v", tt.name, fresh, usable, tt.fresh, tt.usable)
		}
	}
}

// TestStoredAccessSuspended: that holds for a token from the store, too.
func TestStoredAccessSuspended(t *testing.T) {
	s, begin := open(t, loginOptions(&issuer{}, nil), false), time.Now()
	login := s.opts.configuredLogin(begin)
	login.AccessToken, login.AccessFetched, login.AccessExpires = "token", begin.Add(-time.Minute).Round(0), begin.Add(time.Hour).Round(0)
	if !s.useStored(login, "") || !s.access.usable(begin) {
		t.Fatal("the stored token is not used")
	}
	if s.access.usable(later(t, begin, 2*time.Hour, -3*time.Hour)) || s.access.usable(later(t, begin, time.Minute, 3*time.Hour)) {
		t.Error("the stored token is used after its end")
	}
}

// later returns a time after begin, with the difference that each of the two clocks
// shows. Package time cannot be asked for that.
func later(t *testing.T, begin time.Time, monotonic, wall time.Duration) time.Time {
	t.Helper()
	now := begin.Add(wall)
	clocks := (*struct { // of time.Time
		wall uint64
		ext  int64
	})(unsafe.Pointer(&now))
	clocks.ext += int64(monotonic - wall)
	if now.Sub(begin) != monotonic || now.Round(0).Sub(begin.Round(0)) != wall {
		t.Fatal("time.Time has another form than this test knows")
	}
	return now
}

// TestSourceReplaces: a token that the relay refuses is replaced before its time,
// unless it is that young that another one would fare no better.
func TestSourceReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, loginOptions(&issuer{life: 3600}, nil), false)
		for _, step := range []struct {
			after         time.Duration
			refused, want string
		}{
			{0, "", "access1"},
			{30 * time.Second, "access1", "access1"}, // too young
			{30 * time.Second, "", "access1"},
			{0, "access1", "access2"},
			{0, "access1", "access2"}, // another login had the old one, too
			{time.Minute, "access1", "access2"},
			{time.Minute, "access2", "access3"},
			{30 * time.Minute, "", "access3"},
		} {
			time.Sleep(step.after)
			want(t, s, step.refused, step.want)
		}
	})
}

// TestSourceSavesFromBadAnswer: a refresh token that was replaced is saved though the
// access token beside it is of no use.
func TestSourceSavesFromBadAnswer(t *testing.T) {
	for _, access := range []string{`""`, `"a b"`, `null`, `"` + strings.Repeat("x", maxToken+1) + `"`, `"a","token_type":"mac"`} {
		synctest.Test(t, func(t *testing.T) {
			i, store := &issuer{}, new(MemoryStore)
			i.fail = func(n int, _ url.Values) *http.Response {
				if n > 1 {
					return nil
				}
				i.refresh = []string{"next"}
				return answerWith(200, `{"refresh_token":"next","access_token":`+access+`}`)
			}
			s := open(t, loginOptions(i, store), false)
			if got, err := s.Token(t.Context(), ""); err == nil {
				t.Errorf("Token() = %q from the access token %.20s", got, access)
			}
			if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "next" || r.AccessToken != "" {
				t.Errorf("beside the access token %.20s, stored is %v, %v", access, r, err)
			}
			time.Sleep(longestPause)
			want(t, s, "", "access1")
		})
	}
}

// TestSourceFile: a token of another program is read each time, and only as one token.
func TestSourceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	s := open(t, Options{AccessTokenFile: path}, true)
	if _, err := s.Token(t.Context(), ""); err == nil {
		t.Error("Token() without a file gave a token")
	}
	for _, tt := range []struct{ text, want string }{
		{"one\n", "one"}, {"two", "two"}, {"\n", ""}, {"a\nb", ""}, {"a\x01b", ""}, {strings.Repeat("x", maxToken+1), ""},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Token(t.Context(), ""); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Token() with file %.20q = %.20q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	if _, err := New(Options{AccessToken: "a\x01b"}); err == nil {
		t.Error("New() took a token with a control character")
	}
	want(t, open(t, Options{AccessToken: "given"}, false), "given", "given")
}

// orderedStore records what happens in which order, and fails where it is to.
type orderedStore struct {
	MemoryStore
	fail   func(step string) error
	mu     sync.Mutex
	events []string
}

func (o *orderedStore) note(step string) error {
	o.mu.Lock()
	o.events = append(o.events, step)
	fail := o.fail
	o.mu.Unlock()
	if fail != nil {
		return fail(step)
	}
	return nil
}

func (o *orderedStore) Load(ctx context.Context, relay int) (Record, error) {
	if err := o.note("load"); err != nil {
		return Record{}, err
	}
	return o.MemoryStore.Load(ctx, relay)
}

func (o *orderedStore) Save(ctx context.Context, relay int, r Record) error {
	if err := o.note("save"); err != nil {
		return err
	}
	return o.MemoryStore.Save(ctx, relay, r)
}

func (o *orderedStore) Lock(ctx context.Context, relay int) (func(), error) {
	if err := o.note("lock"); err != nil {
		return nil, err
	}
	unlock, err := o.MemoryStore.Lock(ctx, relay)
	return func() { _ = o.note("unlock"); unlock() }, err
}

// TestSourceSavesFirst: the lock is held from before the store is read until the new
// token is saved, and no caller has the access token before that.
func TestSourceSavesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store := &issuer{rotate: true, reuseKills: true, life: 3600}, new(orderedStore)
		i.fail = func(int, url.Values) *http.Response { _ = store.note("ask"); return nil }
		got := false
		store.fail = func(step string) error {
			if step == "save" {
				time.Sleep(time.Minute) // a slow disk
				if got {
					t.Error("a caller had the access token before the refresh token was saved")
				}
			}
			return nil
		}
		s := open(t, loginOptions(i, store), false)
		want(t, s, "", "access1")
		got = true
		synctest.Wait()
		if want := []string{"lock", "load", "ask", "save", "unlock"}; !slices.Equal(store.events, want) {
			t.Errorf("in order: %v, want %v", store.events, want)
		}
		if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "refresh1" || r.Digest != Digest("configured") {
			t.Errorf("stored is %#v, %v", r, err)
		}
	})
}

// noted keeps the events of a source.
type noted struct {
	mu     sync.Mutex
	events []Event
}

func (n *noted) notify(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
}

func (n *noted) count(kind EventKind) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.Kind == kind {
			count++
		}
	}
	return count
}

// TestSourceCannotSave: mail goes on with a token that cannot be saved. That is told
// once, and saving is tried again until it succeeds.
func TestSourceCannotSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store, notes := &issuer{rotate: true, reuseKills: true, life: 3600}, new(orderedStore), new(noted)
		var full atomic.Bool
		full.Store(true)
		store.fail = func(step string) error {
			if step == "save" && full.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}
		o := loginOptions(i, store)
		o.Notify = notes.notify
		s := open(t, o, true)
		for range 5 {
			want(t, s, "", fmt.Sprintf("access%d", max(1, i.asked())))
			time.Sleep(50 * time.Minute)
		}
		if n := notes.count(EventNotSaved); n < 1 || n > i.asked() {
			t.Errorf("told %d times that it cannot be saved, with %d tokens", n, i.asked())
		}
		if n := notes.count(EventWarning); n != 0 {
			t.Errorf("the same is told %d times as a warning, too", n)
		}
		if st := s.Status(); st.StoreErr == nil || !slices.ContainsFunc(st.Warnings, func(w Warning) bool { return w.Kind == WarningNotStored }) {
			t.Errorf("Status() = %+v, want the store's error", st)
		}
		full.Store(false)
		time.Sleep(15 * time.Second)
		last := fmt.Sprintf("refresh%d", i.asked())
		if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != last {
			t.Errorf("stored is %#v, %v, want %s within 15 s", r.RefreshToken, err, last)
		}
		if notes.count(EventSaved) != 1 || s.Status().StoreErr != nil {
			t.Errorf("not told that it is saved: %+v", notes.events)
		}
	})
}

// TestSourceKeepsOthersOff: while a token that is spent is all that the disk has, no
// other process gets to spend it again.
func TestSourceKeepsOthersOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store := &issuer{rotate: true, reuseKills: true, life: 3600}, new(orderedStore)
		var full atomic.Bool
		store.fail = func(step string) error {
			if step == "save" && full.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}
		server := open(t, loginOptions(i, store), true)
		want(t, server, "", "access1")
		full.Store(true)
		time.Sleep(2 * time.Hour)
		check := open(t, loginOptions(i, store), false)
		if _, err := check.Token(t.Context(), ""); !errors.As(err, new(*LockedError)) {
			t.Errorf("Token() of a check = %v, want the lock", err)
		}
		full.Store(false)
		time.Sleep(time.Minute)
		for _, s := range []*Source{check, server, open(t, loginOptions(i, store), false)} {
			if _, err := s.Token(t.Context(), ""); err != nil {
				t.Errorf("Token() on a disk that has space again = %v", err)
			}
		}
		if i.dead {
			t.Error("the family ended")
		}
	})
}

// TestSourceWithoutLock: a store that has no locks is used without.
func TestSourceWithoutLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, notes := new(orderedStore), new(noted)
		store.fail = func(step string) error {
			if step == "lock" {
				return errors.New("function not implemented")
			}
			return nil
		}
		o := loginOptions(&issuer{rotate: true, reuseKills: true, life: 600}, store)
		o.Notify = notes.notify
		s := open(t, o, true)
		time.Sleep(time.Hour)
		if _, err := s.Token(t.Context(), ""); err != nil || notes.count(EventUnlocked) != 1 {
			t.Errorf("Token() = %v, told %d times, want it told once", err, notes.count(EventUnlocked))
		}
	})
}

// TestSourceStopped: at each step of a renewal the process ends. The next one gets a
// token; only where the endpoint has replaced the token and its answer was lost is a
// family lost, at an endpoint that detects reuse.
func TestSourceStopped(t *testing.T) {
	for _, reuseKills := range []bool{false, true} {
		for _, step := range []string{"lock", "load", "ask", "save", "unlock"} {
			synctest.Test(t, func(t *testing.T) {
				i, store := &issuer{rotate: true, reuseKills: reuseKills, life: 3600}, new(orderedStore)
				end := make(chan struct{})
				stop := func(now string) error {
					if now == step {
						<-end // the process hangs here until the test is over
						return errors.New("the process is gone")
					}
					return nil
				}
				i.fail = func(int, url.Values) *http.Response {
					if step == "ask" {
						return noAnswer // the request did not arrive
					}
					return nil
				}
				frozen := &frozenStore{Store: &store.MemoryStore, stop: stop}
				first, err := New(loginOptions(i, frozen))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, _ = first.Token(ctx, "")
				cancel()
				i.mu.Lock()
				i.fail = nil
				i.mu.Unlock()
				frozen.release() // the lock of a process ends with it
				second := open(t, loginOptions(i, &store.MemoryStore), false)
				_, err = second.Token(t.Context(), "")
				if lost := reuseKills && step == "save"; (err != nil) != lost {
					t.Errorf("reuse kills: %v, stopped at %s: Token() = %v", reuseKills, step, err)
				}
				close(end)
				first.Close(t.Context())
			})
		}
	}
}

// frozenStore is a store of a process that stops at a step.
type frozenStore struct {
	Store
	stop   func(step string) error
	mu     sync.Mutex
	unlock func()
}

func (f *frozenStore) Load(ctx context.Context, relay int) (Record, error) {
	if err := f.stop("load"); err != nil {
		return Record{}, err
	}
	return f.Store.Load(ctx, relay)
}

func (f *frozenStore) Save(ctx context.Context, relay int, r Record) error {
	if err := f.stop("save"); err != nil {
		return err
	}
	return f.Store.Save(ctx, relay, r)
}

func (f *frozenStore) Lock(ctx context.Context, relay int) (func(), error) {
	if err := f.stop("lock"); err != nil {
		return nil, err
	}
	unlock, err := f.Store.Lock(ctx, relay)
	once := sync.OnceFunc(unlock)
	f.mu.Lock()
	f.unlock = once
	f.mu.Unlock()
	return func() {
		if f.stop("unlock") == nil {
			once()
		}
	}, err
}

func (f *frozenStore) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unlock != nil {
		f.unlock()
	}
}

// TestSourceStoredToken: the next process uses the access token that is stored, as long
// as it is good.
func TestSourceStoredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store := &issuer{rotate: true, reuseKills: true, life: 3600}, new(MemoryStore)
		want(t, open(t, loginOptions(i, store), false), "", "access1")
		time.Sleep(47 * time.Minute)
		want(t, open(t, loginOptions(i, store), false), "", "access1")
		want(t, open(t, loginOptions(i, store), false), "access1", "access2") // which the relay refused
		other := loginOptions(i, store)
		other.Scopes = []string{"more"}
		want(t, open(t, other, false), "", "access3")
		time.Sleep(50 * time.Minute)
		want(t, open(t, other, false), "", "access4")
		// The clock was set back: such a token is older than it seems.
		r, err := store.Load(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		r.AccessFetched, r.AccessExpires = r.AccessFetched.Add(48*time.Hour), r.AccessExpires.Add(48*time.Hour)
		if err := store.Save(t.Context(), 1, r); err != nil {
			t.Fatal(err)
		}
		want(t, open(t, other, false), "", "access5")
	})
}

// TestSourceSettings: a changed setting wins over the stored login, and an unchanged
// one does not.
func TestSourceSettings(t *testing.T) {
	stored := func(edit func(*Record)) Record {
		r := Record{RefreshToken: "stored", TokenURL: "https://login.test/token", ClientID: "id", Scopes: []string{"mail", "offline_access"}, Issued: time.Now()}
		edit(&r)
		return r
	}
	same := func(r *Record) { r.Digest = Digest("configured") }
	tests := []struct {
		name     string
		stored   Record
		setting  string
		want     string // the refresh token that is spent; empty for an error
		replaced bool
	}{
		{"the same setting", stored(same), "configured", "stored", false},
		{"another setting", stored(func(r *Record) { r.Digest = Digest("earlier") }), "configured", "configured", true},
		{"a setting after a login", stored(func(*Record) {}), "configured", "configured", true},
		{"no setting, a login", stored(func(*Record) {}), "", "stored", false},
		{"no setting any more", stored(same), "", "stored", false},
		{"nothing stored", Record{}, "configured", "configured", false},
		{"nothing at all", Record{}, "", "", false},
		{"another client", stored(func(r *Record) { same(r); r.ClientID = "other" }), "configured", "configured", true},
		{"a login for another client", stored(func(r *Record) { r.ClientID = "other" }), "", "", false},
		{"a login at another host", stored(func(r *Record) { r.TokenURL = "https://other.test/token" }), "", "", false},
		{"a login at another path", stored(func(r *Record) { r.TokenURL = "https://LOGIN.test/other" }), "", "stored", false},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			i, store, notes := &issuer{rotate: true, life: 3600}, new(MemoryStore), new(noted)
			if tt.stored.RefreshToken != "" {
				if err := store.Save(t.Context(), 1, tt.stored); err != nil {
					t.Fatal(err)
				}
			}
			o := loginOptions(i, store)
			o.RefreshToken, o.Notify = tt.setting, notes.notify
			s := open(t, o, true)
			_, err := s.Token(t.Context(), "")
			if tt.want == "" {
				if err == nil || i.asked() != 0 || KindOf(err) != KindLogin {
					t.Errorf("%s: Token() = %v, want an error that asks for a login, and no request", tt.name, err)
				}
				return
			}
			if err != nil || i.form(0).Get("refresh_token") != tt.want {
				t.Errorf("%s: Token() = %v, spent %v, want %s", tt.name, err, i.form(0), tt.want)
			}
			if (notes.count(EventReplaced) == 1) != tt.replaced {
				t.Errorf("%s: told that the login is replaced: %v, want %v", tt.name, !tt.replaced, tt.replaced)
			}
			time.Sleep(2 * time.Hour)
			if r, err := store.Load(t.Context(), 1); err != nil || r.Digest != Digest(tt.setting) && tt.setting != "" || i.dead {
				t.Errorf("%s: stored is %#v, %v", tt.name, r, err)
			}
		})
	}
}

// TestSourceTakesLogin: whatever state the source is in, a login that another process
// stores is in use within 5 seconds, and is told.
func TestSourceTakesLogin(t *testing.T) {
	for name, begin := range map[string]func(i *issuer, o *Options){
		"nothing stored": func(_ *issuer, o *Options) { o.RefreshToken = "" },
		"at work":        func(*issuer, *Options) {},
		"revoked": func(i *issuer, _ *Options) {
			i.fail = func(_ int, form url.Values) *http.Response {
				if form.Get("refresh_token") == "login" {
					return nil
				}
				return answerWith(400, `{"error":"invalid_grant"}`)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			i, store, notes := &issuer{life: 3600}, new(MemoryStore), new(noted)
			o := loginOptions(i, store)
			begin(i, &o)
			o.Notify = notes.notify
			s := open(t, o, true)
			for range 40 {
				_, _ = s.Token(t.Context(), "")
				time.Sleep(time.Minute)
			}
			i.mu.Lock()
			i.refresh, i.issued = []string{"login"}, 100
			i.mu.Unlock()
			login := o.configuredLogin(time.Now())
			login.RefreshToken, login.Account, login.Digest = "login", "jo@example.com", Digest(o.RefreshToken)
			if err := store.Save(t.Context(), 1, login); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			want(t, s, "", "access101")
			if st := s.Status(); st.Account != "jo@example.com" || st.Err != nil || notes.count(EventLogin) != 1 {
				t.Errorf("%s: Status() = %+v, told %d times of a new login, want once", name, st, notes.count(EventLogin))
			}
		})
	}
}

// TestSourceRecoversWithOthers: a token that another process has fetched ends a failure
// at once.
func TestSourceRecoversWithOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store, notes := &issuer{life: 3600}, new(MemoryStore), new(noted)
		i.fail = func(int, url.Values) *http.Response { return answerWith(400, `{"error":"invalid_grant"}`) }
		o := loginOptions(i, store)
		o.Notify = notes.notify
		s := open(t, o, true)
		time.Sleep(50 * time.Minute)
		i.mu.Lock()
		i.fail = nil
		i.mu.Unlock()
		o.Notify = nil
		want(t, open(t, o, false), "", "access1")
		time.Sleep(5 * time.Second)
		if st := s.Status(); st.Err != nil || notes.count(EventRecovered) != 1 || notes.count(EventLogin) != 0 {
			t.Errorf("Status() = %+v after another process has fetched a token, events %+v", st, notes.events)
		}
		want(t, s, "", "access1")
	})
}

// TestSourceKeepsLater: what another process stores while this one runs is later than the
// configured refresh token. It is never replaced by that, nor by its successors, whether
// or not the endpoint refuses it; and the next process uses it, too.
func TestSourceKeepsLater(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for _, before := range []string{"nothing", "of this setting", "of another setting"} {
			for _, digest := range []string{"", "configured", "another"} {
				for _, client := range []string{"id", "other"} {
					name := fmt.Sprintf("refused: %v, before: %s, login with %q for client %s", dead, before, digest, client)
					synctest.Test(t, func(t *testing.T) { keepsLater(t, name, dead, before, digest, client) })
				}
			}
		}
	}
}

func keepsLater(t *testing.T, name string, dead bool, before, digest, client string) {
	i, store, notes := &issuer{life: 3600}, new(MemoryStore), new(noted)
	i.fail = func(_ int, form url.Values) *http.Response {
		token := form.Get("refresh_token")
		if token == "configured" && dead || token == "earlier" {
			return answerWith(400, `{"error":"invalid_grant"}`)
		}
		return answerWith(200, `{"access_token":"of-`+token+`","expires_in":3600}`)
	}
	o := loginOptions(i, store)
	o.Notify = notes.notify
	login := o.configuredLogin(time.Now())
	if before != "nothing" {
		login.RefreshToken = "earlier"
		if before == "of another setting" {
			login.Digest = Digest("earlier")
		}
		if err := store.Save(t.Context(), 1, login); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, o, true)
	time.Sleep(2 * time.Hour)
	login.RefreshToken, login.Digest, login.Issued, login.ClientID = "login", Digest(digest), time.Now(), client
	if err := store.Save(t.Context(), 1, login); err != nil {
		t.Fatal(err)
	}
	time.Sleep(6 * time.Hour)
	if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "login" || r.ClientID != client {
		t.Errorf("%s: after 6 hours the store has %s of %s, %v, want the login", name, r.RefreshToken, r.ClientID, err)
	}
	if client == "other" {
		return
	}
	for _, s := range []*Source{s, open(t, o, true)} {
		want(t, s, "", "of-login")
	}
	time.Sleep(2 * time.Hour)
	if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "login" || notes.count(EventLogin) != 1 {
		t.Errorf("%s: the next process left %s, %v; told %d times of a new login", name, r.RefreshToken, err, notes.count(EventLogin))
	}
	o.RefreshToken = "changed"
	want(t, open(t, o, true), "", "of-changed")
}

// TestSourceYields: a configured refresh token that is refused gives way to a login that
// was stored without it before the start, and to no other one.
func TestSourceYields(t *testing.T) {
	for digest, yields := range map[string]bool{"": true, "earlier": false} {
		synctest.Test(t, func(t *testing.T) {
			i, store, notes := &issuer{life: 3600}, new(MemoryStore), new(noted)
			i.fail = func(_ int, form url.Values) *http.Response {
				if form.Get("refresh_token") == "configured" {
					return answerWith(400, `{"error":"invalid_grant"}`)
				}
				return answerWith(200, `{"access_token":"of-login","expires_in":3600}`)
			}
			o := loginOptions(i, store)
			o.Notify = notes.notify
			login := o.configuredLogin(time.Now())
			login.RefreshToken, login.Digest = "login", Digest(digest)
			if err := store.Save(t.Context(), 1, login); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				s := open(t, o, false)
				if token, err := s.Token(t.Context(), ""); (token == "of-login") != yields || (err == nil) != yields {
					t.Errorf("login with setting %q: Token() = %q, %v, want the login to be used: %v", digest, token, err, yields)
				}
				time.Sleep(2 * time.Hour)
			}
			if (notes.count(EventYielded) == 1) != yields {
				t.Errorf("login with setting %q: told %+v", digest, notes.events)
			}
			if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "login" {
				t.Errorf("stored is %s, %v, want the login", r.RefreshToken, err)
			}
		})
	}
}

// TestSourceSharesLogin: what another process fetches under the lock is used, and is no
// new login. The two spend no token twice.
func TestSourceSharesLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store, notes := &issuer{rotate: true, reuseKills: true, life: 3600, latency: 10 * time.Second}, new(MemoryStore), new(noted)
		o := loginOptions(i, store)
		o.Notify = notes.notify
		sources := []*Source{open(t, o, true), open(t, o, true), open(t, o, false)}
		for range 100 {
			var callers sync.WaitGroup
			for _, s := range sources {
				callers.Go(func() {
					if _, err := s.Token(t.Context(), ""); err != nil {
						t.Error(err)
					}
				})
			}
			callers.Wait()
			time.Sleep(7 * time.Minute)
		}
		if i.dead || i.overlap || notes.count(EventLogin)+notes.count(EventFailed) != 0 {
			t.Errorf("the family ended: %v, requests at a time: %v, events %+v", i.dead, i.overlap, notes.events)
		}
		// 700 minutes and the waits, a token each 48.
		if n := i.asked(); n < 13 || n > 20 {
			t.Errorf("the endpoint was asked %d times in 12 hours, want about once in 48 minutes for all", n)
		}
	})
}

// TestSourceBelievesStore: before a refusal is believed the store is read again, for a
// process that stored without the lock.
func TestSourceBelievesStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(MemoryStore)
		i := &issuer{life: 3600}
		o := loginOptions(i, store)
		login := o.configuredLogin(time.Now())
		i.fail = func(n int, form url.Values) *http.Response {
			if n > 1 {
				return nil
			}
			login.RefreshToken = "rotated"
			if err := store.Save(t.Context(), 1, login); err != nil {
				t.Error(err)
			}
			return answerWith(400, `{"error":"invalid_grant"}`)
		}
		s := open(t, o, false)
		want(t, s, "", "access1")
		if i.asked() != 2 || i.form(1).Get("refresh_token") != "rotated" {
			t.Errorf("asked %d times, want once more with the stored token", i.asked())
		}
		// Without another token there, one request has to do.
		i.fail = func(int, url.Values) *http.Response { return answerWith(400, `{"error":"invalid_grant"}`) }
		time.Sleep(time.Hour)
		if _, err := s.Token(t.Context(), ""); KindOf(err) != KindLogin || i.asked() != 3 {
			t.Errorf("Token() = %v after %d requests, want the refusal after 3", err, i.asked())
		}
	})
}

// TestSourceClose: an answer under way is waited for and saved; one that does not come
// is cut off with the context.
func TestSourceClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for latency, saved := range map[time.Duration]bool{5 * time.Second: true, 20 * time.Second: false} {
			i, store := &issuer{rotate: true, reuseKills: true, life: 3600, latency: latency}, new(MemoryStore)
			s, err := New(loginOptions(i, store))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := s.Token(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Token() = %v, want the end of its context", err)
			}
			cancel()
			begin := time.Now()
			ctx, cancel = context.WithTimeout(t.Context(), 8*time.Second)
			s.Close(ctx)
			cancel()
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("Close() took %v", took)
			}
			if r, err := store.Load(t.Context(), 1); (err == nil && r.RefreshToken == "refresh1") != saved {
				t.Errorf("latency %v: stored is %q, %v, want saved: %v", latency, r.RefreshToken, err, saved)
			}
			if _, err := s.Token(t.Context(), "access1"); err == nil && !saved {
				t.Error("Token() after Close() fetched a token")
			}
		}
	})
}

// TestSourceBacksOff: how often the endpoint is asked in a day, with mail each second.
func TestSourceBacksOff(t *testing.T) {
	for _, tt := range []struct {
		name        string
		answer      func(n int) *http.Response
		least, most int
	}{
		{"no network", func(int) *http.Response { return noAnswer }, 2000, 3000},
		{"502", func(int) *http.Response { return answerWith(502, "<html>") }, 2000, 3000},
		{"503 with a number", func(n int) *http.Response {
			return answerWith(503, fmt.Sprintf(`{"error":"temporarily_unavailable","error_description":"request %d failed"}`, n))
		}, 2000, 3000},
		{"revoked", func(n int) *http.Response {
			return answerWith(400, fmt.Sprintf(`{"error":"invalid_grant","error_description":"AADSTS700082: It has expired. Trace ID: %x Timestamp: %d","error_codes":[700082]}`, n, n))
		}, 90, 110},
		{"wrong secret", func(int) *http.Response { return answerWith(401, `{"error":"invalid_client"}`) }, 90, 110},
		{"too often", func(int) *http.Response { return answerWith(429, ``) }, 90, 110},
		{"Retry-After", func(int) *http.Response { return answerWith(503, ``, "Retry-After", "600") }, 140, 150},
		{"Retry-After for ever", func(int) *http.Response { return answerWith(429, ``, "Retry-After", "99999999999") }, 24, 25},
	} {
		synctest.Test(t, func(t *testing.T) {
			i, notes, store := &issuer{life: 3600}, new(noted), new(MemoryStore)
			i.fail = func(n int, _ url.Values) *http.Response { return tt.answer(n) }
			o := loginOptions(i, store)
			o.Notify = notes.notify
			s := open(t, o, true)
			for range 24 * 3600 {
				if _, err := s.Token(t.Context(), ""); err == nil {
					t.Fatal("a token without an endpoint")
				}
				time.Sleep(time.Second)
			}
			if n := i.asked(); n < tt.least || n > tt.most {
				t.Errorf("%s: asked %d times in a day, want %d to %d", tt.name, n, tt.least, tt.most)
			}
			if n := notes.count(EventFailed); n < 20 || n > 25 {
				t.Errorf("%s: told %d times in a day, want once an hour", tt.name, n)
			}
			if r, err := store.Load(t.Context(), 1); !errors.Is(err, ErrNotStored) || notes.count(EventSaved) > 0 {
				t.Errorf("%s: a token that never was of use is stored: %v, %v", tt.name, r, err)
			}
		})
	}
}

// TestSourceKeepsToken: a renewal ahead that fails takes nothing away from the token
// that is still good.
func TestSourceKeepsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, notes := &issuer{life: 3600}, new(noted)
		o := clientOptions(i)
		o.Notify = notes.notify
		s := open(t, o, true)
		want(t, s, "", "access1")
		i.mu.Lock()
		i.fail = func(int, url.Values) *http.Response { return answerWith(500, "") }
		i.mu.Unlock()
		time.Sleep(58 * time.Minute)
		want(t, s, "", "access1")
		if st := s.Status(); st.Err == nil || notes.count(EventFailed) != 1 {
			t.Errorf("Status() = %+v, want the failure, and it told once", st)
		}
		i.mu.Lock()
		i.fail = nil
		i.mu.Unlock()
		time.Sleep(longestPause)
		want(t, s, "", "access2")
		if st := s.Status(); st.Err != nil || notes.count(EventRecovered) != 1 {
			t.Errorf("Status() = %+v, want no failure, and that told once", st)
		}
	})
}

// TestSourceWarns: each warning begins when it should, and is told once a day.
func TestSourceWarns(t *testing.T) {
	day := 24 * time.Hour
	for _, tt := range []struct {
		name string
		edit func(*Options, *issuer)
		kind WarningKind
		from time.Duration // after the start; negative: never
		days int           // to look at
	}{
		{"none", func(*Options, *issuer) {}, "", -1, 5},
		{"secret", func(o *Options, _ *issuer) { o.SecretExpires = time.Now().Add(40 * day) }, WarningSecret, 10 * day, 15},
		{"secret that ended", func(o *Options, _ *issuer) { o.SecretExpires = time.Now().Add(-day) }, WarningSecret, 0, 5},
		{"Microsoft, rotating", func(o *Options, i *issuer) { o.Issuer, i.rotate = "microsoft", true }, WarningLogin, -1, 5},
		{"Microsoft, not renewed for long", func(o *Options, i *issuer) {
			o.Issuer = "microsoft"
			i.fail = func(int, url.Values) *http.Response { return answerWith(503, "") }
			login := o.configuredLogin(time.Now().Add(-74 * day))
			store := new(MemoryStore)
			if err := store.Save(context.Background(), 1, login); err != nil {
				t.Error(err)
			}
			o.Store = store
		}, WarningLogin, 2 * day, 6},
		{"Google, testing", func(_ *Options, i *issuer) {
			i.fail = func(n int, _ url.Values) *http.Response {
				return answerWith(200, fmt.Sprintf(`{"access_token":"a%d","expires_in":3599,"refresh_token_expires_in":%d}`, n, 604799))
			}
		}, WarningLogin, 0, 5},
		{"in memory only", func(_ *Options, i *issuer) { i.rotate = true }, WarningNotStored, 0, 5},
		{"in memory only, not replaced", func(*Options, *issuer) {}, WarningNotStored, -1, 5},
		{"clock", func(_ *Options, i *issuer) {
			i.fail = func(n int, _ url.Values) *http.Response {
				return answerWith(200, fmt.Sprintf(`{"access_token":"a%d","expires_in":3599}`, n), "Date", time.Now().Add(-6*time.Minute).UTC().Format(http.TimeFormat))
			}
		}, WarningClock, 0, 5},
		{"clock, near enough", func(_ *Options, i *issuer) {
			i.fail = func(n int, _ url.Values) *http.Response {
				return answerWith(200, fmt.Sprintf(`{"access_token":"a%d","expires_in":3599}`, n), "Date", time.Now().Add(4*time.Minute).UTC().Format(http.TimeFormat))
			}
		}, WarningClock, -1, 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			i, notes := &issuer{life: 3600}, new(noted)
			o := loginOptions(i, nil)
			tt.edit(&o, i)
			o.Notify = notes.notify
			begin := time.Now()
			var first time.Duration = -1
			days := 0
			o.Notify = func(e Event) {
				if e.Kind == EventWarning && e.Warning.Kind == tt.kind {
					if first < 0 {
						first = time.Since(begin).Truncate(day)
					}
					days++
				}
			}
			s := open(t, o, true)
			length := time.Duration(tt.days) * day
			time.Sleep(length - time.Hour)
			synctest.Wait()
			if first != tt.from {
				t.Errorf("%s: first warning after %v, want %v", tt.name, first, tt.from)
			}
			if wanted := int((length - tt.from) / day); tt.from >= 0 && (days < wanted-1 || days > wanted+1) {
				t.Errorf("%s: %d warnings in %d days", tt.name, days, wanted)
			}
			for _, w := range s.Status().Warnings {
				if text := w.String(); !strings.HasPrefix(text, "the OAuth2 ") && !strings.HasPrefix(text, "this machine's clock is 6m0s ahead of") {
					t.Errorf("%s: %q", tt.name, text)
				}
			}
		})
	}
}

// TestStatusOfDeadLogin: a login that is refused has no end any more, and none to warn of.
func TestStatusOfDeadLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 3600}
		o := loginOptions(i, nil)
		o.Issuer = "microsoft"
		s := open(t, o, true)
		want(t, s, "", "access1")
		if s.Status().LoginExpires.IsZero() {
			t.Error("the end of a login that is good is not shown")
		}
		i.mu.Lock()
		i.fail = func(int, url.Values) *http.Response { return answerWith(400, `{"error":"invalid_grant"}`) }
		i.mu.Unlock()
		time.Sleep(2 * time.Hour)
		if st := s.Status(); KindOf(st.Err) != KindLogin || !st.LoginExpires.IsZero() || !st.LoginIssued.IsZero() || len(st.Warnings) != 0 {
			t.Errorf("Status() of a login that was revoked = %+v, want no end of it", st)
		}
	})
}

// TestSourceWarnsAtStart: a stored login that ends soon is warned of at the start, though
// no token has to be renewed yet.
func TestSourceWarnsAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, store, notes := &issuer{life: 3600}, new(MemoryStore), new(noted)
		o := loginOptions(i, store)
		o.Issuer, o.Notify = "microsoft", notes.notify
		login := o.configuredLogin(time.Now().Add(-80 * 24 * time.Hour))
		login.AccessToken, login.AccessFetched, login.AccessExpires = "access", time.Now(), time.Now().Add(time.Hour)
		if err := store.Save(t.Context(), 1, login); err != nil {
			t.Fatal(err)
		}
		open(t, o, true)
		time.Sleep(5 * time.Second)
		if notes.count(EventWarning) != 1 || i.asked() != 0 {
			t.Errorf("told of %+v after 5 s and %d requests, want one warning and no request", notes.events, i.asked())
		}
	})
}

// TestSourceSparesLogin: where nothing can be stored, that is told at the start, and no
// refresh token is spent while the access token lasts; in a diagnosis never.
func TestSourceSparesLogin(t *testing.T) {
	for _, careful := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			i, store, notes := &issuer{rotate: true, reuseKills: true, life: 3600}, NewFileStore(t.TempDir()), new(noted)
			store.Careful = careful
			o := loginOptions(i, store)
			o.Notify = notes.notify
			login := o.configuredLogin(time.Now())
			login.AccessToken, login.AccessFetched, login.AccessExpires = "stored", time.Now(), time.Now().Add(time.Hour)
			if err := store.Save(t.Context(), 1, login); err != nil {
				t.Fatal(err)
			}
			// A directory that is not empty cannot be removed: an obstacle, for root too.
			obstacle := filepath.Join(store.Path(1)+".new", "x")
			if err := os.MkdirAll(obstacle, 0o700); err != nil {
				t.Fatal(err)
			}
			s := open(t, o, true)
			time.Sleep(57 * time.Minute)
			want(t, s, "", "stored")
			if n := notes.count(EventUnwritable); n != 1 || i.asked() != 0 {
				t.Errorf("careful: %v: told %d times, %d requests, want it told once and no request", careful, n, i.asked())
			}
			time.Sleep(2*time.Minute + 30*time.Second)
			if _, err := s.Token(t.Context(), ""); (err != nil) != careful || errors.As(err, new(*UnwritableError)) != careful || (i.asked() == 0) != careful {
				t.Errorf("careful: %v: Token() = %v, %d requests", careful, err, i.asked())
			}
			if err := os.RemoveAll(filepath.Dir(obstacle)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if r, err := store.Load(t.Context(), 1); err != nil || r.RefreshToken != "refresh1" || i.dead {
				t.Errorf("careful: %v: stored is %s, %v, want refresh1", careful, r.RefreshToken, err)
			}
		})
	}
}

package oauth2_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

const (
	clientID     = "7b9b4a34-0000-4000-8000-000000000001"
	account      = "ana@example.com"
	otherAccount = "bob@example.com"
	mailScope    = "https://outlook.office.com/SMTP.Send"
)

// issuer is an authorization server on loopback, with a door before it that can fail in
// many ways.
type issuer struct {
	*httptest.Server
	authorizeURL, tokenURL, deviceURL string
	// accepts reports whether the token is one of the user's.
	accepts func(user, token string) bool

	mu     sync.Mutex
	next   http.Handler
	fault  http.HandlerFunc // in place of the token endpoint; nil: none
	lose   bool             // the token endpoint does its work, and its answer is lost
	asked  []string         // the grants that the token endpoint was asked for
	amends map[string]any   // fields of a successful token answer that are changed; nil removes one
	hold   chan struct{}    // the token endpoint answers when it is closed; nil: at once
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.Server = httptest.NewServer(http.HandlerFunc(i.door))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) serve(next http.Handler) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.next = next
}

func (i *issuer) door(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	next, fault, lose, hold, amends := i.next, i.fault, i.lose, i.hold, i.amends
	atToken := i.URL+r.URL.Path == i.tokenURL
	if atToken {
		_ = r.ParseForm()
		i.asked = append(i.asked, r.PostForm.Get("grant_type"))
	}
	i.mu.Unlock()
	switch {
	case !atToken:
		next.ServeHTTP(w, r)
		return
	case fault != nil:
		fault(w, r)
		return
	}
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	if lose {
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	if amends != nil {
		amended(w, r, next, amends)
		return
	}
	next.ServeHTTP(w, r)
}

// amended lets next answer, and changes fields of its JSON.
func amended(w http.ResponseWriter, r *http.Request, next http.Handler, amends map[string]any) {
	own := httptest.NewRecorder()
	next.ServeHTTP(own, r)
	var fields map[string]any
	if json.Unmarshal(own.Body.Bytes(), &fields) != nil {
		http.Error(w, "no JSON", http.StatusInternalServerError)
		return
	}
	for name, value := range amends {
		fields[name] = value
		if value == nil {
			delete(fields, name)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(own.Code)
	_ = json.NewEncoder(w).Encode(fields)
}

// fail puts a fault in place of the token endpoint; nil ends it.
func (i *issuer) fail(fault http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = fault
}

// loseAnswers lets the token endpoint do its work without an answer.
func (i *issuer) loseAnswers(lose bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lose = lose
}

// holdAnswers lets the token endpoint wait until release is called.
func (i *issuer) holdAnswers() (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	hold := make(chan struct{})
	i.hold = hold
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.hold = nil
		close(hold)
	}
}

// grants returns how often the token endpoint was asked for a grant.
func (i *issuer) grants(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, g := range i.asked {
		if g == name {
			n++
		}
	}
	return n
}

// userinfo asks the issuer whose token it is.
func (i *issuer) userinfo(address, user, token string) bool {
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", "Bearer "+token)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer w.Body.Close()
	var info struct {
		Name string `json:"preferred_username"`
	}
	return w.StatusCode == http.StatusOK && json.NewDecoder(w.Body).Decode(&info) == nil && info.Name == user
}

func refuse(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

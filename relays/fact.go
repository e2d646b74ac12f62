package relays

// Source is a public page from which facts are.
type Source struct {
	URL  string `json:"url"`
	Read string `json:"read"` // the month in which it said so, such as "2026-11"
}

// Fact is one thing that is known of a relay. Without a source it is not known, and the
// value is zero.
type Fact[T any] struct {
	Value  T      `json:"value"`
	Source string `json:"source"` // a key of [Preset.Sources]
	// Note is a sentence for people, or a part of one, without a full stop.
	Note string `json:"note,omitzero"`
}

// Known reports whether the fact is known.
func (f Fact[T]) Known() bool { return f.Source != "" }

// UserKind is what a relay takes as user name.
type UserKind string

const (
	UserWord    UserKind = "word"    // one word, the same for every account
	UserAddress UserKind = "address" // the address of a mailbox
	UserGiven   UserKind = "given"   // what the provider shows or generates
)

// User is the user name that a relay takes.
type User struct {
	Kind   UserKind `json:"kind"`
	Word   string   `json:"word,omitzero"` // of [UserWord]
	Source string   `json:"source"`        // a key of [Preset.Sources]
	Note   string   `json:"note,omitzero"` // the user name in words, for a sentence
}

// From is which addresses in the field From a relay takes.
type From string

const (
	FromOwn       From = "own"       // addresses of the account alone
	FromDomain    From = "domain"    // any address in the domain of the account's own
	FromVerified  From = "verified"  // addresses and domains that the account has verified
	FromRewritten From = "rewritten" // any; the relay puts the account's address in the place of others
	FromAny       From = "any"
)

// Region is one of several hosts of a relay, each for other accounts: a region, or one
// of Postmark's streams.
type Region struct {
	Name    string   `json:"name"`  // what stands after the colon in SMTP_PROVIDER
	Title   string   `json:"title"` // what it is for
	Host    string   `json:"host"`
	Source  string   `json:"source"`           // a key of [Preset.Sources]
	Aliases []string `json:"aliases,omitzero"` // other names for relay and region together, such as "mailgun-eu"
}

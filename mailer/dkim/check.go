package dkim

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// LookupTXT asks the DNS for the TXT records of a name: that of [net.Resolver], or another
// one in tests.
type LookupTXT func(ctx context.Context, name string) ([]string, error)

// State is what a check found of the record of a key.
type State string

// The states. In all but [Published] verifiers do not take the signature.
const (
	Published State = "published"
	Missing   State = "missing"    // there is no record
	Malformed State = "malformed"  // there is one, and verifiers cannot read it
	Differs   State = "differs"    // it has another key
	WrongType State = "wrong_type" // its tag k= is that of another kind of key
	Revoked   State = "revoked"    // its tag p= is empty
	Excluded  State = "excluded"   // its tag h= or s= excludes our signatures
	Testing   State = "testing"    // its tag t=y says that verifiers must not rely on it
	Several   State = "several"    // verifiers may take any of the records
	Unknown   State = "unknown"    // the DNS did not answer
)

// Finding is what the DNS has for a key.
type Finding struct {
	Entry Entry
	State State
	Err   error  // why it is malformed or unknown; else nil
	Tag   string // the one that excludes
}

// Limits of a check.
const (
	maxLookups = 8 // at a time
	lookupTime = 5 * time.Second
	// maxRecords limits how many records of a name are looked at.
	maxRecords = 10
)

// Check compares each entry with its record. It takes 5 s for every eight entries at most,
// and ends early with ctx: what was not asked then is [Unknown].
func Check(ctx context.Context, entries []Entry, lookup LookupTXT) []Finding {
	findings := make([]Finding, len(entries))
	turns := make(chan struct{}, maxLookups)
	var all sync.WaitGroup
	for i, e := range entries {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			findings[i] = check(ctx, e, lookup)
		})
	}
	all.Wait()
	return findings
}

func check(ctx context.Context, e Entry, lookup LookupTXT) Finding {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	texts, err := lookup(ctx, e.Name()+".") // the dot keeps search domains out
	if missing, ok := errors.AsType[*net.DNSError](err); ok && missing.IsNotFound {
		return Finding{Entry: e, State: Missing}
	}
	if err != nil {
		return Finding{Entry: e, State: Unknown, Err: err}
	}
	f := e.compare(texts)
	f.Entry = e
	return f
}

// compare judges the records of the key's name.
func (e Entry) compare(texts []string) Finding {
	var keys []Finding
	malformed := Finding{State: Missing}
	for _, text := range texts[:min(len(texts), maxRecords)] {
		r, err := parseRecord(text)
		switch {
		case errors.Is(err, errNoRecord) && !strings.Contains(text, "DKIM"):
			// Another text, or that of a wildcard.
		case err != nil:
			malformed = Finding{State: Malformed, Err: err}
		default:
			keys = append(keys, e.judge(r))
		}
	}
	switch {
	case len(keys) == 0:
		return malformed
	case len(keys) > 1:
		return Finding{State: Several}
	default:
		return keys[0]
	}
}

// judge compares the key with a record.
func (e Entry) judge(r record) Finding {
	switch {
	case r.public == nil:
		return Finding{State: Revoked}
	case r.keyType != e.Key.keyType:
		return Finding{State: WrongType}
	case !r.holds(e.Key):
		return Finding{State: Differs}
	case r.refuses != "":
		return Finding{State: Excluded, Tag: r.refuses}
	case r.testing:
		return Finding{State: Testing}
	default:
		return Finding{State: Published}
	}
}

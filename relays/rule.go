package relays

import (
	"slices"
	"strings"

	"mailsidecar/units"
)

// Rule says what a reply of a relay means where its code alone does not say it. All of
// its conditions must hold; one that is empty always holds.
//
// Words are compared in lower case, without punctuation, addresses and URLs, see
// [words]. A phrase matches where a word begins; it must also end with a word where it
// ends with a blank.
type Rule struct {
	Stages   []string `json:"stages,omitzero"`   // as mailer.Stage prints them
	Codes    []int    `json:"codes,omitzero"`    // any of them; 4 and 5 stand for all 4yz and 5yz
	Enhanced []string `json:"enhanced,omitzero"` // enhanced status codes, any of them; one that ends with a full stop is a prefix
	Text     []string `json:"text,omitzero"`     // phrases that must all occur; | separates alternatives
	Not      []string `json:"not,omitzero"`      // phrases of which none may occur; | separates alternatives
	// Of is of whom the reply speaks: "us" or "recipient". Words such as quota,
	// disabled and rate say nothing without that.
	Of string `json:"of,omitzero"`

	// Verdict is one of the names of [Verdict].
	Verdict string `json:"verdict"`
	// Less is what there is too much of, with the verdict "less": "connections" or
	// "rate".
	Less string `json:"less,omitzero"`
	// Means is what else follows: "connection ends", where the relay ends this connection
	// for a reason that lies in it, or "too many recipients", where those that it refuses
	// may come in a further transaction.
	Means string `json:"means,omitzero"`
	// For and Probe say how long the relay pauses where the reply does not name a time:
	// for that time, or until it is asked again because the quota is a moving window.
	// Zero means that it is not known.
	For   units.Duration `json:"for,omitzero"`
	Probe units.Duration `json:"probe,omitzero"`
	// Passes says that a pause ends by itself, such as that for a quota of a day. Others
	// last until a person has done something.
	Passes bool `json:"passes,omitzero"`

	// Cause and Remedy are one sentence each, for people: what the reply means, and what
	// to do about it.
	Cause  string `json:"cause,omitzero"`
	Remedy string `json:"remedy,omitzero"`
	Source string `json:"source"` // the address of a public page or issue
	Date   string `json:"date"`   // of the page, or when it was read, such as "2026-11"

	text, not []condition // Text and Not, as read
}

// matches reports whether all conditions hold.
func (r *Rule) matches(w *words) bool {
	return r.matchesCodes(w) && (r.Of == "" || r.Of == w.of) &&
		!slices.ContainsFunc(r.text, func(c condition) bool { return !w.hasAny(c) }) &&
		!slices.ContainsFunc(r.not, w.hasAny)
}

// matchesCodes is matches without the words. A positive reply only means something else
// where the rule names its code.
func (r *Rule) matchesCodes(w *words) bool {
	if w.code/100 == 2 && !slices.Contains(r.Codes, w.code) {
		return false
	}
	return (len(r.Stages) == 0 || slices.Contains(r.Stages, w.stage.String())) &&
		(len(r.Codes) == 0 || slices.Contains(r.Codes, w.code) || slices.Contains(r.Codes, w.code/100)) &&
		(len(r.Enhanced) == 0 || slices.ContainsFunc(r.Enhanced, w.hasEnhanced))
}

// hasEnhanced reports whether the enhanced status code is this one, or begins with it
// where it ends with a full stop.
func (w *words) hasEnhanced(code string) bool {
	return w.enhanced == code || strings.HasSuffix(code, ".") && strings.HasPrefix(w.enhanced, code)
}

// firstMatch returns the first rule that matches, see [Rule.ruleFor]; nil where there is
// none.
func firstMatch(rules []Rule, w *words) *Rule {
	for i := range rules {
		if !rules[i].matches(w) {
			continue
		}
		if r := rules[i].ruleFor(w); r != nil {
			return r
		}
	}
	return nil
}

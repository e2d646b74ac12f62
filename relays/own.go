package relays

import (
	"slices"
	"strings"
)

// ownRules are the rules of one relay.
type ownRules struct {
	name  string
	rules []Rule
}

// rulesFor returns the own rules of the relay with that host. Where the host is not
// known, such as behind a tunnel, the words may tell whose the reply is.
func rulesFor(host string, w *words) []ownRules {
	if host != "" {
		if p, ok := PresetFor(host); ok {
			return []ownRules{{p.Name, p.Replies.read()}}
		}
	}
	return markedBy(w)
}

// markedBy returns the rules of the relays whose marks the reply has. What another
// server said, and this one passes on, has marks of that one.
func markedBy(w *words) []ownRules {
	if w.own != nil {
		return nil
	}
	var list []ownRules
	presets := knowledge()
	for i := range presets {
		if p := &presets[i]; slices.ContainsFunc(p.Marks, func(mark string) bool { return strings.Contains(w.raw, mark) }) {
			list = append(list, ownRules{p.Name, p.Replies.read()})
		}
	}
	return list
}

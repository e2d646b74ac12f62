// Package units reads and prints durations, sizes and rates, as settings, options
// and texts write them.
//
// What a value prints as is read back as the same value.
package units

import "fmt"

// Error says that a text is no value of its kind.
type Error struct {
	Text     string // what was read
	Kind     string // such as "duration"
	Examples string // texts that could have been read
}

// Error is the two halves, as [Error.What] and [Error.Remedy] have them.
func (e *Error) Error() string { return e.What() + "; " + e.Remedy() }

// What is the predicate of a sentence: it says what is wrong with the text.
func (e *Error) What() string { return "is " + Quote(e.Text) + ", which is no " + e.Kind }

// Remedy is the sentence's end: it says what to write instead.
func (e *Error) Remedy() string { return "write " + e.Examples }

// Quote quotes a text for an error, the first 24 octets of a longer one: a
// text pasted by mistake must not be in the log in full.
func Quote(text string) string {
	const most = 24
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

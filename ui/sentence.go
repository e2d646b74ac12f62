package ui

import (
	"mailsidecar/api"
	"mailsidecar/ui/markup"
)

// sentence says on every page how mail is.
type sentence struct {
	State string // flows, waits, fails or unknown
	Text  string
	To    markup.URL // of the page that says what to do; empty: nothing has to be done
	What  string     // text of that link
	Stats *api.Stats
}

func (v *visit) sentence() *sentence { return nil }

package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Name   string // the variable
	What   string // what is wrong, such as "is not set"
	Remedy string // what to set
}

func (p Problem) String() string { return p.Name + " " + p.What + "; " + p.Remedy }

// Error is every problem found in one reading of the environment. It never
// holds a secret.
type Error struct {
	Problems []Problem
}

func (e *Error) Error() string {
	var b strings.Builder
	if n := len(e.Problems); n == 1 {
		b.WriteString("configuration: ")
	} else {
		fmt.Fprintf(&b, "configuration: %d problems:\n", n)
	}
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// invalid is what a Decode method returns: the two halves of a [Problem].
type invalid struct {
	what, remedy string
}

func (e *invalid) Error() string { return e.what + "; " + e.remedy }

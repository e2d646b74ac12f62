package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// onceFlag is a flag that may be given once, and not with an empty value: where messages are
// selected, a second value that replaces the first one, or a variable of the shell that is
// empty, would select others than were meant. The same goes for where messages are sent.
type onceFlag struct {
	read  func(text string) error
	kind  string
	value string
	given bool
}

func once(cmd *cobra.Command, f onceFlag, name, usage string) { cmd.Flags().Var(&f, name, usage) }

// text is a flag for a text.
func text(to *string) onceFlag {
	return onceFlag{kind: "string", read: func(text string) error {
		*to = text
		return nil
	}}
}

// number is a flag for a number.
func number(to *int) onceFlag {
	return onceFlag{kind: "int", read: func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("must be a number")
		}
		*to = n
		return nil
	}}
}

func (f *onceFlag) String() string { return f.value }

func (f *onceFlag) Type() string { return f.kind }

func (f *onceFlag) Set(text string) error {
	switch {
	case f.given:
		return fmt.Errorf("it is given twice, and was %q before", f.value)
	case text == "":
		return errors.New("it is empty: leave it out, or give it a value")
	}
	f.value, f.given = text, true
	return f.read(text)
}

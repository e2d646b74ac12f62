package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailsidecar/units"
)

// duration is a flag that is written as the environment's variables are: "7d",
// "1d12h", "90s".
type duration struct {
	value *time.Duration
	parse func(string) (time.Duration, error)
}

// durationFlag defines a flag whose default is what value holds.
func durationFlag(cmd *cobra.Command, value *time.Duration, name, usage string) {
	cmd.Flags().Var(duration{value, units.ParseDuration}, name, usage)
}

// waitFlag defines one that takes a bare number of seconds, too.
func waitFlag(cmd *cobra.Command, value *time.Duration, name, usage string) {
	cmd.Flags().Var(duration{value, units.ParseWait}, name, usage)
}

// Set takes the flag's value as it was typed.
func (d duration) Set(text string) (err error) {
	*d.value, err = d.parse(strings.TrimSpace(text))
	return err
}

func (d duration) String() string {
	if d.value == nil { // pflag asks a zero value for its default
		return "0"
	}
	return units.Duration(*d.value).String()
}

// Type is the word that help shows.
func (duration) Type() string { return "duration" }

package cli

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the Go version and, where it is known, the commit",
		Example: "  mailsidecar version",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "mailsidecar", buildVersion())
			return err
		},
	}
}

// linkedVersion is set where the sources are built without their repository, as
// in the image: go build -ldflags "-X mailsidecar/cli.linkedVersion=1.2.3".
var linkedVersion string

// build says what this binary was built from.
type build struct {
	version string // of the module, or "devel"
	commit  string // short, with "+dirty" for changed files; empty when unknown
	golang  string
}

func (b build) String() string {
	if b.commit == "" {
		return fmt.Sprintf("%s (%s)", b.version, b.golang)
	}
	return fmt.Sprintf("%s (commit %s, %s)", b.version, b.commit, b.golang)
}

func buildVersion() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{version: "devel", golang: "unknown Go"}
	}
	return readBuild(info)
}

func readBuild(info *debug.BuildInfo) build {
	b := build{version: cmp.Or(linkedVersion, info.Main.Version, "devel"), golang: info.GoVersion}
	if b.version == "(devel)" {
		b.version = "devel"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true" && b.commit != "":
			b.commit += "+dirty"
		}
	}
	return b
}

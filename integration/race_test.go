//go:build race

package integration

import (
	"os"
	"strings"
)

// The product is tested with the race detector when the test is: a race makes
// it exit with status 66, which no test expects.
func init() {
	script, err := os.ReadFile("../scripts/race-flags")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(script)) {
		if flag := strings.TrimSpace(line); strings.HasPrefix(flag, "-") {
			buildFlags = append(buildFlags, flag)
		}
	}
}

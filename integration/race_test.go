//go:build race

package integration

// The product is tested with the race detector when the test is: a race makes
// it exit with status 66, which no test expects.
func init() { buildFlags = []string{"-race"} }

//go:build !unix

package conns

// isExhausted reports whether the process has no room for a further file, which is not
// known here: net/http tries again by itself.
func isExhausted(error) bool { return false }

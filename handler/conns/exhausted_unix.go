//go:build unix

package conns

import (
	"errors"
	"syscall"
)

// isExhausted reports whether the process or the machine has no room for a further file.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

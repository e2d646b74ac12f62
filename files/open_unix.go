//go:build unix

package files

import "syscall"

// openFlags let a pipe be opened that no program writes into yet.
const openFlags = syscall.O_NONBLOCK

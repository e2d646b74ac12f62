//go:build unix

package sqlite

import "syscall"

// openOwn is for files that were checked just before: should one have become a link
// since, it is not followed, and a named pipe is not waited for.
const openOwn = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

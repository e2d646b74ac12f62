//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package cli

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// takeLongLines lets a terminal hand over lines of any length, until restore is called.
// By itself it takes 4,095 octets of a line on Linux and 1,023 on macOS, and drops what
// is pasted beyond that. The keys that edit a line come through then, see [edited].
func takeLongLines(in io.Reader) (restore func()) {
	f, ok := in.(*os.File)
	if !ok {
		return func() {}
	}
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil { // no terminal
		return func() {}
	}
	long := *before
	long.Lflag &^= unix.ICANON
	long.Cc[unix.VMIN], long.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, setTermios, &long) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, before) }
}

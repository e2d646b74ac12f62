//go:build unix

package service

import (
	"math"
	"syscall"
)

// maxFiles is how many files the process may have open.
func maxFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxUint64
	}
	return uint64(l.Cur) //nolint:unconvert // it is signed on FreeBSD
}

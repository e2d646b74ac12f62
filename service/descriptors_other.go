//go:build !unix

package service

import "math"

// maxFiles is how many files the process may have open.
func maxFiles() uint64 { return math.MaxUint64 }

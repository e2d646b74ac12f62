//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package sqlite

import (
	"math"
	"os"
)

// freeDisk is not known here; a full disk shows at the commit.
func freeDisk(string) (int64, error) { return math.MaxInt64, nil }

func syncOpenDirectory(*os.File) error { return nil }

func unsuitableFileSystem(string) string { return "" }

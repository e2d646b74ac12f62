//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package queue

import (
	"fmt"
	"math"
	"os"
)

// lockFile keeps other processes away from the store at path by a file that only
// one can create. A crash leaves it behind.
func lockFile(path string) (*os.File, error) {
	name := path + ".lock"
	_ = os.Remove(name) // fails while another process has it open
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &StoreError{path, fmt.Errorf("%w: %w", ErrLocked, err), "one process uses it at a time; stop the other one"}
	}
	return f, nil
}

// freeDisk is not known here; a full disk shows at the commit.
func freeDisk(string) (int64, error) { return math.MaxInt64, nil }

func syncOpenDirectory(*os.File) error { return nil }

func unsuitableFileSystem(string) string { return "" }

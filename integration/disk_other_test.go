//go:build !linux

package integration

import "testing"

// smallDisk is for Linux only, and so is what is done with it.
func smallDisk(t *testing.T, _ int64) string {
	t.Helper()
	t.Skip("a small disk can be mounted on Linux only")
	return ""
}

func remountReadOnly(*testing.T, string) {}

func fillDisk(*testing.T, string, int64) {}

func emptyDisk(*testing.T, string) {}

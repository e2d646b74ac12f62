// Package browser_test opens the dashboard of the binary in a real Chromium, as people do:
// with JavaScript and without, light and dark, on a phone's screen and on a wide one. It is
// a module of its own, so that the product does not depend on what drives the browser.
package browser_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// scratch is a directory for all tests of the package.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "mailsidecar-browser-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		return m.Run()
	}())
}

// binary is the product, built once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "mailsidecar")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

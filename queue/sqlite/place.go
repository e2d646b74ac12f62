package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// checkTarget refuses a file that must not be written, before the copy is made.
func checkTarget(path, to string, replace bool) error {
	if sameDirectory(filepath.Dir(path), filepath.Dir(to)) && strings.HasPrefix(filepath.Base(to), filepath.Base(path)) {
		for _, suffix := range ownSuffixes {
			if filepath.Base(to) == filepath.Base(path)+suffix {
				return fmt.Errorf("%s is a file of the store itself: name another one", to)
			}
		}
	}
	info, err := os.Lstat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is %s: name a file", to, kindOf(info.Mode()))
	case !replace:
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	return nil
}

// place gives a file its name, durably. Without replace it never takes the place of another.
func place(unfinished, to string, replace bool) error {
	put := os.Rename
	if !replace {
		put = linkOrRename
	}
	if err := put(unfinished, to); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(to))
}

// linkOrRename fails if there is a file of that name, also where that was made just now; on
// a file system without links it may miss such a one.
func linkOrRename(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s: %w", to, fs.ErrExist)
	}
	return os.Rename(from, to)
}

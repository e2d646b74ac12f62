//go:build !unix

package sqlite

import "os"

func giveToOwner(*os.File, string) error { return nil }

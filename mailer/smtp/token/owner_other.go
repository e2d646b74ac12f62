//go:build !unix

package token

import "os"

// openOwn is nothing here: other systems have no such flags.
const openOwn = 0

// giveToOwner does nothing: there is no owner to give a file to.
func giveToOwner(*os.File) error { return nil }

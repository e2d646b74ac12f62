//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sqlite

// unsuitableFileSystem cannot tell here.
func unsuitableFileSystem(string) string { return "" }

//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package queue

// unsuitableFileSystem cannot tell here.
func unsuitableFileSystem(string) string { return "" }

//go:build !unix

package sqlite

const openOwn = 0

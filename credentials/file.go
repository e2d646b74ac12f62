// Package credentials reads the files by which an OAuth2 client proves who it is: a
// certificate with its key, a JWT of another issuer, a key of a Google service account.
// No error quotes a file.
package credentials

import (
	"errors"
	"strings"

	"mailsidecar/files"
)

// maxFile limits each file, in octets.
const maxFile = 64 << 10

// FileError is a file that cannot be used.
type FileError struct {
	File string
	Err  error
}

func (e *FileError) Error() string { return e.File + ": " + e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

// Read reads a file of at most 64 KiB. The error is a [*FileError].
func Read(path string) ([]byte, error) {
	data, err := files.Read(path, maxFile)
	if err != nil {
		return nil, &FileError{path, err}
	}
	return data, nil
}

// ReadAssertion reads a JWT, which a line end may follow. The error is a [*FileError].
func ReadAssertion(path string) (string, error) {
	data, err := Read(path)
	if err != nil {
		return "", err
	}
	assertion := strings.TrimSpace(string(data))
	switch {
	case assertion == "":
		return "", &FileError{path, errors.New("it is empty, and should hold a JWT")}
	case strings.Count(assertion, ".") != 2 || strings.ContainsFunc(assertion, notInJWT):
		return "", &FileError{path, errors.New("it holds no JWT")}
	}
	return assertion, nil
}

func notInJWT(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && r != '-' && r != '_' && r != '.' && r != '='
}

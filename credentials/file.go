// Package credentials reads the files by which an OAuth2 client proves who it is: a
// certificate with its key, a JWT of another issuer, a key of a Google service account.
// No error quotes a file.
package credentials

import (
	"errors"
	"strings"
	"time"

	"mailsidecar/files"
)

// maxFile limits each file, in octets.
const maxFile = 64 << 10

// Kind is what a file is to hold.
type Kind int

const (
	KindOther          Kind = iota
	KindCertificate         // and its key, where no file is named for that
	KindKey                 // of a certificate in another file
	KindAssertion           // a JWT of another issuer
	KindServiceAccount      // the JSON key of a Google service account
	KindAccessToken         // of a program that renews it
)

// FileError is a file that cannot be used.
type FileError struct {
	File string
	Err  error
	Kind Kind
	// Unread says that the file could not be read at all; else its content cannot be
	// used.
	Unread bool
}

// Error names the file where its name surely is no secret, see [files.Shown].
func (e *FileError) Error() string { return files.Shown(e.File) + ": " + e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

// unfit is a file whose content cannot be used.
func unfit(path string, kind Kind, err error) *FileError {
	return &FileError{File: path, Err: err, Kind: kind}
}

// Read reads a file of at most 64 KiB, which is to hold what kind says. The error is a
// [*FileError].
func Read(path string, kind Kind) ([]byte, error) {
	data, err := files.Read(path, maxFile)
	if err != nil {
		return nil, &FileError{File: path, Err: err, Kind: kind, Unread: true}
	}
	return data, nil
}

// EndedError is a certificate that has ended.
type EndedError struct{ At time.Time }

func (e *EndedError) Error() string {
	return "the certificate ended on " + e.At.UTC().Format(time.DateOnly) + "; put a new one there, and register it"
}

// ReadAssertion reads a JWT, which a line end may follow. The error is a [*FileError].
func ReadAssertion(path string) (string, error) {
	data, err := Read(path, KindAssertion)
	if err != nil {
		return "", err
	}
	assertion := strings.TrimSpace(string(data))
	switch {
	case assertion == "":
		return "", unfit(path, KindAssertion, errors.New("it is empty, and should hold a JWT"))
	case strings.Count(assertion, ".") != 2 || strings.ContainsFunc(assertion, notInJWT):
		return "", unfit(path, KindAssertion, errors.New("it holds no JWT"))
	}
	return assertion, nil
}

func notInJWT(r rune) bool {
	letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !letter && r != '-' && r != '_' && r != '.' && r != '='
}

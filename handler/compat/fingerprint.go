package compat

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"mailsidecar/handler/intake"
)

// JSONFingerprint digests a request; white space and the order of members do
// not count.
func JSONFingerprint(key, route string, data []byte) [32]byte {
	f := intake.NewFingerprint(key, route)
	if key != "" {
		v := jsontext.Value(bytes.Clone(data))
		_ = v.Canonicalize() // data was decoded before, so it is JSON
		f.Bytes(v)
	}
	return f.Sum()
}

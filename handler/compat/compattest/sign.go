package compattest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"
)

// SignRequest signs as the AWS SDKs do.
func SignRequest(r *http.Request, accessKey, secret string, at time.Time) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Date", at.UTC().Format("20060102T150405Z"))
	r.Header.Set("X-Amz-Content-Sha256", hash)
	Sign(r, accessKey, secret, hash, "content-type", "host", "x-amz-content-sha256", "x-amz-date")
}

// Sign writes the Authorization field of a request whose payload has that hash. It is
// written independently of the code that it tests, for a plain path without a query.
func Sign(r *http.Request, accessKey, secret, hash string, signed ...string) {
	var fields strings.Builder
	for _, name := range signed {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		fields.WriteString(name + ":" + value + "\n")
	}
	names := strings.Join(signed, ";")
	request := sha256.Sum256([]byte(r.Method + "\n" + r.URL.Path + "\n\n" + fields.String() + "\n" + names + "\n" + hash))
	date := r.Header.Get("X-Amz-Date")
	scope := date[:8] + "/eu-central-1/ses/aws4_request"
	key := "AWS4" + secret
	for _, part := range append(strings.Split(scope, "/"), "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(request[:])) {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(part))
		key = string(h.Sum(nil))
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+accessKey+"/"+scope+", SignedHeaders="+names+", Signature="+hex.EncodeToString([]byte(key)))
}

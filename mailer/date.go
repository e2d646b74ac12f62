package mailer

import (
	"bytes"
	"net/mail"
	"strings"
	"time"
)

// FormatDate returns the value of a Date field (RFC 5322 §3.3), in UTC and to the second.
func FormatDate(t time.Time) string { return t.UTC().Format(time.RFC1123Z) }

// Redated returns the content with another date in its Date field. It returns false, and
// the content as it is, where that field is not at the date old, to the second, and so is
// not ours, and where the message is signed (DKIM, S/MIME, PGP).
func (c Content) Redated(old, date time.Time) (Content, bool) {
	start, end := 0, 0 // of the Date field's value
	for pos := 0; pos < len(c.Data); {
		size := bytes.IndexByte(c.Data[pos:], '\n') + 1
		if size <= len("\r\n") {
			break // the header section ends
		}
		name, value, _ := strings.Cut(string(c.Data[pos:pos+size]), ":")
		switch strings.ToLower(strings.TrimRight(name, " \t")) {
		case "date":
			start, end = pos+size-len(value), pos+size
		case "dkim-signature":
			return c, false
		case "content-type":
			if isSignedType(value + folds(c.Data[pos+size:])) {
				return c, false
			}
		}
		pos += size
	}
	if end == 0 || end < len(c.Data) && (c.Data[end] == ' ' || c.Data[end] == '\t') {
		return c, false
	}
	if was, err := mail.ParseDate(strings.TrimSpace(string(c.Data[start:end]))); err != nil || was.Unix() != old.Unix() {
		return c, false
	}
	data := make([]byte, 0, len(c.Data)+len(time.RFC1123Z)) // a date is as long as its layout
	data = append(data, c.Data[:start]...)
	data = append(data, " "+FormatDate(date)+"\r\n"...)
	c.Data = append(data, c.Data[end:]...)
	return c, true
}

// folds returns the lines that data begins with and that belong to the field before it.
func folds(data []byte) string {
	n := 0
	for n < len(data) && (data[n] == ' ' || data[n] == '\t') {
		end := bytes.IndexByte(data[n:], '\n')
		if end < 0 {
			return string(data)
		}
		n += end + 1
	}
	return string(data[:n])
}

func isSignedType(contentType string) bool {
	mediaType, _, _ := strings.Cut(StripComments(contentType), ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "multipart/signed", "application/pkcs7-mime", "application/x-pkcs7-mime":
		return true
	}
	return false
}

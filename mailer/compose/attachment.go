package compose

import (
	"mime"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"mailsidecar/mailer"
)

// attachmentTypes are the media types of common files, by extension. The mime package
// is not asked because its types depend on files of the machine.
var attachmentTypes = map[string]string{
	".avif": "image/avif", ".bmp": "image/bmp", ".bz2": "application/x-bzip2", ".css": "text/css",
	".csv": "text/csv", ".doc": "application/msword",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".eps":  "application/postscript", ".epub": "application/epub+zip", ".gif": "image/gif", ".gz": "application/gzip",
	".heic": "image/heic", ".htm": "text/html", ".html": "text/html", ".ics": "text/calendar", ".jpeg": "image/jpeg",
	".jpg": "image/jpeg", ".js": "text/javascript", ".json": "application/json", ".m4a": "audio/mp4",
	".md": "text/markdown", ".mov": "video/quicktime", ".mp3": "audio/mpeg", ".mp4": "video/mp4",
	".odp": "application/vnd.oasis.opendocument.presentation",
	".ods": "application/vnd.oasis.opendocument.spreadsheet",
	".odt": "application/vnd.oasis.opendocument.text", ".ogg": "audio/ogg", ".p7s": "application/pkcs7-signature",
	".pdf": "application/pdf", ".png": "image/png", ".ppt": "application/vnd.ms-powerpoint",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".ps":   "application/postscript", ".rtf": "application/rtf", ".svg": "image/svg+xml", ".tar": "application/x-tar",
	".tgz": "application/gzip", ".tif": "image/tiff", ".tiff": "image/tiff", ".tsv": "text/tab-separated-values",
	".txt": "text/plain", ".log": "text/plain", ".vcf": "text/vcard", ".wasm": "application/wasm", ".wav": "audio/wav",
	".webm": "video/webm", ".webp": "image/webp", ".xls": "application/vnd.ms-excel",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xml": "application/xml",
	".yaml": "application/yaml", ".yml": "application/yaml", ".zip": "application/zip", ".7z": "application/x-7z-compressed",
}

const octetStream = "application/octet-stream"

// attachmentType returns the media type to send an attachment with, and its
// parameters without name. The caller's type has been validated.
func attachmentType(a mailer.Attachment) (string, map[string]string) {
	mediaType, params, err := mime.ParseMediaType(a.ContentType)
	if err != nil || mediaType == octetStream {
		mediaType, params = guessType(a)
	}
	// A composite type must not be base64 (RFC 2045 §6.4), but only base64 preserves
	// the octets of an attached message: so it is sent as a plain file.
	if strings.HasPrefix(mediaType, "multipart/") || strings.HasPrefix(mediaType, "message/") {
		return octetStream, nil
	}
	delete(params, "name")
	return mediaType, params
}

func guessType(a mailer.Attachment) (string, map[string]string) {
	guess, known := attachmentTypes[strings.ToLower(path.Ext(a.Filename))]
	if !known {
		return octetStream, nil
	}
	if strings.HasPrefix(guess, "text/") && utf8.Valid(a.Content) {
		return guess, map[string]string{"charset": "utf-8"}
	}
	return guess, nil
}

// contentTypeValue returns a Content-Type, one parameter a line.
func contentTypeValue(mediaType string, params map[string]string, filename string) string {
	value := []byte(mediaType)
	keys := make([]string, 0, len(params))
	for key := range params {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		value = appendParam(value, key, params[key])
	}
	if filename != "" {
		value = appendParam(value, "name", filename)
	}
	return string(value)
}

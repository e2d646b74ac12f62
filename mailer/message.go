package mailer

import "strings"

// Message is what an app asks to be sent, before compose.Compose makes bytes of it.
// No field is trusted: Compose validates every one.
type Message struct {
	From    Address
	To      []Address
	Cc      []Address
	Bcc     []Address // envelope only, never in the header section
	ReplyTo []Address
	Sender  Address // who sent it on behalf of From; zero leaves the field out
	Subject string
	Text    string
	HTML    string
	// Header holds the caller's own fields, in order.
	Header      []Field
	Attachments []Attachment
	// ReturnPath is the reverse-path: empty means the address of From, "<>" the
	// null reverse-path.
	ReturnPath string
}

// Address is a mailbox: a display name, which may be empty, and an addr-spec
// (RFC 5322 §3.4). Both may hold any Unicode.
type Address struct {
	Name  string
	Email string
}

// Field is one header field, its value unfolded and not encoded.
type Field struct {
	Name  string
	Value string
}

// Attachment is a file sent with a message. With a ContentID it is inline: a
// part of multipart/related that the HTML refers to as cid:ContentID.
type Attachment struct {
	Filename    string
	ContentType string // empty: guessed from Filename
	ContentID   string // without angle brackets
	Content     []byte
}

// FieldError says what is wrong with one field of a message.
type FieldError struct {
	// Field is the path in the request, such as "to[1]" or
	// "attachments[0].filename".
	Field string
	// Message is one sentence for the caller. It does not repeat a value that may be
	// long or hold control characters.
	Message string
}

// InvalidError reports every field that makes a message unsendable.
type InvalidError struct {
	// Malformed says that some field breaks the form of a header value (CR, LF
	// or NUL, a bad field name): the answer is 400 rather than 422.
	Malformed bool
	Fields    []FieldError
}

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + ": " + f.Message
	}
	return strings.Join(parts, "; ")
}

package mailer

import (
	"strconv"
	"strings"
	"time"
)

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
	// Calendar is an invitation, a further form of the text; zero for none.
	Calendar Calendar
	// Date is that of the Date field, unless Header has one: when the message is to be
	// sent. A past one, and the zero Time, mean now.
	Date time.Time
	// Header holds the caller's own fields, in order.
	Header      []Field
	Attachments []Attachment
	// ForceFrom, unless it is the zero Address, takes the place of From, of Sender and of a
	// reverse-path that is not null. Its name is for a From that has none. From goes into
	// ReplyTo unless there is one.
	ForceFrom Address
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

// Calendar is an invitation or another message of iTIP (RFC 5546), which calendars show
// in place of the text.
type Calendar struct {
	// Content is an iCalendar object (RFC 5545) in UTF-8, with any line ends.
	Content string
	// Method is its METHOD, such as REQUEST; empty: as the content says.
	Method string
}

// FieldHeaders is the field of the caller's own header fields, whose members have
// their names.
const FieldHeaders = "headers"

// Position is where in a message something is.
type Position struct {
	// Field is named as in the native API: "to", "subject", "headers", "attachments".
	Field string
	// Item is which one of a list, from 1; zero means the field as a whole.
	Item int
	// Member is a part of the field or of its item: the name of a header field,
	// "filename", "content_type" or "content_id" of an attachment, or "name" where that of
	// an address is wrong. Empty means all.
	Member string
}

// String is the path in a request to the native API: "to[1]",
// "attachments[0].filename", "headers.X-Order".
func (p Position) String() string {
	path := p.Field
	if p.Field == FieldHeaders && p.Item > 0 {
		return path + "." + p.Member // which may be empty
	}
	if p.Item > 0 {
		path += "[" + strconv.Itoa(p.Item-1) + "]"
	}
	if p.Member != "" {
		path += "." + p.Member
	}
	return path
}

// FieldError says what is wrong with one field of a message.
type FieldError struct {
	Position
	// Message is one sentence for the caller, without the offending value when
	// that could be long or hold control characters.
	Message string
}

// String is the path and what is wrong there.
func (f FieldError) String() string { return f.Position.String() + ": " + f.Message }

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
		parts[i] = f.String()
	}
	return strings.Join(parts, "; ")
}

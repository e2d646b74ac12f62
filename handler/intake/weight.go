package intake

import (
	"bytes"
	"fmt"

	"mailsidecar/api"
	"mailsidecar/handler/problem"
	"mailsidecar/processor"
)

// What is made of a body can take far more memory than the body: a list of a million
// {} is three megabytes of JSON and a gigabyte of messages. So each element of a list
// and each member of an object has a weight, in octets, about what the largest thing
// made of it takes. It is known before anything is made, and counts against a limit of
// the request's own and against the memory of all requests under way.
const (
	weightElement = 384 // of a list: an object, a list, null or an empty string
	weightText    = 96  // of a list: any other string, number, true and false
	weightOctet   = 2   // a number in a list that holds a file's octets
	weightMember  = 96  // of an object
	weightPart    = 512 // of a form, beside its header fields

	// weightFactor is how much each octet of the body may weigh.
	weightFactor = 16
	minWeight    = 128 << 10 // that any body may have
	maxWeight    = 2 << 20   // that any body may have beside that of its octets, at least
	// weightRecipient is what each recipient that a message may have adds to that, if
	// they are many.
	weightRecipient = 1 << 10

	// maxDepth is how deep values may be nested.
	maxDepth = 100
	// maxName is how many octets the name of a member may have, as it is written. A name is
	// copied several times, for messages about it too.
	maxName = 4 << 10
)

// maxWeight is what the body's elements may weigh together, in octets: 2 MiB and 16
// for each octet of the body, but no more than 2 MiB and the largest body allowed.
// More than 2 MiB is allowed where a message may have over 2048 recipients.
func (b *Body) maxWeight() int64 {
	base := max(maxWeight, weightRecipient*int64(b.share.budget.recipients))
	return min(max(weightFactor*b.limit, minWeight), base) + min(weightFactor*b.read, max(b.limit, minWeight))
}

// JSON reads the rest of a body in JSON, as [Body.All] does, weighs it, and waits for
// the turn to make something of it, see [Body.Begin]. What it returns is safe to decode,
// valid or not.
func (b *Body) JSON() ([]byte, error) {
	data, err := b.All()
	if err != nil {
		return nil, err
	}
	blankMark(data)
	if err := b.Weigh(data); err != nil {
		return nil, err
	}
	return data, b.Begin()
}

// blankMark turns a byte order mark, which programs on Windows put before JSON (RFC 8259
// §8.1), into blanks, so that the octets which an error counts are the client's.
func blankMark(data []byte) {
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		copy(data, "   ")
	}
}

// Weigh counts the elements and members of JSON that the body holds.
func (b *Body) Weigh(data []byte) error {
	if len(data) > processor.Small && !b.share.turn {
		if err := b.share.takeTurn(b.ctx); err != nil {
			return err
		}
		defer b.share.budget.turns.Leave()
	}
	s := scale{data: data, limit: b.maxWeight() - b.weight}
	if err := s.weigh(); err != nil {
		return err
	}
	return b.weighMore(s.weight)
}

func (b *Body) weighMore(octets int64) error {
	if b.weight += octets; b.weight > b.maxWeight() {
		return tooManyElements()
	}
	return nil
}

// Charge counts octets that are made of the request while it is read, beside those of the
// body itself.
func (b *Body) Charge(octets int64) error {
	if err := b.weighMore(octets); err != nil {
		return err
	}
	if !b.reserve() {
		return busy()
	}
	return nil
}

// made is what the elements take in memory at most, in octets: lists grow by a quarter
// at a time, and are copied.
func (b *Body) made() int64 { return b.weight + b.weight/2 }

// Weight is what was counted so far, in octets.
func (b *Body) Weight() int64 { return b.weight }

func tooManyElements() *problem.Error {
	return problem.New(api.CodeBodyTooLarge, "The lists and objects in the body have too many elements.")
}

// scale weighs JSON in one pass and without allocating. Of JSON that is not valid it
// weighs at least what comes before the first error.
type scale struct {
	data   []byte
	pos    int
	limit  int64
	weight int64
	open   [maxDepth]container
	depth  int
}

// container is a list or an object that is open.
type container struct {
	isList   bool
	isOctets bool // a list of a file's octets
	atName   bool // the next string is a member's name
	// name is where the name of the last member is, with its quotes. A body has less
	// than 2 GiB.
	name struct{ from, to int32 }
}

func (s *scale) weigh() error {
	for s.pos < len(s.data) {
		if err := s.step(); err != nil {
			return err
		}
		if s.weight > s.limit {
			return tooManyElements()
		}
	}
	return nil
}

func (s *scale) step() error {
	switch c := s.data[s.pos]; c {
	case '"':
		return s.text()
	case '{', '[':
		return s.begin(c == '[')
	case '}', ']':
		s.depth = max(s.depth-1, 0)
	case ',':
		if in := s.in(); in != nil {
			in.atName = !in.isList
		}
	case ' ', '\t', '\r', '\n', ':':
	default:
		s.literal(c)
		return nil
	}
	s.pos++
	return nil
}

// in is the innermost container that is open, or nil.
func (s *scale) in() *container {
	if s.depth == 0 {
		return nil
	}
	return &s.open[s.depth-1]
}

// element weighs an element if a list is open.
func (s *scale) element(weight int64) {
	if in := s.in(); in != nil && in.isList {
		s.weight += weight
	}
}

func (s *scale) begin(isList bool) error {
	s.element(weightElement)
	if s.depth == maxDepth {
		return problem.New(api.CodeMalformedJSON, fmt.Sprintf("Values are nested deeper than %d levels.", maxDepth))
	}
	isOctets := isList && s.holdsOctets()
	s.open[s.depth] = container{isList: isList, isOctets: isOctets, atName: !isList}
	s.depth++
	s.pos++
	return nil
}

// text passes over a string, which is a name or a value.
func (s *scale) text() error {
	start := s.pos
	s.pos = stringEnd(s.data, start)
	switch in := s.in(); {
	case in == nil:
	case in.atName:
		if s.pos-start > maxName {
			return problem.New(api.CodeMalformedJSON, "The name of a member may have 4 KiB.")
		}
		in.atName, in.name.from, in.name.to = false, int32(start), int32(s.pos)
		s.weight += weightMember
	case s.pos-start == len(`""`):
		s.element(weightElement)
	default:
		s.element(weightText)
	}
	return nil
}

// stringEnd returns the position after the string that begins at start.
func stringEnd(data []byte, start int) int {
	for i := start + 1; ; i++ {
		n := bytes.IndexByte(data[i:], '"')
		if n < 0 {
			return len(data)
		}
		from := i
		i += n
		backslashes := 0
		for j := i - 1; j >= from && data[j] == '\\'; j-- {
			backslashes++
		}
		if backslashes%2 == 0 {
			return i + 1
		}
	}
}

// literal passes over a number, true, false, null, or what is no JSON.
func (s *scale) literal(c byte) {
	in := s.in()
	switch {
	case c == 'n':
		s.element(weightElement)
	case in != nil && in.isOctets:
		s.element(weightOctet)
	default:
		s.element(weightText)
	}
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch s.data[s.pos] {
		case ',', ']', '}', ' ', '\t', '\r', '\n', ':', '"', '{', '[':
			return
		}
	}
}

// octetLists are the members of providers' requests that may hold a file as a list of
// its octets, in lower case. The lists around them do not count.
var octetLists = map[string]bool{
	`"attachments""content"`: true, `"attachments""content""data"`: true,
	`"attachment""content"`: true, `"attachment""content""data"`: true,
	`"content""raw""data"`: true, `"content""raw""data""data"`: true,
	`"content""simple""attachments""rawcontent"`:       true,
	`"content""simple""attachments""rawcontent""data"`: true,
}

// holdsOctets reports whether a list that begins here holds a file's octets.
func (s *scale) holdsOctets() bool {
	if in := s.in(); in == nil || in.isList {
		return false
	}
	var path [64]byte
	n := 0
	for i := range s.depth {
		name := s.data[s.open[i].name.from:s.open[i].name.to]
		if n+len(name) > len(path) {
			return false
		}
		for _, letter := range name {
			if 'A' <= letter && letter <= 'Z' {
				letter |= 0x20
			}
			path[n] = letter
			n++
		}
	}
	return octetLists[string(path[:n])]
}

package conns

import "bytes"

// scanner finds the end of a header, which is an empty line.
type scanner struct {
	line int  // octets of the present line so far
	cr   bool // the first of them is CR
	end  bool // the header has ended
}

// header returns how many of the octets belong to the header, and how many lines end in
// them.
func (s *scanner) header(p []byte) (octets, lines int) {
	for octets < len(p) && !s.end {
		rest := p[octets:]
		n := bytes.IndexByte(rest, '\n')
		if n < 0 {
			s.part(rest)
			return len(p), lines
		}
		s.part(rest[:n])
		s.end = s.line == 0 || s.line == 1 && s.cr
		s.line = 0
		lines++
		octets += n + 1
	}
	return octets, lines
}

// part takes in octets of one line.
func (s *scanner) part(p []byte) {
	if s.line == 0 && len(p) > 0 {
		s.cr = p[0] == '\r'
	}
	s.line += len(p)
}

// next begins with another header. Its first octets may have been read ahead, so an empty
// line at the beginning does not count as its end.
func (s *scanner) next() { *s = scanner{line: 2} }

// ahead counts the last octets read after the header: net/http reads up to 4 KiB ahead,
// and may have the beginning of the next header there.
type ahead [2]struct{ octets, lines int }

const readAhead = 4 << 10 // the size of net/http's buffer

func (a *ahead) add(p []byte) {
	if a[1].octets >= readAhead {
		a[0], a[1].octets, a[1].lines = a[1], 0, 0
	}
	a[1].octets += len(p)
	a[1].lines += bytes.Count(p, []byte{'\n'})
}

func (a *ahead) octets() int { return min(a[0].octets+a[1].octets, readAhead) }
func (a *ahead) lines() int  { return min(a[0].lines+a[1].lines, readAhead) }

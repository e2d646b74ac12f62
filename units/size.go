package units

import (
	"encoding"
	"math"
	"strconv"
	"strings"
)

// Size is a number of octets.
type Size int64

var sizeUnits = []struct {
	name   string
	octets int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
	{"", 1},
}

// ParseSize reads a whole number of octets or of a unit: "25MiB", "25 MB",
// "26214400". Anything else is an [*Error].
func ParseSize(text string) (Size, error) {
	bad := &Error{text, "size", "a size such as 25MiB, 500KB or 26214400"}
	digits := strings.TrimRight(text, "BGKMibgkm ")
	unit := strings.TrimSpace(text[len(digits):])
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, bad
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) && int64(n) <= math.MaxInt64/u.octets {
			return Size(int64(n) * u.octets), nil
		}
	}
	return 0, bad
}

var _ encoding.TextUnmarshaler = (*Size)(nil)

// UnmarshalText is [ParseSize], but for blanks around the text.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(strings.TrimSpace(string(text)))
	if err == nil {
		*s = parsed
	}
	return err
}

// String is the size in the largest unit that divides it, and "0" for zero.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if n := int64(s); n != 0 && u.name != "" && n%u.octets == 0 {
			return strconv.FormatInt(n/u.octets, 10) + u.name
		}
	}
	return "0"
}

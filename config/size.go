package config

import (
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

// Decode implements envconfig's Decoder: "25MiB", "25 MB" or plain octets.
func (s *Size) Decode(value string) error {
	bad := &invalid{"is " + quote(value) + ", which is no size", "write a size such as 25MiB, 500KB or 26214400"}
	value = strings.TrimSpace(value)
	digits := strings.TrimRight(value, "BGKMibgkm ")
	unit := strings.TrimSpace(value[len(digits):])
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return bad
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) && int64(n) <= math.MaxInt64/u.octets {
			*s = Size(int64(n) * u.octets)
			return nil
		}
	}
	return bad
}

// String is the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if n := int64(s); n != 0 && u.name != "" && n%u.octets == 0 {
			return strconv.FormatInt(n/u.octets, 10) + u.name
		}
	}
	return "0"
}

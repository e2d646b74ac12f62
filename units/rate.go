package units

import (
	"encoding"
	"strconv"
	"strings"
	"time"
)

// Rate is a number of messages in a time. Zero is no limit.
type Rate struct {
	Messages int
	Per      time.Duration
}

// maxRate limits the number, because each message within a rate is remembered.
const maxRate = 1_000_000

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": Day}

// ParseRate reads a number of messages, from 1 to a million, in a second, minute,
// hour or day: "10/s", "30/m", "500/h", "2000/d". Anything else is an [*Error].
func ParseRate(text string) (Rate, error) {
	number, unit, _ := strings.Cut(strings.ToLower(text), "/")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	per := rateUnits[strings.TrimSpace(unit)]
	if err != nil || n < 1 || n > maxRate || per == 0 {
		return Rate{}, &Error{text, "rate", "a rate such as 10/s, 30/m, 500/h or 2000/d"}
	}
	return Rate{n, per}, nil
}

var _ encoding.TextUnmarshaler = (*Rate)(nil)

// UnmarshalText is [ParseRate], but for blanks around the text.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := ParseRate(strings.TrimSpace(string(text)))
	if err == nil {
		*r = parsed
	}
	return err
}

// String is the rate as [ParseRate] reads it; empty for no limit.
func (r Rate) String() string {
	if r == (Rate{}) {
		return ""
	}
	unit := Duration(r.Per).String()
	for name, per := range rateUnits {
		if r.Per == per {
			unit = name
		}
	}
	return strconv.Itoa(r.Messages) + "/" + unit
}

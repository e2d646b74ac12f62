package config

import (
	"strconv"
	"strings"
	"time"
)

// Rate is a number of messages in a second, minute, hour or day. Zero is no
// bound.
type Rate struct {
	Messages int
	Per      time.Duration
}

// maxRate bounds the number, each of which is remembered.
const maxRate = 1_000_000

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day}

// Decode implements envconfig's Decoder: "10/s", "30/m", "500/h", "2000/d".
func (r *Rate) Decode(value string) error {
	number, unit, _ := strings.Cut(strings.ToLower(strings.TrimSpace(value)), "/")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	per := rateUnits[strings.TrimSpace(unit)]
	if err != nil || n < 1 || n > maxRate || per == 0 {
		return &invalid{"is " + quote(value) + ", which is no rate", "write a rate such as 10/s, 30/m, 500/h or 2000/d"}
	}
	*r = Rate{n, per}
	return nil
}

func (r Rate) String() string {
	for unit, per := range rateUnits {
		if r.Per == per {
			return strconv.Itoa(r.Messages) + "/" + unit
		}
	}
	return ""
}

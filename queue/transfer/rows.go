package transfer

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailsidecar/queue"
	"mailsidecar/queue/tally"
)

// Table is one of the lists of rows that a store has.
type Table string

// The tables. Messages come with their recipients and their content.
const (
	Messages Table = "messages"
	Attempts Table = "attempts"
	Keys     Table = "keys"
)

var tables = []Table{Messages, Attempts, Keys}

// Bounds of what Read returns: it ends with the row that reaches one of them.
const (
	StepRows   = 500
	StepOctets = 4 << 20
)

// Position is a place in a table's order. Messages are in the order of their ids, attempts
// of those and their numbers, idempotency keys of the API key and the name, all by octets.
type Position struct {
	ID        string
	N         int
	Key, Name string
}

// Rows are rows of one table, in order.
type Rows struct {
	Messages []Message
	Attempts []Attempt
	Keys     []Key
}

func (r *Rows) len() int { return len(r.Messages) + len(r.Attempts) + len(r.Keys) }

func (r *Rows) last() Position {
	switch {
	case len(r.Messages) > 0:
		return Position{ID: r.Messages[len(r.Messages)-1].ID}
	case len(r.Attempts) > 0:
		a := r.Attempts[len(r.Attempts)-1]
		return Position{ID: a.Message, N: a.N}
	default:
		k := r.Keys[len(r.Keys)-1]
		return Position{Key: k.Key, Name: k.Name}
	}
}

// Message is all that a store has of a message, but for its attempts. Structured values are
// in the form of [JSON], and texts in that of [Text]. Times are precise to microseconds.
type Message struct {
	ID, Key, MessageID, Sender, Subject string
	Tags                                string
	ReversePath                         string
	Size                                int64
	EightBit, UTF8Header                bool
	Priority                            int
	Created                             int64
	SendAt                              *int64 // nil: none
	Expires                             int64
	Lifetime                            *int64
	Status                              string
	Final                               bool
	Clock                               *int64 // nil: never
	HasContent                          bool
	ContentUntil                        *int64
	Suspect                             bool
	Crashes                             int
	Attempts                            int // the number of the last one
	ResentOf                            string
	ResentAs                            []string
	Recipients                          []Recipient

	Content []byte `json:"-"`
}

// Recipient is one of a message. It is not leased.
type Recipient struct {
	N                  int
	ForwardPath, State string
	Due                *int64
	Route              string
	Lease              int64
	Tries, Attempts    int
	Result             string
}

// Attempt is one of a message.
type Attempt struct {
	Message           string
	N                 int
	Lease             int64
	Relay, Why        string
	Port              int
	Mode, TLS, Auth   string
	Ladder, Results   string
	Started, Duration int64
}

// Key is an idempotency key.
type Key struct {
	Key, Name   string
	Fingerprint []byte
	Messages    []byte // their ids, 16 octets each
	Expires     int64
}

// Rest is what is no table.
type Rest struct {
	Turns   []Turn
	Pauses  []queue.ManualPause
	Numbers *tally.Tally
}

// Clean brings texts into their form.
func (r *Rest) Clean() {
	for i := range r.Turns {
		texts(&r.Turns[i].Relay)
	}
	for i := range r.Pauses {
		texts(&r.Pauses[i].Relay, &r.Pauses[i].Reason)
	}
	r.Numbers = CopyNumbers(r.Numbers)
}

// CopyNumbers returns a copy, which a store has nothing of, with texts in their form.
func CopyNumbers(t *tally.Tally) *tally.Tally {
	all := tally.New()
	for k, n := range t.Statuses {
		texts(&k.Key)
		all.Statuses[k] += n
	}
	for _, part := range [][2]map[tally.CountKey]*queue.Counts{{all.Counts, t.Counts}, {all.Hours, t.Hours}} {
		for k, c := range part[1] {
			texts(&k.Key, &k.Relay)
			if part[0][k] == nil {
				part[0][k] = &queue.Counts{}
			}
			part[0][k].Add(*c) // two may not have been in their form
		}
	}
	for k, r := range t.Replies {
		texts(&k.Key, &k.Relay, &k.Enhanced, &k.Text)
		reply := *r
		if before := all.Replies[k]; before != nil {
			before.N, before.First, before.Last = before.N+r.N, min(before.First, r.First), max(before.Last, r.Last)
			continue
		}
		all.AddReply(k, &reply)
	}
	all.Touch()
	return all
}

// Turn is how many messages set out for a relay at a moment.
type Turn struct {
	Relay string
	At    int64
	N     int
}

// Text is a text as every store takes it.
func Text(s string) string {
	if strings.IndexByte(s, 0) < 0 && isASCII(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// JSON is a structured value as every store gives it back: members in order, no blanks, no
// NUL in a text. Nothing is what says nothing.
func JSON(text string) (string, error) {
	if text == "" || text == "null" {
		return "", nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	b, err := json.Marshal(withoutNUL(v))
	return string(b), err
}

func withoutNUL(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "\x00", "\ufffd")
	case []any:
		for i := range v {
			v[i] = withoutNUL(v[i])
		}
	case map[string]any:
		for name, value := range v {
			clean := strings.ReplaceAll(name, "\x00", "\ufffd")
			if clean != name {
				delete(v, name)
			}
			v[clean] = withoutNUL(value)
		}
	}
	return v
}

// Clean brings texts and structured values into their form.
func (r *Rows) Clean() error {
	for i := range r.Messages {
		if err := r.Messages[i].clean(); err != nil {
			return fmt.Errorf("message %s: %w", r.Messages[i].ID, err)
		}
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		texts(&a.Relay, &a.Why, &a.Mode, &a.TLS, &a.Auth)
		if err := values(&a.Ladder, &a.Results); err != nil {
			return fmt.Errorf("attempt %d of message %s: %w", a.N, a.Message, err)
		}
	}
	for i := range r.Keys {
		texts(&r.Keys[i].Key, &r.Keys[i].Name)
	}
	return nil
}

func (m *Message) clean() error {
	texts(&m.Key, &m.MessageID, &m.Sender, &m.Subject, &m.ReversePath)
	if err := values(&m.Tags); err != nil {
		return err
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		texts(&r.ForwardPath, &r.Route)
		if err := values(&r.Result); err != nil {
			return err
		}
	}
	return nil
}

func texts(all ...*string) {
	for _, s := range all {
		*s = Text(*s)
	}
}

func values(all ...*string) (err error) {
	for _, s := range all {
		if *s, err = JSON(*s); err != nil {
			return err
		}
	}
	return nil
}

// encode returns each row as octets: two rows are the same where these are.
func (r *Rows) encode() (encoded [][]byte, err error) {
	add := func(v any) {
		var b []byte
		if err == nil {
			b, err = json.Marshal(v)
		}
		encoded = append(encoded, b)
	}
	for _, m := range r.Messages {
		sum := sha256.Sum256(m.Content)
		add(struct {
			Message
			Content []byte
		}{m, sum[:]})
	}
	for _, a := range r.Attempts {
		add(a)
	}
	for _, k := range r.Keys {
		add(k)
	}
	return encoded, err
}

// encode returns the rest as octets.
func (r *Rest) encode() ([]byte, error) {
	slices.SortFunc(r.Turns, func(a, b Turn) int { return cmp.Or(strings.Compare(a.Relay, b.Relay), cmp.Compare(a.At, b.At)) })
	pauses := slices.Clone(r.Pauses)
	slices.SortFunc(pauses, func(a, b queue.ManualPause) int { return strings.Compare(a.Relay, b.Relay) })
	for i := range pauses {
		pauses[i].Since, pauses[i].Until = micros(pauses[i].Since), micros(pauses[i].Until)
	}
	var numbers []string
	for k, n := range r.Numbers.Statuses {
		if n != 0 {
			numbers = append(numbers, fmt.Sprintf("%q %d", k, n))
		}
	}
	for k, c := range r.Numbers.AllCounts() {
		numbers = append(numbers, fmt.Sprintf("%q %v", fmt.Sprint(k), *c))
	}
	for k, reply := range r.Numbers.Replies {
		numbers = append(numbers, fmt.Sprintf("%q %v", fmt.Sprint(k), *reply))
	}
	slices.Sort(numbers)
	b, err := json.Marshal(struct {
		Turns   []Turn
		Pauses  []queue.ManualPause
		Numbers []string
	}{r.Turns, pauses, numbers})
	return bytes.TrimSpace(b), err
}

func micros(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

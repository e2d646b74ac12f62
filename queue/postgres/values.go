package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"mailsidecar/queue"
)

// stamp is how a time is stored: NULL when it is zero.
func stamp(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{}
	}
	return pgtype.Timestamptz{Time: time.UnixMicro(t.UnixMicro()).UTC(), Valid: true}
}

// never is when a message expires of which all that is not final is held.
var never = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}

func timeOf(t pgtype.Timestamptz) time.Time {
	if !t.Valid || t.InfinityModifier != pgtype.Finite {
		return time.Time{}
	}
	return t.Time.UTC()
}

// key is the id of a message as the database has it.
type key = [16]byte

// parseID reads an id in its one form; false when it is none.
func parseID(id string) (key, bool) {
	u, err := uuid.Parse(id)
	return u, err == nil && len(id) == 36
}

func textOf(id key) string { return uuid.UUID(id).String() }

// parseIDs reads those of the ids that are some.
func parseIDs(ids []string) (parsed []key) {
	for _, id := range ids {
		if u, ok := parseID(id); ok {
			parsed = append(parsed, u)
		}
	}
	return parsed
}

// clean is a text as the database takes it: a relay may have said anything.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}

// toJSON is how structured values are stored: NULL when there are none. The database takes
// no NUL in a text, in whatever form.
func toJSON(v any) (*string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode for the store: %w", err)
	}
	text := string(b)
	if strings.Contains(text, `\u0000`) {
		text = withoutNUL(text)
	}
	return &text, nil
}

// withoutNUL replaces NUL in JSON, and not what only looks like it: a backslash that is
// written as two, before a text.
func withoutNUL(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != '\\':
			b.WriteByte(text[i])
		case strings.HasPrefix(text[i:], `\u0000`):
			b.WriteString("\ufffd")
			i += 5
		default:
			b.WriteString(text[i : i+2])
			i++
		}
	}
	return b.String()
}

func fromJSON(s *string, into any) error {
	if s == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(*s), into); err != nil {
		return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	return nil
}

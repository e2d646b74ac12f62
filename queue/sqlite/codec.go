package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailsidecar/queue"
)

// micros is how a time is stored: NULL when it is zero.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func fromMicros(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// blob is how an id is stored; false when it is none.
func blob(id string) ([]byte, bool) {
	u, err := uuid.Parse(id)
	return u[:], err == nil && len(id) == 36
}

func fromBlob(b []byte) (string, error) {
	u, err := uuid.FromBytes(b)
	return u.String(), err
}

// toJSON is how structured values are stored: NULL when v is nil.
func toJSON(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode for the store: %w", err)
	}
	return string(b), nil
}

func fromJSON(s sql.NullString, into any) error {
	if !s.Valid {
		return nil
	}
	if err := json.Unmarshal([]byte(s.String), into); err != nil {
		return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	return nil
}

package sqlite

import (
	"context"
	"database/sql"
)

// session executes statements on one connection, which prepares each once.
type session struct {
	// ctx may end a statement that reads. The writer's has no end.
	ctx context.Context
	*connection
}

// unwatched is the session for statements that are over in a moment. For each query with a
// context that may end the driver starts two goroutines, which watch it: a list of 500 messages
// would start thousands. Whoever executes many statements looks at the context in between.
func (s *session) unwatched() *session {
	return &session{context.WithoutCancel(s.ctx), s.connection}
}

func (s *session) execute(query string, args ...any) (sql.Result, error) {
	stmt, err := s.stmt(query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(s.ctx, args...)
}

func (s *session) exec(query string, args ...any) error {
	_, err := s.execute(query, args...)
	return err
}

// affect executes a statement and returns how many rows it changed.
func (s *session) affect(query string, args ...any) (int64, error) {
	result, err := s.execute(query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row executes a query for one row; sql.ErrNoRows when there is none.
func (s *session) row(query string, args []any, into ...any) error {
	stmt, err := s.stmt(query)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(s.ctx, args...).Scan(into...)
}

// each executes a query and calls f on each row.
func (s *session) each(query string, args []any, f func(*sql.Rows) error) error {
	stmt, err := s.stmt(query)
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(s.ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close() // Err tells
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ids executes a query for the ids of messages.
func (s *session) ids(query string, args ...any) ([][]byte, error) {
	var ids [][]byte
	err := s.each(query, args, func(rows *sql.Rows) error {
		var id []byte
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

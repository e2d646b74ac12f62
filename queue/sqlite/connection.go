package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// connection is one connection to the database, with the statements prepared on
// it. What changes its state (BEGIN, COMMIT, ROLLBACK, PRAGMA) and what prepares a
// statement runs without a caller's context: when one ends just then, the driver
// may report a failure although the statement has taken effect.
type connection struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	// unsure says that it is unknown whether a transaction is open. Such a
	// connection is replaced.
	unsure bool
}

// connect opens a connection. db must keep none that is idle.
func connect(db *sql.DB) (*connection, error) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

// stmt returns the prepared statement. There are some forty queries, and those
// of lists.
func (c *connection) stmt(query string) (*sql.Stmt, error) {
	if stmt := c.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := c.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = stmt
	return stmt, nil
}

// control executes BEGIN, COMMIT or ROLLBACK.
func (c *connection) control(query string) error {
	return (&session{context.Background(), c}).exec(query)
}

// rollBack ends the transaction, and says whether one was open. Where it cannot tell,
// the connection is unsure.
func (c *connection) rollBack() bool {
	c.unsure = false
	if c.control("ROLLBACK") == nil {
		return true
	}
	// SQLite may have ended the transaction by itself. Only then can one begin.
	c.unsure = c.control("BEGIN") != nil || c.control("ROLLBACK") != nil
	return false
}

// renewed returns a connection in place of c, which is unsure: a new one, and then c
// is closed. Where none can be opened it is c, if its transaction can be ended
// after all.
func (c *connection) renewed(open func() (*connection, error)) (*connection, error) {
	fresh, err := open()
	if err == nil {
		_ = c.close() // it is broken
		return fresh, nil
	}
	if c.rollBack(); c.unsure {
		return nil, err
	}
	return c, nil
}

// close closes the statements and then the connection: SQLite keeps one that has
// statements, with its locks. Closing it again does nothing.
func (c *connection) close() error {
	if c.conn.Raw(func(any) error { return nil }) != nil {
		return nil
	}
	var errs []error
	for _, stmt := range c.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}

package postgres

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// connectError says in plain words why there is no connection. The driver's own text repeats
// itself for each address and each way of encryption.
type connectError struct {
	text string
	err  error
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.err }

// Unreachable says that no connection was made, and that the database has not said why.
func Unreachable(err error) bool { return errors.As(err, new(*connectError)) }

// dialled is one line of the driver's error: the address, the host's name, and the cause.
var dialled = regexp.MustCompile(`^(\S+) \(([^)]*)\): (?:dial error: |failed to receive message: |server error: )?(?:dial tcp \S+: )?(?:connect: )?(.*)$`)

// noTLS is the driver's word for a server without encryption.
const noTLS = "server refused TLS connection"

// errLost is about a connection that was made.
var errLost = errors.New("the connection to the database was lost, try again")

// losses are what a connection ends with whose other end is gone.
var losses = []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE}

// plainly returns err with a plain text where it is about making a connection, or about the loss
// of one.
func plainly(err error) error {
	var e *pgconn.ConnectError
	switch {
	case errors.As(err, new(*connectError)) || errors.Is(err, errLost):
		return err
	case !errors.As(err, &e) && slices.ContainsFunc(losses, func(loss error) bool { return errors.Is(err, loss) }):
		return fmt.Errorf("%w: %w", errLost, err)
	case !errors.As(err, &e):
		return err
	}
	var causes, refused []string
	for line := range strings.Lines(e.Unwrap().Error()) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "hostname resolving error: ")
		if m := dialled.FindStringSubmatch(line); m != nil {
			line = m[1] + ": " + m[3]
			if !strings.HasPrefix(m[1], m[2]+":") && !strings.HasPrefix(m[1], "["+m[2]+"]:") {
				line = m[2] + " (" + m[1] + "): " + m[3]
			}
		}
		line = strings.ReplaceAll(line, "context deadline exceeded", "no answer in time")
		into := &causes
		if strings.Contains(line, noTLS) {
			into = &refused
		}
		if !slices.Contains(*into, line) {
			*into = append(*into, line)
		}
	}
	if len(causes) == 0 { // without encryption it was not tried
		causes = refused
	}
	return &connectError{strings.Join(causes, "; "), err}
}

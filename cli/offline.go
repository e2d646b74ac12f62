package cli

import (
	"context"
	"time"
)

// withServer calls f with a client of the running server.
func withServer(_ context.Context, f func(*client) error) error {
	c, err := connect(time.Minute)
	if err != nil {
		return err
	}
	return f(c)
}

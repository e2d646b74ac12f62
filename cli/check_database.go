package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"mailsidecar/config"
	"mailsidecar/service"
)

// checkedDatabase is what a check found out about the database of the queue.
type checkedDatabase struct {
	Database          string `json:"database"`
	OK                bool   `json:"ok"`
	Schema            int    `json:"schema_version,omitempty"`
	SynchronousCommit string `json:"synchronous_commit,omitempty"`
	Standbys          string `json:"synchronous_standby_names,omitempty"`
	Found             string `json:"found"`
	Do                string `json:"do,omitempty"`
}

// beginDatabase looks at the database of the queue, if that is in one, while the relays are
// checked; nil is sent where it is not.
func beginDatabase(ctx context.Context, timeout time.Duration) <-chan *checkedDatabase {
	found := make(chan *checkedDatabase, 1)
	s, _, _ := config.LoadService()
	go func() {
		if !s.Queue.Shared() {
			found <- nil
			return
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		found <- checkDatabase(ctx, s)
	}()
	return found
}

func checkDatabase(ctx context.Context, s config.Service) *checkedDatabase {
	d, remedy, err := service.ExamineDatabase(ctx, s)
	c := &checkedDatabase{Database: s.Queue.String(), OK: err == nil, Schema: d.Schema, SynchronousCommit: d.SynchronousCommit, Standbys: d.Standbys, Do: remedy}
	switch {
	case err != nil:
		c.Found = "It cannot be used: " + err.Error()
	case d.Schema == 0:
		c.Found = "It has no tables yet"
		c.Do = "the start of a server makes them where its role may, and mailsidecar queue migrate as another role"
	case d.Schema < d.Wanted:
		c.Found = fmt.Sprintf("Its tables are of version %d, and this program needs %d", d.Schema, d.Wanted)
		c.Do = "the start of a server changes them where its role may, and mailsidecar queue migrate as another role"
	case !d.Safe:
		c.Found = "It can be used, but a crash may lose accepted mail: synchronous_commit is " + d.SynchronousCommit
		c.Do = "set it to on"
	default:
		c.Found = "It can be used; synchronous_commit is " + d.SynchronousCommit
	}
	if d.Listen != nil && err == nil {
		c.OK = false
		c.Found += ". MAILSIDECAR_QUEUE_LISTEN cannot be used: " + d.Listen.Error()
	}
	return c
}

func printDatabase(w io.Writer, c *checkedDatabase) {
	if c == nil {
		return
	}
	text := c.Found + "."
	if c.Do != "" {
		text += " Do: " + c.Do + "."
	}
	fmt.Fprintf(w, "\nQueue %s\n\n%s\n", c.Database, wrap(text, ""))
}

// Floor is the least that a durable sidecar can be: echo, JSON, go-mail's
// compose, one SQLite writer that commits in groups, and a fixed number of
// relay connections that carry one message per flight. It has no retries, no
// limits, no states and no log: it shows the cost of the stack alone, and is not
// for use.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/labstack/echo/v4"

	"mailsidecar/bench/peers/message"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	host := flag.String("host", "localhost", "the relay's name")
	port := flag.Int("port", 587, "the relay's port, with STARTTLS")
	ca := flag.String("ca", "", "PEM file with the relay's authority")
	db := flag.String("db", "", "the store's file")
	connections := flag.Int("connections", 8, "connections to the relay")
	flag.Parse()
	if err := run(*listen, *host, *port, *ca, *db, *connections); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(listen, host string, port int, ca, db string, connections int) error {
	st, err := openStore(db)
	if err != nil {
		return err
	}
	relay, err := newRelay(host, port, ca)
	if err != nil {
		return err
	}
	go st.run()
	waiting := newBacklog()
	for range connections {
		go relay.deliver(waiting, st)
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.POST("/v1/messages", func(c echo.Context) error { return accept(c, st, waiting) })
	return e.Start(listen)
}

// accept answers when the message is on disk.
func accept(c echo.Context, st *store, waiting *backlog) error {
	m, err := message.Decode(c.Request().Body)
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, err.Error())
	}
	msg, err := m.Mail()
	if err != nil {
		return echo.NewHTTPError(http.StatusUnprocessableEntity, err.Error())
	}
	var content bytes.Buffer
	if _, err := msg.WriteTo(&content); err != nil {
		return err
	}
	sender, err := msg.GetSender(false)
	if err != nil {
		return err
	}
	recipients, err := msg.GetRecipients()
	if err != nil {
		return err
	}
	it := item{sender: sender, recipients: recipients, content: content.Bytes()}
	if it.id, err = st.insert(it); err != nil {
		return err
	}
	waiting.push(it)
	return c.JSON(http.StatusAccepted, map[string]any{"id": it.id, "status": "queued"})
}

// item is one message on its way.
type item struct {
	id         int64
	sender     string
	recipients []string
	content    []byte
}

// backlog is what is accepted and not on a connection yet, all of it in memory.
type backlog struct {
	mu    sync.Mutex
	some  *sync.Cond
	items []item
}

func newBacklog() *backlog {
	b := &backlog{}
	b.some = sync.NewCond(&b.mu)
	return b
}

func (b *backlog) push(it item) {
	b.mu.Lock()
	b.items = append(b.items, it)
	b.mu.Unlock()
	b.some.Signal()
}

// pop waits for a message.
func (b *backlog) pop() item {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.items) == 0 {
		b.some.Wait()
	}
	return b.take()
}

// tryPop does not wait.
func (b *backlog) tryPop() (item, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) == 0 {
		return item{}, false
	}
	return b.take(), true
}

func (b *backlog) take() item {
	it := b.items[0]
	b.items[0] = item{}
	b.items = b.items[1:]
	return it
}

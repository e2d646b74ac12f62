package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// caller hands messages over, one after the other, on a connection that it
// keeps. Each of a case's callers is one.
type caller interface {
	// send returns nil when the system took the message.
	send(id string) error
	close()
}

// httpCaller posts the JSON message. It is no net/http, which would cost the
// machine as much as some of the systems do.
type httpCaller struct {
	conn    net.Conn
	r       *bufio.Reader
	head    []byte // of every request
	before  []byte // of the body, in front of the id
	after   []byte
	request []byte
}

// maxAnswer is how long a system may take to answer.
const maxAnswer = 30 * time.Second

func newHTTPCaller(port int, prefer string, m *payload) (*httpCaller, error) {
	conn, err := net.Dial("tcp", local(port))
	if err != nil {
		return nil, err
	}
	head := "POST /v1/messages HTTP/1.1\r\nHost: " + local(port) + "\r\nContent-Type: application/json\r\n"
	if prefer != "" {
		head += "Prefer: " + prefer + "\r\n"
	}
	return &httpCaller{
		conn: conn, r: bufio.NewReader(conn), head: []byte(head + "Content-Length: "),
		before: m.jsonBefore, after: m.jsonAfter,
	}, nil
}

func (c *httpCaller) close() { c.conn.Close() }

func (c *httpCaller) send(id string) error {
	length := len(c.before) + len(id) + len(c.after)
	c.request = append(c.request[:0], c.head...)
	c.request = strconv.AppendInt(c.request, int64(length), 10)
	c.request = append(c.request, "\r\n\r\n"...)
	c.request = append(c.request, c.before...)
	c.request = append(c.request, id...)
	c.request = append(c.request, c.after...)
	_ = c.conn.SetDeadline(time.Now().Add(maxAnswer))
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("answer %d %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// smtpCaller submits the composed message to a local relay, envelope and DATA
// in one flight.
type smtpCaller struct {
	conn    net.Conn
	r       *textproto.Reader
	before  []byte
	after   []byte
	content []byte
}

func newSMTPCaller(port int, m *payload) (*smtpCaller, error) {
	conn, err := net.Dial("tcp", local(port))
	if err != nil {
		return nil, err
	}
	c := &smtpCaller{conn: conn, r: textproto.NewReader(bufio.NewReader(conn)), before: m.mimeBefore, after: m.mimeAfter}
	_, _, err = c.r.ReadResponse(220)
	if err == nil {
		err = c.flight("EHLO localhost\r\n", 250)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *smtpCaller) close() {
	_, _ = io.WriteString(c.conn, "QUIT\r\n")
	c.conn.Close()
}

func (c *smtpCaller) flight(commands string, codes ...int) error {
	_ = c.conn.SetDeadline(time.Now().Add(maxAnswer))
	if _, err := io.WriteString(c.conn, commands); err != nil {
		return err
	}
	for _, code := range codes {
		if _, _, err := c.r.ReadResponse(code); err != nil {
			return err
		}
	}
	return nil
}

func (c *smtpCaller) send(id string) error {
	err := c.flight("MAIL FROM:<shop@example.com>\r\nRCPT TO:<ana@example.org>\r\nDATA\r\n", 250, 250, 354)
	if err != nil {
		return err
	}
	c.content = append(c.content[:0], c.before...)
	c.content = append(c.content, id...)
	c.content = append(c.content, c.after...)
	if _, err := c.conn.Write(c.content); err != nil {
		return err
	}
	return c.flight(".\r\n", 250)
}

// load is a set of callers at work, with the answers that they got.
type load struct {
	run     int
	numbers atomic.Int64
	callers []caller
	stopped atomic.Bool
	wg      sync.WaitGroup

	mu       sync.Mutex
	answers  []answer
	failures int
	failure  error // the first
}

// answer is one message that was taken.
type answer struct {
	number int
	at     time.Time
	took   time.Duration
}

func startLoad(run, callers int, connect func() (caller, error)) (*load, error) {
	l := &load{run: run}
	for range callers {
		c, err := connect()
		if err != nil {
			l.stop()
			return nil, err
		}
		l.callers = append(l.callers, c)
	}
	for _, c := range l.callers {
		l.wg.Go(func() { l.work(c) })
	}
	return l, nil
}

// maxFailures in a row end a caller: the system is not worth measuring.
const maxFailures = 20

func (l *load) work(c caller) {
	answers := make([]answer, 0, 1<<14)
	failed := 0
	for !l.stopped.Load() && failed < maxFailures {
		number := int(l.numbers.Add(1)) - 1
		start := time.Now()
		err := c.send(strconv.Itoa(l.run) + "-" + strconv.Itoa(number))
		if err == nil {
			now := time.Now()
			answers = append(answers, answer{number, now, now.Sub(start)})
			failed = 0
			continue
		}
		failed++
		l.fail(err)
		if isConnectionError(err) {
			break // later answers on this connection would be out of step
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, answers...)
}

func isConnectionError(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = err
	}
	l.failures++
}

// stop waits for the answers that are still to come.
func (l *load) stop() {
	l.stopped.Store(true)
	l.wg.Wait()
	for _, c := range l.callers {
		c.close()
	}
}

// sleep returns early when the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

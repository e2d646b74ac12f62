package oauth2_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a command that runs in a pseudo-terminal.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	ended  chan struct{} // closed when the command has ended

	mu      sync.Mutex
	printed bytes.Buffer
}

// endMark follows all that a command printed.
const endMark = "\x00end of the command\x00"

// startIn runs a command in a terminal.
func startIn(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, master: master, ended: make(chan struct{})}
	go term.read()
	go func() {
		_ = cmd.Wait()
		// What a command prints at its end may be lost when no program has the terminal
		// any more.
		_, _ = io.WriteString(tty, endMark)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-term.ended
		master.Close()
		tty.Close()
	})
	return term
}

// read keeps what is printed, up to the mark.
func (term *terminal) read() {
	defer close(term.ended)
	buffer := make([]byte, 4096)
	for {
		n, err := term.master.Read(buffer)
		if err != nil {
			return
		}
		if term.keep(buffer[:n]) {
			return
		}
	}
}

// keep takes what was printed, and reports whether the mark has come.
func (term *terminal) keep(p []byte) (ended bool) {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.printed.Write(p)
	all := term.printed.Bytes()
	if ended = bytes.HasSuffix(all, []byte(endMark)); ended {
		term.printed.Truncate(len(all) - len(endMark))
	}
	return ended
}

// screen is all that was printed, with one blank for each run of them. What was typed
// is shortened.
func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	words := strings.Fields(term.printed.String())
	for i, word := range words {
		if len(word) > 1000 {
			words[i] = word[:100] + "…"
		}
	}
	return strings.Join(words, " ")
}

// await waits until text was printed.
func (term *terminal) await(text string) {
	term.t.Helper()
	shown := func() bool { return strings.Contains(term.screen(), text) }
	for deadline := time.Now().Add(limit); !shown(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-term.ended:
			if !shown() {
				term.t.Fatalf("the command ended without %q:\n%s", text, term.screen())
			}
		default:
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("no %q after %v:\n%s", text, limit, term.screen())
		}
	}
}

// find waits until the pattern was printed, and returns its first group.
func (term *terminal) find(pattern string) string {
	term.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if found := re.FindStringSubmatch(term.screen()); found != nil {
			return found[1]
		}
		select {
		case <-term.ended:
			deadline = time.Time{}
		default:
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("no %s:\n%s", pattern, term.screen())
		}
	}
}

// enter types a line.
func (term *terminal) enter(line string) {
	term.t.Helper()
	if _, err := io.WriteString(term.master, line+"\r"); err != nil {
		term.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit status.
func (term *terminal) exit() int {
	term.t.Helper()
	select {
	case <-term.ended:
	case <-time.After(limit):
		term.t.Fatalf("the command has not ended after %v:\n%s", limit, term.screen())
	}
	return term.cmd.ProcessState.ExitCode()
}

// person is the browser of somebody with an account at the issuer.
type person struct {
	t       *testing.T
	account string
	client  *http.Client
}

func newPerson(t *testing.T, account string) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{t, account, &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// logIn opens the address, logs in, agrees, and returns the address to which the
// issuer sends the browser in the end.
func (p *person) logIn(address string) string {
	p.t.Helper()
	start := hostOf(p.t, address)
	for range 10 {
		w := p.get(address)
		next := location(p.t, w, address)
		if next == "" { // the page with the form
			w, err := p.client.PostForm(address, url.Values{"username": {p.account}})
			if err != nil {
				p.t.Fatal(err)
			}
			w.Body.Close()
			if next = location(p.t, w, address); next == "" {
				p.t.Fatalf("the login ends at %s with %s", address, w.Status)
			}
		}
		if address = next; hostOf(p.t, address) != start {
			return address
		}
	}
	p.t.Fatal("the login leads in a circle")
	return ""
}

// visit opens an address and returns the page.
func (p *person) visit(address string) string {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	w, err := p.client.Do(r)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer w.Body.Close()
	page, err := io.ReadAll(w.Body)
	if err != nil {
		p.t.Error(err)
	}
	return string(page)
}

func (p *person) get(address string) *http.Response {
	p.t.Helper()
	w, err := p.client.Get(address)
	if err != nil {
		p.t.Fatal(err)
	}
	w.Body.Close()
	return w
}

// enterCode types a device code in, and agrees or does not.
func (p *person) enterCode(address, code, action string) {
	p.t.Helper()
	w, err := p.client.PostForm(address, url.Values{"user_code": {code}, "username": {p.account}, "action": {action}})
	if err != nil {
		p.t.Fatal(err)
	}
	w.Body.Close()
	if w.StatusCode != http.StatusOK {
		p.t.Fatalf("%s with %s = %s", address, code, w.Status)
	}
}

// location is where an answer leads, as an absolute address; empty where it does not.
func location(t *testing.T, w *http.Response, from string) string {
	t.Helper()
	to := w.Header.Get("Location")
	if to == "" {
		return ""
	}
	base, err := url.Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	u, err := base.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return u.String()
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

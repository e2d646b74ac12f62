package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/mailer/relaytest"
)

// These tests damage the store as disks, hosts and people do, and check the
// messages that the operator sees: docs/operating.md has the table.

// TestRefusesToStart: a place that cannot hold a queue is reported at the start,
// with the setting to change, and stays untouched.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		dir  func(*testing.T) string
		want []string
	}{
		{"a path that cannot be created", belowFile, []string{"unusable directory", "not a directory", "MAILSIDECAR_DATA_DIR"}},
		{"a read-only file system", readOnly, []string{"unusable directory", "read-only file system", "MAILSIDECAR_DATA_DIR"}},
		{"a store on a file system that became read-only", storeReadOnly, []string{"unusable directory", "read-only file system", "MAILSIDECAR_DATA_DIR"}},
		{"a directory of somebody else", unwritable, []string{"unusable directory", "permission denied", "MAILSIDECAR_DATA_DIR"}},
		{"a full disk", fullDisk, []string{"no space is left on the file system", "free some", "MAILSIDECAR_DATA_DIR"}},
		{"a disk that is full but for 48 KiB", nearlyFullDisk, []string{"no space is left on the file system", "free some", "MAILSIDECAR_DATA_DIR"}},
		{"a store by a newer version", newerSchema, []string{"written by a newer version", "schema 99", "MAILSIDECAR_QUEUE"}},
		{"random bytes", randomStore, []string{"damaged", "recover"}},
		{"random bytes after the first page", randomPages, []string{"damaged", "recover"}},
		{"a cut off store", cutStore, []string{"damaged", "recover"}},
		{"another program's file", foreignStore, []string{"damaged"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := test.dir(t)
			output := refuses(t, durable(t, relaytest.New(t, relaytest.Options{}, nil)).with(environment{"MAILSIDECAR_DATA_DIR": dir}))
			for _, want := range append(test.want, dir) {
				if !strings.Contains(output, want) {
					t.Errorf("mailsidecar serve printed:\n%s\nwant %q in it", output, want)
				}
			}
		})
	}
}

// refuses runs a server that must end by itself with status 1, and returns its
// last line.
func refuses(t *testing.T, env environment) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Limit)
	defer cancel()
	cmd := command(t, env.with(environment{"MAILSIDECAR_ADDR": freeAddr(t)}), "serve")
	var output machine.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	var failed *exec.ExitError
	if !errors.As(err, &failed) || failed.ExitCode() != 1 {
		t.Fatalf("mailsidecar serve: %v, want exit status 1\n%s", err, output.String())
	}
	text := strings.TrimSpace(output.String())
	return text[strings.LastIndexByte(text, '\n')+1:]
}

func belowFile(t *testing.T) string {
	return filepath.Join(writeFile(t, "file", "in the way"), "data")
}

func readOnly(t *testing.T) string {
	dir := smallDisk(t, 8<<20)
	remountReadOnly(t, dir)
	return dir
}

func storeReadOnly(t *testing.T) string {
	dir := smallDisk(t, 8<<20)
	fillStore(t, dir)
	remountReadOnly(t, dir)
	return dir
}

func unwritable(t *testing.T) string {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil { // a directory needs x
		t.Fatal(err)
	}
	return dir
}

func nearlyFullDisk(t *testing.T) string {
	t.Helper()
	dir := smallDisk(t, 1<<20)
	fillDisk(t, dir, 48<<10) // too little for the memory that SQLite shares
	return dir
}

func fullDisk(t *testing.T) string {
	dir := smallDisk(t, 8<<20)
	fillDisk(t, dir, 0)
	return dir
}

// newerSchema sets user_version, in octets 60 to 63 of an
// SQLite file.
func newerSchema(t *testing.T) string {
	dir := t.TempDir()
	fillStore(t, dir)
	change(t, dir, func(b []byte) []byte {
		return slices.Replace(b, 60, 64, 0, 0, 0, 99)
	})
	return dir
}

func randomStore(t *testing.T) string {
	return damaged(t, func(b []byte) []byte { return scramble(b) })
}

func randomPages(t *testing.T) string {
	return damaged(t, func(b []byte) []byte {
		scramble(b[4096:])
		return b
	})
}

func cutStore(t *testing.T) string { return damaged(t, func(b []byte) []byte { return b[:len(b)/3] }) }

func foreignStore(t *testing.T) string {
	return damaged(t, func([]byte) []byte { return bytes.Repeat([]byte("not a queue\n"), 1000) })
}

func damaged(t *testing.T, how func([]byte) []byte) string {
	dir := t.TempDir()
	fillStore(t, dir)
	change(t, dir, how)
	return dir
}

func scramble(b []byte) []byte {
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(b)
	return b
}

// fillStore leaves a store with some messages in it, closed in order.
func fillStore(t *testing.T, dir string) {
	t.Helper()
	s := serve(t, durable(t, relaytest.New(t, relaytest.Options{}, nil)).with(environment{
		"MAILSIDECAR_DATA_DIR": dir, "MAILSIDECAR_MIN_FREE_DISK": "1MiB",
	}))
	for range 20 {
		wantStatus(t, s.send(t, order(map[string]any{"send_at": time.Now().Add(time.Hour).Format(time.RFC3339)})), http.StatusAccepted)
	}
	s.stop(t)
}

// change rewrites the database file.
func change(t *testing.T, dir string, how func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, "queue.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, how(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// order is a message to one recipient.
func order(more map[string]any) map[string]any {
	m := map[string]any{"from": "shop@example.com", "to": "ana@example.org", "subject": "Order", "text": "Thank you!"}
	for name, value := range more {
		m[name] = value
	}
	return m
}

// TestSecondProcess: one instance for each store.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	env := durable(t, relaytest.New(t, relaytest.Options{}, nil))
	s := serve(t, env)
	output := refuses(t, env)
	for _, want := range []string{"in use by another process", fmt.Sprintf("process %d", s.cmd.Process.Pid), "MAILSIDECAR_DATA_DIR"} {
		if !strings.Contains(output, want) {
			t.Errorf("the second server printed:\n%s\nwant %q in it", output, want)
		}
	}
	wantStatus(t, s.send(t, order(nil)), http.StatusAccepted)
}

// TestTornLog cuts the write-ahead log in its last frame, as a power cut does while
// a commit is being written, before it is answered.
func TestTornLog(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"greeting": "421 4.3.2 not yet"})
	env := durable(t, relay)
	s := serve(t, env)
	var ids []string
	for range 5 {
		a := s.send(t, order(nil))
		wantStatus(t, a, http.StatusAccepted)
		ids = append(ids, a.ID)
	}
	s.kill(t)
	wal := filepath.Join(env["MAILSIDECAR_DATA_DIR"], "queue.db-wal")
	info, err := os.Stat(wal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(wal, info.Size()-100); err != nil {
		t.Fatal(err)
	}

	works := relaytest.New(t, relaytest.Options{}, nil)
	s = serve(t, durable(t, works).with(environment{"MAILSIDECAR_DATA_DIR": env["MAILSIDECAR_DATA_DIR"]}))
	for _, id := range ids[:4] {
		s.awaitStatus(t, id, "delivered")
	}
}

// TestStoreDeleted: new mail is refused, because it would be lost. Accepted mail is
// delivered from the open file.
func TestStoreDeleted(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"RCPT": "450 4.2.1 busy then default"})
	env := durable(t, relay)
	s := serve(t, env)
	accepted := s.send(t, order(nil))
	wantStatus(t, accepted, http.StatusAccepted)
	s.awaitAttempt(t, accepted.ID)

	files, err := filepath.Glob(filepath.Join(env["MAILSIDECAR_DATA_DIR"], "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	a := s.send(t, order(nil))
	wantRefused(t, a, "queue_unavailable")
	s.wantNotReady(t)
	s.awaitLog(t, "deleted or replaced while in use")
	s.crowd(t)
	if _, err := os.Stat(filepath.Join(env["MAILSIDECAR_DATA_DIR"], "queue.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there again: %v", err)
	}
	s.awaitStatus(t, accepted.ID, "delivered")
	s.stop(t)

	s = serve(t, env)
	wantStatus(t, s.send(t, order(nil)), http.StatusAccepted)
}

// TestDiskNearlyFull: new mail is refused while there is still room to record the
// outcomes of accepted mail, whose delivery frees space.
func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{"RCPT": "450 4.2.1 busy then default"})
	dir := smallDisk(t, 32<<20)
	s := serve(t, durable(t, relay).with(environment{"MAILSIDECAR_DATA_DIR": dir, "MAILSIDECAR_MIN_FREE_DISK": "8MiB"}))
	accepted := s.send(t, order(nil))
	wantStatus(t, accepted, http.StatusAccepted)
	s.awaitAttempt(t, accepted.ID)

	fillDisk(t, dir, 6<<20)
	a := s.send(t, order(nil))
	wantRefused(t, a, "disk_full")
	s.awaitLog(t, "MAILSIDECAR_MIN_FREE_DISK")
	s.wantNotReady(t)
	s.awaitStatus(t, accepted.ID, "delivered")

	emptyDisk(t, dir)
	wantStatus(t, s.send(t, order(nil)), http.StatusAccepted)
	s.awaitReady(t)
}

// TestDiskFull fills the disk to the last octet while a delivery is in flight: its
// outcome cannot be stored. Deliveries stop until it can, because a restart would
// repeat them.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	relay := relaytest.New(t, relaytest.Options{}, relaytest.Script{".": "after 3s 250 2.0.0 queued"})
	dir := smallDisk(t, 32<<20)
	s := serve(t, durable(t, relay).with(environment{"MAILSIDECAR_DATA_DIR": dir, "MAILSIDECAR_MIN_FREE_DISK": "1MiB"}))
	accepted := s.send(t, order(nil))
	wantStatus(t, accepted, http.StatusAccepted)
	awaitMessages(t, relay, 1)
	fillDisk(t, dir, 0)

	s.awaitLog(t, "outcomes cannot be stored")
	s.awaitLog(t, "no space is left on the file system of "+dir)
	wantRefused(t, s.send(t, order(nil)), "disk_full")
	s.wantNotReady(t)

	emptyDisk(t, dir)
	s.awaitLog(t, "outcomes can be stored again")
	s.awaitStatus(t, accepted.ID, "delivered")
	next := s.send(t, order(nil))
	wantStatus(t, next, http.StatusAccepted)
	s.awaitStatus(t, next.ID, "delivered")
	if n := len(relay.Messages()); n != 2 {
		t.Errorf("the relay got %d messages, want each of 2 once", n)
	}
}

// wantRefused: the client is told to come back.
func wantRefused(t *testing.T, a answer, code string) {
	t.Helper()
	wantStatus(t, a, http.StatusServiceUnavailable)
	if a.Code != code || !a.Retryable || a.Header.Get("Retry-After") == "" {
		t.Errorf("answer = %s with Retry-After %q, want %s, retryable, with Retry-After", a.Body, a.Header.Get("Retry-After"), code)
	}
}

func (s *sidecar) wantNotReady(t *testing.T) {
	t.Helper()
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("GET /readyz = %d, want 503", resp.StatusCode)
	}
}

// crowd asks for more at a time than there are open connections to the store.
func (s *sidecar) crowd(t *testing.T) {
	t.Helper()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			resp, err := http.Get(s.url + "/v1/messages")
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	all.Wait()
}

// TestDamagedLog flips a bit in the log that kill -9 has left: the server starts, says
// so, and keeps the log as it was.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := environment{"SMTP_HOST": "127.0.0.1", "SMTP_PORTS": "1", "SMTP_USERNAME": "u", "SMTP_PASSWORD": "p", "MAILSIDECAR_DATA_DIR": dir}
	s := serve(t, env)
	for n := range 10 {
		wantStatus(t, s.send(t, map[string]any{
			"from": "shop@example.com", "to": "ana@example.org", "subject": fmt.Sprint("Order ", n), "text": "Thank you!",
			"send_at": time.Now().Add(time.Hour).Format(time.RFC3339),
		}), http.StatusAccepted)
	}
	s.kill(t)
	path := filepath.Join(dir, "queue.db-wal")
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	log[len(log)/2] ^= 1
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	code, output := exitCode(t, command(t, env.with(environment{"MAILSIDECAR_DATA_DIR": other}), "queue", "list"))
	kept, err := os.ReadFile(filepath.Join(other, "queue.db-wal.damaged"))
	if code != 0 || !strings.Contains(output, "queue log damaged") || err != nil || !bytes.Equal(kept, log) {
		t.Errorf("queue list on a damaged log = %d and keeps %d octets, %v, want 0, the log and a warning; it says\n%s", code, len(kept), err, output)
	}
	serve(t, env).awaitLog(t, `"msg":"queue log damaged"`)
}

func (s *sidecar) awaitLog(t *testing.T, text string) {
	t.Helper()
	machine.Await(t, fmt.Sprintf("%q in the log", text), func() bool { return strings.Contains(s.log.String(), text) })
}

// awaitAttempt waits until the first attempt on a message is over.
func (s *sidecar) awaitAttempt(t *testing.T, id string) {
	t.Helper()
	machine.Await(t, "a first attempt", func() bool {
		return s.request(t, http.MethodGet, "/v1/messages/"+id, nil, nil).Status != "queued"
	})
}

func awaitMessages(t *testing.T, relay *relaytest.Relay, n int) {
	t.Helper()
	machine.Await(t, fmt.Sprintf("message %d at the relay", n), func() bool { return len(relay.Messages()) >= n })
}

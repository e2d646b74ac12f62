//go:build linux

package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"mailsidecar/queue"
)

// authority issues certificates into a directory that the server's user can read.
type authority struct {
	srv  *server
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailsidecar-postgres-") //nolint:usetesting // the server's user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &authority{srv: &server{dir: dir}, dir: dir}
	if _, err := a.srv.unprivileged(); err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = a.write(t, "ca", &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// write writes NAME.pem and NAME.key.
func (a *authority) write(t *testing.T, name string, template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := os.Stat(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		is := owner.Sys().(*syscall.Stat_t)
		if err := os.Chown(a.file(file), int(is.Uid), int(is.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// TestTLS: a server is asked only if its certificate is right, for its name and of its authority; what is wrong
// is said, and what helps. A client may have a certificate, too.
func TestTLS(t *testing.T) {
	t.Parallel()
	right, wrong := newAuthority(t), newAuthority(t)
	right.write(t, "server", &x509.Certificate{DNSNames: []string{"localhost"}}, right.cert)
	right.write(t, "client", &x509.Certificate{Subject: pkix.Name{CommonName: "certified"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, right.cert)
	const hba = "hostssl all certified 127.0.0.1/32 cert\nhostssl all certified ::1/128 cert\nhostssl all encrypted 127.0.0.1/32 trust\nhost all test all trust\n"
	if err := os.WriteFile(right.file("hba"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	own := startOwn(t, append(unsynced, "ssl=on", "ssl_cert_file="+right.file("server.pem"), "ssl_key_file="+right.file("server.key"),
		"ssl_ca_file="+right.file("ca.pem"), "hba_file="+right.file("hba"))...)
	o := options(t, own.url())
	name := pgx.Identifier{o.Schema}.Sanitize()
	for _, role := range []string{"certified", "encrypted"} {
		own.exec(t, `CREATE ROLE `+role+` LOGIN`)
		own.exec(t, `GRANT USAGE ON SCHEMA `+name+` TO `+role)
		own.exec(t, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+name+` TO `+role)
	}
	client := "&sslcert=" + right.file("client.pem") + "&sslkey=" + right.file("client.key")
	for _, tc := range []struct {
		who, host, query string
		authority        *authority
		want             string // of the error; empty: it works
	}{
		{"test", "localhost", "sslmode=verify-full", right, ""},
		{"test", "127.0.0.1", "sslmode=verify-ca", right, ""},
		{"test", "127.0.0.1", "sslmode=verify-full", right, "write the host as the server's certificate names it"},
		{"test", "localhost", "sslmode=verify-full", wrong, "set sslrootcert to the file of the authority that has issued the server's certificate"},
		{"test", "localhost", "sslmode=verify-ca", wrong, "set sslrootcert to the file"},
		{"test", "localhost", "sslmode=verify-full", nil, "set sslrootcert to the file"},
		{"certified", "localhost", "sslmode=verify-full" + client, right, ""},
		{"certified", "localhost", "sslmode=verify-full", right, "set the right user and password"},
		{"test", "localhost", "sslmode=verify-full" + client, right, ""},
		{"encrypted", "127.0.0.1", "sslmode=disable", nil, "let pg_hba.conf of the server take them"},
		{"encrypted", "127.0.0.1", "sslmode=require", nil, ""},
	} {
		o.URL = fmt.Sprintf("postgres://%s@%s:%d/postgres?%s", tc.who, tc.host, own.port, tc.query)
		if tc.authority != nil {
			o.URL += "&sslrootcert=" + tc.authority.file("ca.pem")
		}
		s, err := Open(t.Context(), o)
		if tc.want != "" {
			var known *queue.StoreError
			if !errors.As(err, &known) || !strings.Contains(known.Remedy, tc.want) {
				t.Errorf("%s at %s, %s: Open = %v, want %q", tc.who, tc.host, tc.query, err, tc.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s at %s, %s: Open = %v", tc.who, tc.host, tc.query, err)
			continue
		}
		insert(t, s, entry("", "x@example.org"))
		var encrypted bool
		if err := s.pool.QueryRow(t.Context(), `SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&encrypted); err != nil || !encrypted {
			t.Errorf("%s: encrypted %v, %v", tc.query, encrypted, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	o.URL = fmt.Sprintf("postgres://test@localhost:%d/postgres?sslmode=require", start(t).port)
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the server has no TLS: switch it on there") {
		t.Errorf("Open without TLS on the server = %v", err)
	}
}

// TestNoTLSMeanwhile: a server that has no TLS, and takes no connection without it either at the moment, is tried
// again. Only where TLS was asked for must a person do something.
func TestNoTLSMeanwhile(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 8)
			if _, err := io.ReadFull(conn, request); err == nil && request[4] == 4 { // SSLRequest, 80877103
				_, _ = conn.Write([]byte("N"))
			}
			_ = conn.Close()
		}
	}()
	for query, want := range map[string]bool{"": false, "?sslmode=prefer": false, "?sslmode=require": true} {
		_, err := Open(t.Context(), Options{URL: "postgres://u:p@" + l.Addr().String() + "/d" + query})
		if known := errors.As(err, new(*queue.StoreError)); err == nil || known != want || known != strings.Contains(err.Error(), "the server has no TLS") {
			t.Errorf("Open with %q = %v, for a person: %v, want %v", query, err, known, want)
		}
	}
	if err := named(&connector{config: &pgxpool.Config{ConnConfig: &pgx.ConnConfig{Config: pgconn.Config{TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}}}}},
		errors.Join(errors.New("server refused TLS connection"), context.Canceled)); errors.As(err, new(*queue.StoreError)) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestEnded: a connection that the server ends is told in plain words, and is tried again.
func TestEnded(t *testing.T) {
	for _, code := range []string{"57P01", "57P02", "57P03"} {
		e := &pgconn.PgError{Severity: "FATAL", Code: code, Message: "terminating connection due to administrator command"}
		err := named(&connector{}, e)
		if errors.As(err, new(*queue.StoreError)) || !errors.Is(err, e) || !strings.HasPrefix(err.Error(), "the database takes no connections now or has ended this one, try again: ") {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, lost := range []error{io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: syscall.ECONNRESET}} {
		c := &connector{config: &pgxpool.Config{ConnConfig: &pgx.ConnConfig{}}}
		err := named(c, named(c, fmt.Errorf("receive: %w", lost)))
		if errors.As(err, new(*queue.StoreError)) || !errors.Is(err, lost) || strings.Count(err.Error(), "the connection to the database was lost, try again: ") != 1 {
			t.Errorf("%v: %v", lost, err)
		}
	}
}

// TestClearText: without encryption no public network is crossed.
func TestClearText(t *testing.T) {
	for addr, want := range map[string]error{
		"127.0.0.1:5432": nil, "[::1]:5432": nil, "10.1.2.3:5432": nil, "192.168.1.1:5432": nil, "[fd00::1]:5432": nil, "8.8.8.8:5432": errClearText, "[2606:4700::1]:5432": errClearText,
	} {
		if got := mayBePlain(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))); !errors.Is(got, want) {
			t.Errorf("mayBePlain(%s) = %v, want %v", addr, got, want)
		}
	}
	if err := mayBePlain(&net.UnixAddr{Name: "/run/postgresql/.s.PGSQL.5432", Net: "unix"}); err != nil {
		t.Errorf("mayBePlain of a socket = %v", err)
	}
}

// commits notes what [Events] is told of them.
type commits struct {
	noEvents
	mu   sync.Mutex
	told []string
}

func (c *commits) Commits(commit, standbys string, safe bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprint(commit, " ", standbys, " ", safe))
}

// TestRoles: what a role may not do, or does not do safely, is said with what helps.
func TestRoles(t *testing.T) {
	srv := start(t)
	o := options(t, srv.url())
	name := pgx.Identifier{o.Schema}.Sanitize()
	for role, set := range map[string]string{"unsafe": "off", "halfsafe": "local", "safe": "remote_write"} {
		srv.exec(t, `CREATE ROLE `+role+` LOGIN`)
		srv.exec(t, `ALTER ROLE `+role+` SET synchronous_commit = `+set)
		srv.exec(t, `GRANT USAGE ON SCHEMA `+name+` TO `+role)
		srv.exec(t, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+name+` TO `+role)
		as := o
		told := &commits{}
		as.URL, as.Events = strings.Replace(o.URL, "test@", role+"@", 1), told
		if err := open(t, as).Close(); err != nil {
			t.Error(err)
		}
		if want := fmt.Sprint(set, "  ", set != "off"); len(told.told) != 1 || told.told[0] != want {
			t.Errorf("%s is told %q, want %q", role, told.told, want)
		}
	}
	srv.exec(t, `CREATE ROLE stranger LOGIN`)
	srv.exec(t, `CREATE ROLE reader LOGIN`)
	srv.exec(t, `GRANT USAGE ON SCHEMA `+name+` TO reader`)
	for _, role := range []string{"stranger", "reader", "nobody"} {
		as := o
		as.URL = strings.Replace(o.URL, "test@", role+"@", 1)
		want := "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + name + ` TO "` + role + `"`
		if role == "nobody" {
			want = "set the right user"
		}
		for what, f := range map[string]func() error{
			"Open":    func() error { _, err := Open(context.Background(), as); return err },
			"Migrate": func() error { _, _, err := Migrate(context.Background(), as); return err },
		} {
			var known *queue.StoreError
			if err := f(); !errors.As(err, &known) || !strings.Contains(known.Remedy, want) {
				t.Errorf("%s as %s = %v, want %q", what, role, err, want)
			}
		}
	}
	o.URL = strings.Replace(o.URL, "/postgres?", "/elsewhere?", 1)
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "create the database, or name another one") {
		t.Errorf("Open of a database that is not there = %v", err)
	}
}

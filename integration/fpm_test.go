package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/machine"
	"mailsidecar/integration/postfix"
	"mailsidecar/integration/wordpress"
)

// TestFPM lets a real PHP-FPM run mail(). PHP-FPM clears the environment that it
// was started with, unless the pool says otherwise, so that sendmail has to take
// its settings from another place.
func TestFPM(t *testing.T) {
	t.Parallel()
	relay := postfix.Start(t)
	server := serve(t, withKey(stored(t, relay, relay.Submission)))
	dead := environment{"MAILSIDECAR_URL": "http://" + freeAddr(t), "MAILSIDECAR_API_KEY": testKey}
	real := environment{"MAILSIDECAR_URL": server.url, "MAILSIDECAR_API_KEY": testKey}
	for _, tt := range []struct {
		name string
		// env is the environment of PHP-FPM, pool has lines of the pool, and file is
		// the text of sendmail.conf.
		env        environment
		pool, file string
		want       string
	}{
		{"file", dead, "", "MAILSIDECAR_URL=" + server.url + "\nMAILSIDECAR_API_KEY=" + testKey + "\n", "true, environment: none"},
		{"env of the pool", dead, "env[MAILSIDECAR_URL] = " + server.url + "\nenv[MAILSIDECAR_API_KEY] = " + testKey, "", "true, environment: " + server.url},
		{"clear_env = no", real, "clear_env = no", "", "true, environment: " + server.url},
		{"environment alone", real, "", "", "false, environment: none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fpm := startFPM(t, tt.env, tt.pool, tt.file)
			to := relay.Recipient(t)
			got := fpm.run(t, fmt.Sprintf(`<?php echo json_encode(mail('%s', 'FPM', 'x', 'From: shop@example.com')), ', environment: ', getenv('MAILSIDECAR_URL') ?: 'none';`, to))
			if got != tt.want {
				t.Fatalf("mail() under PHP-FPM = %q, want %q\n%s", got, tt.want, fpm.log(t))
			}
			if strings.HasPrefix(tt.want, "true") {
				relay.Await(t, to, 1)
				return
			}
			missing := "mailsidecar sendmail: MAILSIDECAR_URL is set neither in the environment nor in " + fpm.dir
			// A worker writes it into a pipe, and the master into the log.
			if !machine.Wait(func() bool { return strings.Contains(fpm.log(t), missing) }) {
				t.Errorf("PHP-FPM's log = %q, want %q in it", fpm.log(t), missing)
			}
		})
	}
}

// fpm is a running PHP-FPM, whose pool has everything by default but for its
// socket and the user.
type fpm struct{ dir, socket string }

// startFPM starts a PHP-FPM whose mail() runs sendmail with file as its
// settings, all in one directory that the pool's user can read.
func startFPM(t *testing.T, env environment, pool, file string) fpm {
	t.Helper()
	dir := machine.TempDir(t)
	f := fpm{dir, filepath.Join(dir, "php.sock")}
	conf := filepath.Join(dir, "sendmail.conf")
	f.write(t, "sendmail.conf", file)
	account := ""
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		account = "user = nobody\ngroup = " + groupName(t, nobody.Gid)
	}
	f.write(t, "fpm.conf", fmt.Sprintf(`[global]
error_log = %s
daemonize = no
[www]
%s
listen = %s
pm = static
pm.max_children = 1
catch_workers_output = yes
php_admin_value[sendmail_path] = %s -t -i
%s
`, filepath.Join(dir, "fpm.log"), account, f.socket, sendmailAlone(t, dir, "-X", "mailsidecar/sendmail.configFile="+conf), pool))
	cmd := exec.Command(wordpress.FPM(t), "--nodaemonize", "--fpm-config", filepath.Join(dir, "fpm.conf"))
	cmd.Env = env.with(environment{"PATH": os.Getenv("PATH")}).list()
	machine.Serve(t, cmd, machine.Accepts("unix", f.socket))
	return f
}

func groupName(t *testing.T, gid string) string {
	t.Helper()
	g, err := user.LookupGroupId(gid)
	if err != nil {
		t.Fatal(err)
	}
	return g.Name
}

func (f fpm) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// log is the log of PHP-FPM and its workers.
func (f fpm) log(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "fpm.log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// run has PHP-FPM run code, as a web server would, and returns what it prints.
func (f fpm) run(t *testing.T, code string) string {
	t.Helper()
	script := f.write(t, "script.php", code)
	conn, err := net.Dial("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(machine.Limit)); err != nil {
		t.Fatal(err)
	}
	answer, err := fastCGI(conn, map[string]string{
		"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(answer, "\r\n\r\n")
	return body
}

// Types of FastCGI records.
const (
	fcgiBeginRequest = 1
	fcgiEndRequest   = 3
	fcgiParams       = 4
	fcgiStdin        = 5
	fcgiStdout       = 6
)

// fastCGI makes one request of the FastCGI responder at conn, without a body,
// and returns its output.
func fastCGI(conn io.ReadWriter, params map[string]string) (string, error) {
	var pairs []byte
	for name, value := range params { // each length fits into one octet, and must be below 128
		pairs = append(pairs, byte(len(name)), byte(len(value)))
		pairs = append(pairs, name+value...)
	}
	request := slices.Concat(
		fcgiRecord(fcgiBeginRequest, []byte{0, 1, 0, 0, 0, 0, 0, 0}),
		fcgiRecord(fcgiParams, pairs), fcgiRecord(fcgiParams, nil), fcgiRecord(fcgiStdin, nil),
	)
	if _, err := conn.Write(request); err != nil {
		return "", err
	}
	var out []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "", err
		}
		length, padding := int(head[4])<<8|int(head[5]), int(head[6])
		content := make([]byte, length+padding)
		if _, err := io.ReadFull(conn, content); err != nil {
			return "", err
		}
		switch head[1] {
		case fcgiStdout:
			out = append(out, content[:length]...)
		case fcgiEndRequest:
			return string(out), nil
		}
	}
}

func fcgiRecord(kind byte, content []byte) []byte {
	n := len(content)
	return append([]byte{1, kind, 0, 1, byte(n >> 8), byte(n), 0, 0}, content...)
}

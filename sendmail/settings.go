package sendmail

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
)

// configFile has the settings for programs that run without the
// environment: PHP-FPM clears it for its workers, cron for its jobs. A system
// that keeps its settings elsewhere names that place to the linker:
// -X mailsidecar/sendmail.configFile=/usr/local/etc/mailsidecar/sendmail.conf
var configFile = "/etc/mailsidecar/sendmail.conf"

// settings is what sendmail is configured with.
type settings struct {
	url    string
	key    string
	wait   int    // seconds to wait for the relay's verdict; 0: do not wait
	from   string // address in place of a local user's; may be empty
	caFile string
	domain string // of this machine, for addresses that have none
	user   string // name of the local user
}

// Seconds to wait where nothing is said, and time-outs.
const (
	defaultWait    = 3
	connectTimeout = 3 * time.Second
	// answerTimeout is how long, past the wait, the answer may take.
	answerTimeout = 10 * time.Second
)

// loadSettings reads each setting from the environment, else from file,
// which need not exist.
func loadSettings(file string) (settings, error) {
	get, err := settingsFrom(file)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		url:    get("MAILSIDECAR_URL"),
		caFile: get("MAILSIDECAR_TLS_CA_FILE"),
		domain: localDomain(),
		user:   localUser(),
	}
	if s.url == "" {
		return s, fail(exitConfig, "MAILSIDECAR_URL is set neither in the environment nor in %s", file)
	}
	if s.key, err = apiKey(get); err != nil {
		return s, err
	}
	if s.wait, err = waitSeconds(get("MAILSIDECAR_WAIT")); err != nil {
		return s, err
	}
	return s, s.readFrom(get("MAILSIDECAR_FROM"))
}

// readFrom reads MAILSIDECAR_FROM, with or without a display name, because the
// server has a setting of that name. Only the address counts here.
func (s *settings) readFrom(value string) error {
	if value == "" {
		return nil
	}
	boxes := parseMailboxes(value)
	if len(boxes) != 1 || !validAddress(boxes[0].address) {
		return fail(exitConfig, "MAILSIDECAR_FROM: %q is not an address such as app@example.com", oneLine(value))
	}
	s.from = boxes[0].address
	_, s.domain, _ = cutAddress(s.from)
	return nil
}

// settingsFrom returns a look-up that asks the environment first and then file.
// A variable that is set to nothing counts as not set.
func settingsFrom(file string) (func(string) string, error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Not readable for this user: the environment may suffice.
		data = nil
	}
	values, err := parseSettings(file, string(data))
	if err != nil {
		return nil, err
	}
	return func(name string) string { return cmp.Or(os.Getenv(name), values[name]) }, nil
}

// parseSettings reads NAME=VALUE lines; blank lines and those that begin with #
// are skipped, and quotes around a whole value are taken off, as in the
// environment files of systemd and Docker. The error names the line, not the
// value, which may be a secret.
func parseSettings(file, text string) (map[string]string, error) {
	values := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(strings.TrimPrefix(name, "export "))
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fail(exitConfig, "%s:%d: expected NAME=VALUE", file, i+1)
		}
		values[name] = unquote(strings.TrimSpace(value))
	}
	return values, nil
}

func unquote(s string) string {
	if n := len(s); n >= 2 && s[0] == s[n-1] && (s[0] == '"' || s[0] == '\'') {
		return s[1 : n-1]
	}
	return s
}

func apiKey(get func(string) string) (string, error) {
	if key := get("MAILSIDECAR_API_KEY"); key != "" {
		return key, nil
	}
	file := get("MAILSIDECAR_API_KEY_FILE")
	if file == "" {
		return "", nil // a server that listens on loopback only needs none
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fail(exitConfig, "MAILSIDECAR_API_KEY_FILE: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// waitSeconds reads MAILSIDECAR_WAIT: seconds, as a number or as "5s".
func waitSeconds(value string) (int, error) {
	if value == "" {
		return defaultWait, nil
	}
	if _, err := strconv.ParseUint(value, 10, 32); err == nil {
		value += "s"
	}
	wait, err := time.ParseDuration(value)
	if err != nil || wait < 0 {
		return 0, fail(exitConfig, "MAILSIDECAR_WAIT: %q is no number of seconds, such as 3", oneLine(value))
	}
	return int(min(wait, api.MaxWait).Seconds()), nil
}

// newClient returns a client that follows no redirect, which would lose the
// message, and asks no proxy: the server is beside the program, and http_proxy
// is for the world outside.
func (s settings) newClient(version string) (*api.Client, error) {
	c, err := api.New(s.url, s.key, version, time.Duration(s.wait)*time.Second+answerTimeout)
	if err != nil {
		return nil, &failure{exitConfig, err}
	}
	trust, err := api.Trust(s.caFile)
	if err != nil {
		return nil, &failure{exitConfig, err}
	}
	c.HTTP.Transport = &http.Transport{
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSClientConfig:       trust,
		TLSHandshakeTimeout:   connectTimeout,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}
	c.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// forwardPaths makes the envelope's recipients of what the message and the
// command line say: each once, with a domain.
func (s settings) forwardPaths(recipients []string) ([]string, error) {
	var paths []string
	seen := map[string]bool{}
	for _, argument := range recipients {
		for _, box := range parseMailboxes(argument) {
			path := s.withDomain(box.address)
			if !validAddress(path) {
				return nil, fail(exitRefused, "%q is not a valid recipient address", oneLine(path))
			}
			if !seen[path] {
				seen[path] = true
				paths = append(paths, path)
			}
		}
	}
	if len(paths) == 0 {
		return nil, fail(exitUsage, "no recipient addresses found")
	}
	return paths, nil
}

// reversePath makes the envelope's sender of -f. Without -f the server takes
// the message's own Sender or From: a relay refuses a local user's name.
func (s settings) reversePath(o options) (string, error) {
	if !o.senderGiven {
		return "", nil
	}
	path := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(o.sender), "<"), ">")
	if path == "" {
		return "<>", nil
	}
	path = s.asSender(path)
	if !validAddress(path) {
		return "", fail(exitUsage, "-f: %q is not a valid address", oneLine(path))
	}
	return path, nil
}

// asSender returns an address to send from for a name that has no domain:
// MAILSIDECAR_FROM when it is set, because a relay takes no other.
func (s settings) asSender(address string) string {
	if _, _, ok := cutAddress(address); ok {
		return address
	}
	return cmp.Or(s.from, s.withDomain(address))
}

func (s settings) withDomain(address string) string {
	if local, _, ok := cutAddress(address); !ok && address != "" {
		return strings.TrimSuffix(local, "@") + "@" + s.domain
	}
	return address
}

// cutAddress splits an addr-spec at its last @. ok says that there is a domain.
func cutAddress(address string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(address, '@')
	if i < 0 || i == len(address)-1 {
		return address, "", false
	}
	return address[:i], address[i+1:], true
}

// validAddress keeps out what could end a header value or an SMTP command, or
// change the list that it is put into; the server judges the rest.
func validAddress(address string) bool {
	local, _, ok := cutAddress(address)
	return ok && local != "" && !strings.ContainsFunc(address, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '<' || r == '>' || r == ',' || r == ';'
	})
}

// localDomain is the domain of addresses that have none: what Debian keeps in
// /etc/mailname, else the host's name.
func localDomain() string {
	if f, err := os.Open("/etc/mailname"); err == nil {
		defer func() { _ = f.Close() }()
		data, err := io.ReadAll(io.LimitReader(f, 256))
		if name := strings.TrimSpace(string(data)); err == nil && validAddress("x@"+name) {
			return name
		}
	}
	name, err := os.Hostname()
	if err != nil || !validAddress("x@"+name) {
		return "localhost"
	}
	return name
}

func localUser() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid%d", os.Getuid())
}

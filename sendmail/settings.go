package sendmail

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"mailsidecar/api"
	"mailsidecar/files"
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
	// unreadable is why the file with the settings could not be read, though it is there;
	// else nil. The environment may suffice.
	unreadable error
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
	get, unreadable, err := settingsFrom(file)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		url:        get("MAILSIDECAR_URL"),
		caFile:     get("MAILSIDECAR_TLS_CA_FILE"),
		domain:     localDomain(),
		user:       localUser(),
		unreadable: unreadable,
	}
	if s.url == "" && unreadable != nil {
		return s, fail(exitConfig, "MAILSIDECAR_URL is not set in the environment, and the settings cannot be read as user %s: %w", s.user, unreadable)
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
	list := parseMailboxes(value, addressRules{authors: true})
	if len(list.boxes) != 1 || len(list.unclear) > 0 || !validAddress(list.boxes[0].address) {
		return fail(exitConfig, "MAILSIDECAR_FROM: %q is not an address such as app@example.com", shorten(value))
	}
	s.from = list.boxes[0].address
	_, s.domain, _ = cutAddress(s.from)
	return nil
}

// maxFile limits a file of settings, and the one with the API key, in octets.
const maxFile = 1 << 20

// settingsFrom returns a look-up that asks the environment first and then file, and
// why file cannot be read, unless there is none. A variable that is set to nothing
// counts as not set.
func settingsFrom(file string) (get func(string) string, unreadable, err error) {
	data, unreadable := files.Read(file, maxFile)
	switch {
	case errors.Is(unreadable, fs.ErrNotExist):
		unreadable = nil
	case unreadable != nil:
		unreadable = &fs.PathError{Op: "open", Path: file, Err: unreadable}
	}
	values, err := parseSettings(file, string(bytes.TrimPrefix(data, []byte("\ufeff"))))
	if err != nil {
		return nil, nil, err
	}
	return func(name string) string { return cmp.Or(strings.TrimSpace(os.Getenv(name)), values[name]) }, unreadable, nil
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

// apiKey returns the API key, or nothing: a server that listens on loopback only needs
// none. The blanks and line ends around it, as echo and editors leave them in files, do
// not belong to it.
func apiKey(get func(string) string) (string, error) {
	source, key := "MAILSIDECAR_API_KEY", get("MAILSIDECAR_API_KEY")
	if file := get("MAILSIDECAR_API_KEY_FILE"); key == "" && file != "" {
		source = "MAILSIDECAR_API_KEY_FILE"
		data, err := files.Read(file, maxFile)
		if err != nil {
			return "", fail(exitConfig, "%s: %s: %w", source, files.Shown(file), err)
		}
		if key = strings.TrimSpace(string(data)); key == "" {
			return "", fail(exitConfig, "%s: %s is empty", source, files.Shown(file))
		}
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fail(exitConfig, "%s: a key has printable ASCII only, and this one has a line end or another character in it", source)
	}
	return key, nil
}

// waitSeconds reads MAILSIDECAR_WAIT as the server reads its settings: seconds, or a
// duration such as 5s, 1m or 1d12h. A part of a second is rounded up.
func waitSeconds(value string) (int, error) {
	if value == "" {
		return defaultWait, nil
	}
	wait, ok := parseWait(value)
	if !ok {
		return 0, fail(exitConfig, "MAILSIDECAR_WAIT: %q is neither seconds, such as 3, nor a duration, such as 3s or 1m", shorten(value))
	}
	return int(math.Ceil(min(wait, api.MaxWait).Seconds())), nil
}

func parseWait(value string) (time.Duration, bool) {
	if _, err := strconv.ParseUint(value, 10, 32); err == nil {
		value += "s"
	}
	days, rest, hasDays := strings.Cut(value, "d")
	if !hasDays {
		days, rest = "0", value
	} else if rest == "" {
		rest = "0s"
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, false
	}
	wait, err := time.ParseDuration(rest)
	return time.Duration(n)*24*time.Hour + min(wait, api.MaxWait), err == nil && wait >= 0
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

// forwardPaths makes the envelope's recipients of what the message and the command
// line say: each once, with a domain. leftOut says of each other one why it is none.
func (s settings) forwardPaths(lists []addressList) (paths, leftOut []string) {
	seen := map[string]bool{}
	for _, list := range lists {
		for _, text := range list.unclear {
			leftOut = append(leftOut, notRecipient(text))
		}
		for _, box := range list.boxes {
			path := s.withDomain(box.address)
			switch {
			case seen[path]:
			case !validAddress(path):
				leftOut = append(leftOut, notRecipient(path))
			default:
				paths = append(paths, path)
			}
			seen[path] = true
		}
	}
	return paths, leftOut
}

func notRecipient(text string) string {
	return fmt.Sprintf("%q is not a valid recipient address", shorten(text))
}

// reversePath makes the envelope's sender of -f. Without -f the server takes the
// message's own Sender or From: a relay refuses a local user's name. The same holds for a
// user on a machine that no relay can know.
func (s settings) reversePath(o options) (string, error) {
	if !o.senderGiven {
		return "", nil
	}
	given := strings.TrimSpace(o.sender)
	if given == "" || given == "<>" {
		return "<>", nil
	}
	list := parseMailboxes(given, addressRules{exact: true})
	if len(list.boxes) != 1 || len(list.unclear) > 0 {
		return "", fail(exitUsage, "-f: %q is not a valid address", shorten(given))
	}
	path := s.asSender(list.boxes[0].address)
	if !validAddress(path) {
		return "", fail(exitUsage, "-f: %q is not a valid address", shorten(given))
	}
	if _, domain, _ := cutAddress(path); !isDomain(domain) {
		return "", nil
	}
	return path, nil
}

// localDomain is the domain of addresses that have none: what Debian keeps in
// /etc/mailname, else the host's name.
func localDomain() string {
	if f, err := os.Open("/etc/mailname"); err == nil {
		defer func() { _ = f.Close() }()
		data, err := io.ReadAll(io.LimitReader(f, 256))
		if name := strings.TrimSpace(string(data)); err == nil && isDomain(name) {
			return name
		}
	}
	name, err := os.Hostname()
	if err != nil || !isDomain(name) {
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

package config

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mailsidecar/alerts"
	"mailsidecar/files"
	"mailsidecar/mailer"
	"mailsidecar/mailer/dkim"
	"mailsidecar/netaddr"
	"mailsidecar/units"
)

const servicePrefix = "MAILSIDECAR"

// Service is everything but the relays. The desc tags document the fields, and
// the env tags name them: after MAILSIDECAR_.
type Service struct {
	// Keys are the entries of APIKeys.
	Keys []APIKey
	// DKIMKeys are the entries of DKIM, with their keys.
	DKIMKeys []dkim.Entry
	// AlertTargets are the entries of Alerts, and Heartbeat is HeartbeatURL.
	AlertTargets []alerts.Target
	// StoreKey is the key in StoreKeyFile; not set where none is named.
	StoreKey  Secret
	Heartbeat alerts.Heartbeat

	Addr             string         `env:"ADDR" default:":8587" desc:"Address and port to listen on; an empty address means all." note:"127.0.0.1:8587 keeps it to this host, and then needs no key."`
	APIKeys          Secret         `env:"API_KEYS" lines:"yes" desc:"Who may send: name:secret, separated by commas, in a file also one a line." unset:"allowed on loopback only" note:"A key sees its own messages only."`
	KeySenders       List           `env:"KEY_SENDERS" desc:"From which addresses and domains a key may send: name:sender|sender, separated by commas; another From is answered with 403, and one that programs read in different ways with 422." unset:"any" note:"For a key of an app that is not trusted with every address. Keys without an entry may use any."`
	KeyRates         List           `env:"KEY_RATES" desc:"Messages that a key may submit in a second, minute, hour or day: name:100/m, separated by commas; over it the answer is 429." unset:"no limit" note:"Keeps one app from filling the queue. Bursts up to this number are allowed, and one batch of any size when nothing is used up."`
	KeyRelays        List           `env:"KEY_RELAYS" desc:"Which relays a key's mail may go to, best first: name:relay|relay, separated by commas; a relay by its number (1 is SMTP_, 2 is SMTP2_), its host or its provider." unset:"all" note:"Of these SMTP_SENDERS chooses by sender, as usual. Keys without an entry may use all."`
	KeyRoles         List           `env:"KEY_ROLES" desc:"What a key may do: name:role|role, separated by commas; send, read (its own messages) or admin (everything, and the messages of all keys)." unset:"send and read" note:"For an app that only sends, a monitor that only reads, an operator who sees all. Without keys, whoever is on this host is admin."`
	Queue            Queue          `env:"QUEUE" default:"sqlite" twin:"yes" desc:"Where accepted messages are kept: sqlite, sqlite:PATH, postgres://USER:PASSWORD@HOST/DATABASE, or none." note:"With none nothing is stored and the answer is the relay's verdict. A file never on a network file system. Several instances may share a PostgreSQL: docs/scaling.md."`
	QueueListen      QueueListen    `env:"QUEUE_LISTEN" default:"auto" twin:"yes" desc:"With PostgreSQL: how an instance hears at once what others have tried, or are to cancel: auto, over the connection that MAILSIDECAR_QUEUE names; the URL of the same database without a pooler such as PgBouncer; or none." note:"Otherwise it looks, three times a second while a request waits."`
	Lease            units.Duration `env:"LEASE" default:"60s" min:"10s" max:"1h" desc:"With PostgreSQL: how long after its last sign of life an instance counts as alive. Then others take over its messages." note:"Less takes over sooner; a pause longer than that costs the instance what it had in memory."`
	StoreKeyFile     string         `env:"STORE_KEY_FILE" desc:"With PostgreSQL: file with a key of 32 octets, or of 64 hexadecimal digits, that seals the OAuth2 logins in the database; then all instances use one login." unset:"each instance has its own logins, in the data directory" note:"openssl rand -hex 32 makes one. Without it nobody can read them."`
	DataDir          string         `env:"DATA_DIR" desc:"Directory of the queue." unset:"mailsidecar in $XDG_STATE_HOME or ~/.local/state; /data in the image" note:"Keep it on a volume that outlives the container."`
	From             string         `env:"FROM" desc:"From of messages that have none, such as Shop <shop@example.com>. A finished message (message/rfc822) needs its own." unset:"from is required"`
	ForceFrom        string         `env:"FORCE_FROM" desc:"Address, also with a name, that takes the place of every message's From and envelope sender; the old From goes into Reply-To." unset:"From stays" note:"For a relay that takes one sender only, when apps send from others."`
	DKIM             DKIM           `env:"DKIM" desc:"Keys with which messages are signed (DKIM): domain:selector:FILE, separated by commas. That of the From address's domain signs, else of the closest domain above it; several entries of one domain sign side by side." unset:"no signature" note:"For a relay that does not sign. mailsidecar dkim new makes a key, and prints the record and this setting."`
	MaxMessageSize   units.Size     `env:"MAX_MESSAGE_SIZE" default:"25MiB" min:"1KiB" max:"1GiB" desc:"Size of a composed message, in octets or with KiB, MiB, KB, MB." note:"Relays have limits of their own, often 10 to 40 MB."`
	MaxRecipients    int            `env:"MAX_RECIPIENTS" default:"1000" min:"1" max:"100000" desc:"Recipients of one message."`
	MaxInFlight      units.Size     `env:"MAX_IN_FLIGHT" default:"128MiB" min:"1MiB" desc:"Memory for requests being answered; over it the answer is 503 busy." note:"Raise it for many large messages at once. At least 1.5 times the message size."`
	MaxConnections   int            `env:"MAX_CONNECTIONS" default:"2000" min:"16" max:"100000" desc:"Open connections, over HTTP and HTTPS together; over it the one that matters least is closed: the longest idle one first." note:"Each may take 32 KiB of memory, and 64 KiB with HTTPS. The requests under way of one key may have half of them."`
	RequestTimeout   units.Duration `env:"REQUEST_TIMEOUT" default:"30s" min:"1s" max:"15m" desc:"Time for a request to be answered." note:"Without a queue that includes the relay's verdict."`
	ShutdownTimeout  units.Duration `env:"SHUTDOWN_TIMEOUT" default:"8s" min:"1s" max:"1h" desc:"Time to finish deliveries after SIGTERM." note:"Keep it under the grace period of the host: docker stop gives 10s."`
	Compat           List           `env:"COMPAT" default:"all" desc:"Hosted providers whose send APIs are served, so that their SDKs can be used: all, none, or some of {apis}."`
	TLS              string         `env:"TLS" oneof:"self-signed" desc:"self-signed serves HTTPS, too, with certificates of an authority of its own, kept in the data directory." unset:"no HTTPS, unless there is a certificate" note:"mailsidecar ca prints the authority, which clients must trust."`
	TLSCertFile      string         `env:"TLS_CERT_FILE" desc:"Certificate for HTTPS and its chain, a file in PEM form; read again when it changes." unset:"no HTTPS, unless self-signed"`
	TLSKeyFile       string         `env:"TLS_KEY_FILE" desc:"Private key of that certificate, a file in PEM form." unset:"no HTTPS, unless self-signed"`
	TLSAddr          string         `env:"TLS_ADDR" default:":8443" desc:"Address and port for HTTPS, beside HTTP."`
	MetricsAddr      string         `env:"METRICS_ADDR" desc:"Address and port where GET /metrics is answered without a key, for Prometheus; nothing else is served there." unset:"on the other ports only, for keys with the role admin" note:"Whoever reaches it reads the names of keys and relays, and how much mail there is: keep it to a private network."`
	UI               string         `env:"UI" default:"on" oneof:"on none" desc:"Whether the dashboard is served, at /ui/: on or none." note:"People sign in there with an API key. It costs nothing until somebody opens it."`
	UIPath           string         `env:"UI_PATH" desc:"What a reverse proxy has in front of /ui/, such as /mail where the dashboard is at https://ops.example.com/mail/ui/." unset:"nothing"`
	LogLevel         slog.Level     `env:"LOG_LEVEL" default:"info" oneof:"debug info warn error" desc:"debug, info, warn or error."`
	LogFormat        string         `env:"LOG_FORMAT" default:"json" oneof:"json text" desc:"json or text."`
	QueueMaxMessages int            `env:"QUEUE_MAX_MESSAGES" default:"100000" min:"0" desc:"Messages waiting in the queue; over it the answer is 503 queue_full. 0 means no limit."`
	QueueMaxSize     units.Size     `env:"QUEUE_MAX_SIZE" default:"10GiB" min:"0" desc:"Size of the messages waiting in the queue; over it the answer is 503 queue_full. 0 means no limit."`
	MinFreeDisk      units.Size     `env:"MIN_FREE_DISK" default:"256MiB" min:"0" desc:"Free disk space below which the answer is 503 disk_full; deliveries go on." note:"0 lets the disk fill up."`
	Retention        units.Duration `env:"RETENTION" default:"7d" min:"1h" desc:"How long a finished message's record stays; the content of a bounced or expired one, too." note:"Within it a message can be looked up and retried. Less than a day counts as one, for a repeated request to be recognised."`
	KeepBodies       units.Duration `env:"KEEP_BODIES" default:"0" desc:"How long the content of a delivered message stays; 0 means not at all." note:"Costs disk space, and keeps people's mail."`
	ExpiresIn        units.Duration `env:"EXPIRES_IN" default:"5d" min:"1m" desc:"How long to retry a message before it expires." note:"A message may ask for less or more."`
	Uncertain        string         `env:"UNCERTAIN" default:"retry" oneof:"retry hold" desc:"What to do when the relay's reply to a message is lost: retry or hold." note:"retry may deliver twice; hold waits for a person."`

	Alerts             Secret         `env:"ALERTS" lines:"yes" desc:"Who is told when something is wrong: URLs of Slack, Discord, Teams, ntfy, Telegram or a program of one's own, separated by commas, in a file also one a line." unset:"nobody" note:"docs/alerts.md says how to make each URL; mailsidecar alert test tries them."`
	AlertsAllowPrivate bool           `env:"ALERTS_ALLOW_PRIVATE" default:"false" desc:"Whether the URLs for alerts and the heartbeat may lead to this host or a private network, and begin with http there: true or false."`
	AlertsMaxAge       units.Duration `env:"ALERTS_MAX_AGE" default:"15m" min:"1m" max:"30d" desc:"How long mail may be due while nothing goes out, before alerts and the heartbeat say so."`
	HeartbeatURL       Secret         `env:"HEARTBEAT_URL" desc:"URL of a monitor that is fetched each minute while mail flows, and with /fail at the end when not: the convention of Healthchecks. Push URLs of Uptime Kuma work, too." unset:"none" note:"Such a monitor also notices when this process or its host is gone."`
}

// APIKey is one entry of MAILSIDECAR_API_KEYS.
type APIKey struct {
	Name   string // letters, digits, dots, hyphens and underscores
	Secret Secret
	// Senders are the addresses and domains of MAILSIDECAR_KEY_SENDERS, in lower
	// case; none means any.
	Senders []string
	Rate    units.Rate // of MAILSIDECAR_KEY_RATES
	// Roles are those of MAILSIDECAR_KEY_ROLES; none means send and read.
	Roles []string
}

const (
	maxKeyName = 64
	// leastRetention is the shortest that the store keeps to, so that it recognises
	// repeated requests that long.
	leastRetention = units.Duration(units.Day)
	// shortKey is where a warning stands: 16 characters of base64 are 96 bits.
	shortKey = 16
)

// checkService judges the service's settings together.
func (r *reader) checkService(s *Service) {
	r.checkAddr(s)
	r.checkKeys(s)
	r.checkKeySenders(s)
	r.checkKeyRates(s)
	r.checkKeyRoles(s)
	r.checkStore(s)
	r.checkCompat(s)
	r.checkHTTPS(s)
	r.checkMetricsAddr(s)
	r.checkUIPath(s)
	r.checkDKIM(s)
	r.checkAlerts(s)
	r.checkSender("FROM", s.From)
	r.checkSender("FORCE_FROM", s.ForceFrom)
	if least := s.MaxMessageSize + s.MaxMessageSize/2; s.MaxInFlight < least && !r.failed[serviceName("MAX_MESSAGE_SIZE")] {
		r.problem(serviceName("MAX_IN_FLIGHT"), "is "+s.MaxInFlight.String()+", too little for one message of "+serviceName("MAX_MESSAGE_SIZE")+" ("+s.MaxMessageSize.String()+")",
			"set "+least.String()+" or more")
	}
	if s.Retention < leastRetention {
		r.warn("%s is %s, and counts as %s, the minimum, because repeated requests are recognised that long", serviceName("RETENTION"), s.Retention, leastRetention)
	}
	if s.KeepBodies > s.Retention {
		r.warn("%s is over %s: content goes with the message's record, after %s", serviceName("KEEP_BODIES"), serviceName("RETENTION"), s.Retention)
	}
}

// checkSender checks a setting that is an address, also with a name.
func (r *reader) checkSender(suffix, value string) {
	if value == "" {
		return
	}
	if _, err := mailer.ParseAddress(value); err != nil {
		r.problem(serviceName(suffix), "is no address: "+err.Error(), "write one such as shop@example.com or Shop <shop@example.com>")
	}
}

func serviceName(suffix string) string { return servicePrefix + "_" + suffix }

func (r *reader) checkAddr(s *Service) {
	r.checkHostPort(serviceName("ADDR"), s.Addr, ":8587")
}

// checkMetricsAddr refuses a port that is taken by another setting, whatever the hosts: on
// some systems both could listen, and which one answers would depend on the address asked.
func (r *reader) checkMetricsAddr(s *Service) {
	if s.MetricsAddr == "" {
		return
	}
	name := serviceName("METRICS_ADDR")
	r.checkHostPort(name, s.MetricsAddr, ":9587")
	_, port, _ := net.SplitHostPort(s.MetricsAddr)
	others := map[string]string{serviceName("ADDR"): s.Addr}
	if s.HTTPS() {
		others[serviceName("TLS_ADDR")] = s.TLSAddr
	}
	for _, other := range slices.Sorted(maps.Keys(others)) {
		if _, taken, _ := net.SplitHostPort(others[other]); port == taken && port != "0" && port != "" {
			r.problem(name, "has the port of "+other, "give each its own, such as :9587; without "+name+" a key with the role admin reads /metrics there")
		}
	}
}

// checkUIPath refuses what could not stand in front of a path as it is.
func (r *reader) checkUIPath(s *Service) {
	path := s.UIPath
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~/"
	if path == "" || path != "/" && strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && len(path) <= 200 &&
		strings.Trim(path, plain) == "" && !strings.Contains(path, "//") && !strings.Contains(path+"/", "/./") && !strings.Contains(path+"/", "/../") {
		return
	}
	r.problem(serviceName("UI_PATH"), "is no path to put in front of /ui/", "write one such as /mail, with a slash at its beginning and none at its end; letters, digits and -_.~/ may stand in it")
}

func (r *reader) checkHostPort(name, addr, example string) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, " /@") {
		r.problem(name, "is no address and port", "write one such as "+example+" or 127.0.0.1"+example)
		r.failed[name] = true
	}
}

// loopbackOnly reports whether only this host reaches the server.
func (s Service) loopbackOnly() bool {
	return s.openAddr() == ""
}

// openAddr names the variable with an address that others reach; empty when
// there is none.
func (s Service) openAddr() string {
	if host, _, err := net.SplitHostPort(s.Addr); err != nil || !netaddr.IsLoopback(host) {
		return serviceName("ADDR") + " (" + s.Addr + ")"
	}
	if host, _, err := net.SplitHostPort(s.TLSAddr); s.HTTPS() && (err != nil || !netaddr.IsLoopback(host)) {
		return serviceName("TLS_ADDR") + " (" + s.TLSAddr + ")"
	}
	return ""
}

// requireKey refuses an open door.
func (r *reader) requireKey(s Service) {
	keys := serviceName("API_KEYS")
	if len(s.Keys) > 0 || r.failed[keys] || r.failed[serviceName("ADDR")] || s.loopbackOnly() {
		return
	}
	r.problem(keys, "is not set, and "+s.openAddr()+" is open to the network",
		"set it to name:secret (or "+keys+"_FILE), or listen on 127.0.0.1:8587")
}

func (r *reader) checkKeys(s *Service) {
	name := serviceName("API_KEYS")
	if r.sources[name] == FromFile {
		name += "_FILE"
	}
	keys, bad := parseKeys(s.APIKeys)
	if bad != nil {
		r.problem(name, bad.what, bad.remedy)
		r.failed[serviceName("API_KEYS")] = true
		return
	}
	for _, k := range keys {
		if len(k.Secret.Reveal()) < shortKey {
			r.warn("%s: the secret of %s is shorter than %d characters and might be guessed", name, k.Name, shortKey)
		}
	}
	s.Keys = keys
}

// parseKeys splits "name:secret,…". Its problem counts entries instead of
// showing them, because a part in the wrong place may be a secret.
func parseKeys(list Secret) ([]APIKey, *invalid) {
	if !list.IsSet() {
		return nil, nil
	}
	var keys []APIKey
	for entry := range strings.FieldsFuncSeq(withoutComments(list.Reveal()), isKeySeparator) {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		number := "entry " + strconv.Itoa(len(keys)+1)
		name, secret, ok := strings.Cut(entry, ":")
		switch {
		case !ok:
			return nil, &invalid{number + " has no name", "write name:secret"}
		case !isKeyName(name):
			return nil, &invalid{number + " has a name that is not made of letters, digits, dots, hyphens and underscores", "write name:secret"}
		case !isKeySecret(secret):
			return nil, &invalid{number + " has no secret, or one with blanks or characters outside ASCII", "write name:secret, such as the output of openssl rand -hex 24"}
		}
		for i, other := range keys {
			if other.Name == name || other.Secret.Reveal() == secret {
				return nil, &invalid{number + " repeats the name or the secret of entry " + strconv.Itoa(i+1), "give each its own"}
			}
		}
		keys = append(keys, APIKey{Name: name, Secret: NewSecret(secret)})
	}
	if len(keys) == 0 {
		return nil, &invalid{"holds no entry", "write name:secret"}
	}
	return keys, nil
}

// withoutComments takes out the lines that begin with #, as a file may have them.
func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func isKeySeparator(c rune) bool { return c == ',' || c == '\n' || c == '\r' }

func isKeyName(s string) bool {
	return s != "" && len(s) <= maxKeyName && strings.IndexFunc(s, func(c rune) bool { return c != '.' && notHostRune(c) }) < 0
}

// isKeySecret: what fits into an Authorization field as it is.
func isKeySecret(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// storeKeySize is the length of the key, in octets.
const storeKeySize = 32

// readStoreKey reads the key that seals logins: as it is, or in hexadecimal digits.
func (r *reader) readStoreKey(s *Service) {
	if s.StoreKeyFile == "" {
		return
	}
	name := serviceName("STORE_KEY_FILE")
	data, err := files.Read(s.StoreKeyFile, maxSecretFile)
	if err != nil {
		r.problem(name, "names "+shownPath(s.StoreKeyFile)+", which cannot be read: "+err.Error(), "name a file that this process may read")
		return
	}
	key := data
	if digits, err := hex.DecodeString(strings.TrimSpace(string(data))); err == nil && len(digits) == storeKeySize {
		key = digits
	}
	if len(key) != storeKeySize {
		r.problem(name, fmt.Sprintf("names %s, which has %d octets", shownPath(s.StoreKeyFile), len(data)),
			fmt.Sprintf("write %d octets at random into it, or %d hexadecimal digits: openssl rand -hex %d", storeKeySize, 2*storeKeySize, storeKeySize))
		return
	}
	s.StoreKey = NewSecret(string(key))
}

// checkStore settles where the queue's file is.
func (r *reader) checkStore(s *Service) {
	if s.Queue.Shared() {
		r.checkShared(s)
		return
	}
	if s.StoreKeyFile != "" {
		r.warn("%s means nothing without PostgreSQL: logins are kept in the data directory", serviceName("STORE_KEY_FILE"))
	}
	for _, name := range []string{"QUEUE_LISTEN", "LEASE"} {
		if source := r.sources[serviceName(name)]; source == FromVariable || source == FromFile {
			r.warn("%s means nothing without PostgreSQL", serviceName(name))
		}
	}
	if s.Queue.Store != "sqlite" || r.failed[serviceName("DATA_DIR")] {
		return
	}
	if s.DataDir == "" {
		s.DataDir = stateDir(r.getenv)
	}
	if s.Queue.Path != "" {
		return
	}
	if s.DataDir == "" {
		r.problem(serviceName("DATA_DIR"), "is not set, and there is no home directory", "set it to a directory on a volume that lasts")
		return
	}
	s.Queue.Path = filepath.Join(s.DataDir, "queue.db")
}

// checkShared judges what a queue in a database changes for other settings.
func (r *reader) checkShared(s *Service) {
	for _, f := range s.Queue.faults() {
		r.failed[serviceName("QUEUE")] = true
		r.problems = append(r.problems, Problem{serviceName("QUEUE"), f.what, f.remedy})
	}
	if name := serviceName("QUEUE"); r.sources[name] == FromFile {
		s.Queue.File = r.get(name + "_FILE")
	}
	r.readStoreKey(s)
	if r.sources[serviceName("MIN_FREE_DISK")] == FromVariable {
		r.warn("%s means nothing with PostgreSQL, whose disk this program does not see", serviceName("MIN_FREE_DISK"))
	}
	if s.SelfSigned() {
		r.problem(serviceName("TLS"), "asks for a certificate authority of this instance's own, and with PostgreSQL clients may reach any instance",
			"set "+serviceName("TLS_CERT_FILE")+" and "+serviceName("TLS_KEY_FILE"))
	}
}

// stateDir is the user's directory for state that outlives a restart (XDG Base
// Directory Specification); empty when the user has none.
func stateDir(getenv func(string) string) string {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mailsidecar")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "mailsidecar")
	}
	return ""
}

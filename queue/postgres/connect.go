package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"mailsidecar/netaddr"
	"mailsidecar/processor"
)

const (
	// connectTime is how long one host has to take a connection.
	connectTime = 2 * time.Second
	// pingTime is how long a connection that was idle has to show that it works.
	pingTime = 2 * time.Second
	// defaultAnswerTime is [Options.AnswerTime].
	defaultAnswerTime = 6 * time.Second
	// The network is dead when sent octets are not acknowledged for sentTimeout, or when
	// nothing comes after keepIdle plus keepCount probes.
	sentTimeout  = 5 * time.Second
	keepIdle     = 5 * time.Second
	keepInterval = 2 * time.Second
	keepCount    = 3
)

// connector makes connections.
type connector struct {
	config     *pgxpool.Config
	schema     string // as an identifier in SQL
	name       string // of the schema
	answerTime time.Duration
	reread     func() (string, error) // see [Options.Reread]
	// primary is the host that was last connected to. It is tried first: each silent host before it
	// costs connectTime, which a heartbeat may not have.
	primary atomic.Pointer[pgconn.FallbackConfig]
}

// newConnector reads a URL. Its errors never show the URL, which holds a password.
func newConnector(o Options) (*connector, error) {
	c := &connector{name: o.Schema, answerTime: o.AnswerTime, reread: o.Reread}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("the address of the database must be a URL that begins with postgres://")
	}
	c.config, err = pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("the address of the database: %w", withoutURL(err))
	}
	for _, name := range slices.Sorted(maps.Keys(c.config.ConnConfig.RuntimeParams)) {
		if name != "application_name" {
			return nil, fmt.Errorf("the address of the database has the unknown parameter %q", name)
		}
	}
	c.schema = pgx.Identifier{c.name}.Sanitize()
	c.prepare()
	if c.config.MaxConns == libraryConnections && !u.Query().Has("pool_max_conns") {
		c.config.MaxConns = usualConnections(processor.Count())
	}
	if o.Connections > 0 {
		c.config.MaxConns = int32(o.Connections)
	}
	return c, nil
}

// libraryConnections is the library's default, which counts the processors of the machine.
var libraryConnections = int32(max(4, runtime.NumCPU()))

// usualConnections is how many connections a pool has by default. A database serves many
// instances, so a large machine must not take all that it has.
func usualConnections(processors int) int32 { return int32(min(8, max(4, processors))) }

// withoutURL keeps of a parser's error what does not repeat the address.
func withoutURL(err error) error {
	var parse *pgconn.ParseConfigError
	var path *fs.PathError
	switch {
	case !errors.As(err, &parse):
		return errors.New("it cannot be read")
	case errors.As(err, &path): // its name may be something else in the wrong place
		return fmt.Errorf("a file that it names cannot be read: %w", path.Err)
	}
	if cause := errors.Unwrap(parse); cause != nil && !strings.Contains(cause.Error(), "://") {
		return cause
	}
	return errors.New("it cannot be read")
}

// prepare sets how connections are made.
func (c *connector) prepare() {
	cc := c.config.ConnConfig
	// Works behind PgBouncer in transaction mode, sends octets as they are, and plans each
	// time with the values.
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cc.StatementCacheCapacity = 0
	cc.DescriptionCacheCapacity = 256
	if cc.ConnectTimeout <= 0 {
		cc.ConnectTimeout = connectTime
	}
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "mailsidecar"
	}
	// Of several hosts at most one is the primary.
	if cc.ValidateConnect == nil && c.several() {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// A warning that comes with a commit may say that it was not waited for a standby. Its
	// text is translated: the severity must do.
	cc.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" || n.SeverityUnlocalized == "" {
			conn.CustomData()[warned] = n.Message
		}
	}
	c.config.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		c.renewLogin(cc)
		c.watch(cc, c.answerTime)
		return nil
	}
	c.config.PingTimeout = pingTime
	c.config.MaxConnLifetime = time.Hour
	c.config.MaxConnLifetimeJitter = 10 * time.Minute
}

// several says that the URL names several hosts.
func (c *connector) several() bool {
	cc := c.config.ConnConfig
	return slices.ContainsFunc(cc.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != cc.Host || f.Port != cc.Port })
}

// mayBePlain says that the URL lets a connection be without encryption.
func (c *connector) mayBePlain() bool {
	cc := c.config.ConnConfig
	return cc.TLSConfig == nil || slices.ContainsFunc(cc.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil })
}

// warned is the name under which a connection keeps the last warning.
const warned = "warned"

// connectLimit is how long a connection may take whose hosts are all tried, and a little more.
func (c *connector) connectLimit() time.Duration {
	cc := c.config.ConnConfig
	return time.Duration(1+len(cc.Fallbacks))*cc.ConnectTimeout + connectTime
}

// primaryFirst has the host tried first that was last connected to.
func (c *connector) primaryFirst(cc *pgx.ConnConfig) {
	known := c.primary.Load()
	if known == nil || !c.several() {
		return
	}
	hosts := append([]*pgconn.FallbackConfig{{Host: cc.Host, Port: cc.Port, TLSConfig: cc.TLSConfig}}, cc.Fallbacks...)
	slices.SortStableFunc(hosts, func(a, b *pgconn.FallbackConfig) int {
		rank := func(f *pgconn.FallbackConfig) int {
			if f.Host == known.Host && f.Port == known.Port {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	cc.Host, cc.Port, cc.TLSConfig = hosts[0].Host, hosts[0].Port, hosts[0].TLSConfig
	cc.Fallbacks = hosts[1:]
}

// remember notes the host that an address belongs to. resolved has each address, without its port,
// with each host that has it.
func (c *connector) remember(cc *pgx.ConnConfig, addr string, resolved map[[2]string]bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil { // a socket in the file system
		return
	}
	for _, f := range append([]*pgconn.FallbackConfig{{Host: cc.Host, Port: cc.Port}}, cc.Fallbacks...) {
		if fmt.Sprint(f.Port) == port && resolved[[2]string{host, f.Host}] {
			c.primary.Store(&pgconn.FallbackConfig{Host: f.Host, Port: f.Port})
			return
		}
	}
}

// connect makes a connection beside the pool. With slow its answers may take any time.
func (c *connector) connect(ctx context.Context, slow bool) (*pgx.Conn, error) {
	cc := c.config.ConnConfig.Copy()
	c.renewLogin(cc)
	limit := c.answerTime
	if slow {
		limit = 0
	}
	c.watch(cc, limit)
	return pgx.ConnectConfig(ctx, cc)
}

// renewLogin takes user and password of a connection from the file that they came from: they may
// have been changed since the start.
func (c *connector) renewLogin(cc *pgx.ConnConfig) {
	if c.reread == nil {
		return
	}
	now, err := c.reread()
	if err != nil {
		return
	}
	if fresh, err := pgx.ParseConfig(now); err == nil && fresh.Host == c.config.ConnConfig.Host && fresh.Database == cc.Database {
		cc.User, cc.Password = fresh.User, fresh.Password
	}
}

// watch gives one connection its own way to dial: once it is made, none may be dialled for
// it. So the library cannot send a request to cancel, which would make a commit that waits
// for a standby return without having it.
func (c *connector) watch(cc *pgx.ConnConfig, limit time.Duration) {
	c.primaryFirst(cc)
	resolved, last, lookup := map[[2]string]bool{}, "", cc.LookupFunc
	cc.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		addrs, err := lookup(ctx, host)
		for _, a := range addrs {
			resolved[[2]string{a, host}] = true
		}
		return addrs, err
	}
	made := &atomic.Bool{}
	plain := c.mayBePlain()
	dialer := net.Dialer{
		Timeout:         cc.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control:         limitUnacknowledged,
	}
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if made.Load() {
			return nil, errors.New("no request to cancel is sent")
		}
		last = addr
		conn, err := dialer.DialContext(ctx, network, addr)
		if err == nil && plain {
			err = mayBePlain(conn.RemoteAddr())
		}
		if err != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return nil, err
		}
		return &watchedConn{Conn: conn, made: made, limit: limit}, nil
	}
	cc.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		made.Store(true)
		c.remember(cc, last, resolved)
		return nil
	}
}

// errClearText: mail and the password would cross a public network unencrypted.
var errClearText = errors.New("without encryption only a database on this host or in a private network is asked")

// mayBePlain says whether a connection to the address may be unencrypted.
func mayBePlain(addr net.Addr) error {
	if _, unix := addr.(*net.UnixAddr); unix || netaddr.IsPrivate(addr) {
		return nil
	}
	return errClearText
}

// watchedConn ends when an answer takes too long: a server that is frozen acknowledges all
// that is sent, so that the network's time-outs do not see it.
type watchedConn struct {
	net.Conn
	made  *atomic.Bool
	limit time.Duration // zero: none
}

var errNoAnswer = errors.New("the database does not answer")

// Read ends the connection, and not only itself: what comes later answers nobody.
func (c *watchedConn) Read(b []byte) (int, error) {
	if c.limit == 0 || !c.made.Load() {
		return c.Conn.Read(b)
	}
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		_ = c.Close()
		return n, errNoAnswer
	}
	return n, err
}

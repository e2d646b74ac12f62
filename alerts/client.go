package alerts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"mailsidecar/mailer"
	"mailsidecar/netaddr"
)

const (
	// SendTimeout limits one request, from the look-up of the name to the answer.
	SendTimeout = 10 * time.Second
	// maxAnswer limits what is read of an answer, and maxAnswerHeader its header section,
	// in octets.
	maxAnswer       = 4 << 10
	maxAnswerHeader = 64 << 10
	// maxSaid limits what is shown of an answer, in octets.
	maxSaid = 200
	// longestRetryAfter is the longest wait that an answer may ask for.
	longestRetryAfter = time.Hour
)

// ClientOptions are for [NewClient]. The zero value will do.
type ClientOptions struct {
	// AllowPrivate allows addresses of this host and of private networks, and http there.
	AllowPrivate bool
	UserAgent    string
	// Proxy chooses the proxy of a request; nil means that of the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial, if not nil, connects in place of the network: for tests. The address that it
	// is given is not checked.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client sends messages. It is safe for concurrent use.
type Client struct {
	opts ClientOptions
	// One for each way: what may be dialled differs.
	secure, clear, proxied *http.Client
}

// NewClient returns a client.
func NewClient(o ClientOptions) *Client {
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	c := &Client{opts: o}
	c.secure = c.client(nil, func(ip netip.Addr) error {
		if !o.AllowPrivate && !netaddr.IsPublic(ip) {
			return errPrivate
		}
		return nil
	})
	c.clear = c.client(nil, func(ip netip.Addr) error {
		switch {
		case netaddr.IsPublic(ip):
			return errClear
		case !o.AllowPrivate:
			return errPrivate
		default:
			return nil
		}
	})
	c.proxied = c.client(o.Proxy, nil) // the operator has chosen the proxy, which dials
	return c
}

var (
	errPrivate = errors.New("the address is one of this host or of a private network")
	errClear   = errors.New("the address is public, and http would show everybody what is sent")
	errByProxy = errors.New("http would go through the proxy in clear text")
)

func (c *Client) client(proxy func(*http.Request) (*url.URL, error), allow func(netip.Addr) error) *http.Client {
	dialer := &net.Dialer{}
	if allow != nil {
		dialer.ControlContext = func(_ context.Context, _, addr string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(addr)
			if err != nil {
				return err
			}
			return allow(ap.Addr())
		}
	}
	connect := dialer.DialContext
	if c.opts.Dial != nil {
		connect = c.opts.Dial
	}
	// The transport lets a connection be made that its request does not wait for any more.
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, SendTimeout)
		defer cancel()
		return connect(ctx, network, addr)
	}
	return &http.Client{
		// A redirect would carry the secrets to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: proxy, DialContext: dial, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxAnswerHeader,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: SendTimeout,
			OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
				if answer.StatusCode != http.StatusOK {
					return fmt.Errorf("the proxy answered %d", answer.StatusCode)
				}
				return nil
			},
		},
	}
}

// SendError is a message that did not arrive, as far as is known.
type SendError struct {
	What   string // in plain words, without secrets
	Remedy string // empty where nothing but waiting helps
	// Refused says that the same request will be answered the same way.
	Refused bool
	// RetryAfter is how long to wait at least; zero where the answer does not say.
	RetryAfter time.Duration
	Err        error // may be nil
}

func (e *SendError) Error() string {
	if e.Remedy == "" {
		return e.What
	}
	return e.What + "; " + e.Remedy
}

func (e *SendError) Unwrap() error { return e.Err }

// Send sends the message once. The error is a [*SendError].
func (c *Client) Send(ctx context.Context, to Target, m Message) error {
	body, err := to.payload(m)
	if err != nil {
		return &SendError{What: "cannot be written as JSON", Refused: true, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, SendTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url, bytes.NewReader(body))
	if err != nil {
		return &SendError{What: "the URL cannot be used", Refused: true}
	}
	r.Header.Set("Content-Type", "application/json")
	switch {
	case to.user != "":
		r.SetBasicAuth(to.user, to.password)
	case to.password != "":
		r.Header.Set("Authorization", "Bearer "+to.password)
	}
	return c.exchange(r, to.secrets)
}

// exchange sends the request and judges the answer.
func (c *Client) exchange(r *http.Request, secrets []string) error {
	r.Header.Set("User-Agent", c.opts.UserAgent)
	client, err := c.wayOf(r)
	if err != nil {
		return explain(err, r.URL, secrets)
	}
	answer, err := client.Do(r)
	if err != nil {
		return explain(err, r.URL, secrets)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode/100 == 2 {
		return nil
	}
	said, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return judge(answer, said, secrets)
}

// wayOf chooses the client for the request. Where a proxy connects, only an address in the
// URL itself can be judged.
func (c *Client) wayOf(r *http.Request) (*http.Client, error) {
	proxy, err := c.opts.Proxy(r)
	switch {
	case err != nil:
		return nil, err
	case proxy == nil && r.URL.Scheme == "https":
		return c.secure, nil
	case proxy == nil:
		return c.clear, nil
	case r.URL.Scheme != "https":
		return nil, errByProxy
	}
	ip, err := netip.ParseAddr(r.URL.Hostname())
	if !c.opts.AllowPrivate && (netaddr.IsLoopback(r.URL.Hostname()) || err == nil && !netaddr.IsPublic(ip)) {
		return nil, errPrivate
	}
	return c.proxied, nil
}

// explain says why there was no answer.
func explain(err error, to *url.URL, secrets []string) *SendError {
	e := &SendError{Err: err}
	host := to.Host
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, errPrivate):
		e.What, e.Remedy = host+": "+errPrivate.Error(), "set MAILSIDECAR_ALERTS_ALLOW_PRIVATE=true if that is meant"
	case errors.Is(err, errClear):
		e.What, e.Remedy = host+": "+errClear.Error(), "write https"
	case errors.Is(err, errByProxy):
		e.What, e.Remedy = host+": "+errByProxy.Error(), "name the host in NO_PROXY if it is in a private network, else write https"
	case errors.Is(err, context.DeadlineExceeded):
		e.What, e.Remedy = fmt.Sprintf("%s did not answer within %s", host, SendTimeout), "see whether this machine may reach it over HTTPS; a proxy is named with HTTPS_PROXY"
	case errors.Is(err, context.Canceled):
		e.What = "broken off: the server stops"
	case isDNS && dns.IsNotFound:
		e.What, e.Remedy = "the name "+dns.Name+" does not exist", "correct the host in the URL"
	case isDNS:
		e.What, e.Remedy = "the name "+dns.Name+" could not be looked up", "see whether this machine reaches its DNS server"
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(x509.UnknownAuthorityError)):
		e.What, e.Remedy = host+" has a certificate that is not trusted", "use the name that is in it; SSL_CERT_FILE names the authorities to trust"
	default:
		e.What, e.Remedy = host+" cannot be reached: "+plain(err, secrets), "see whether this machine may reach it over HTTPS; a proxy is named with HTTPS_PROXY"
	}
	return e
}

// plain is err without the URL that net/http puts in front, printable, and without secrets.
func plain(err error, secrets []string) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return mailer.Printable(mailer.Redact(err.Error(), secrets), maxSaid)
}

// judge says what an answer that is no success means.
func judge(answer *http.Response, said []byte, secrets []string) *SendError {
	e := &SendError{What: "the answer was " + strconv.Itoa(answer.StatusCode), Refused: true}
	if text := http.StatusText(answer.StatusCode); text != "" {
		e.What += " " + text
	}
	if len(said) > 0 && answer.StatusCode/100 != 3 {
		e.What += " (" + mailer.Printable(mailer.Redact(string(said), secrets), maxSaid) + ")"
	}
	switch code := answer.StatusCode; {
	case code/100 == 3:
		e.What += ": it redirects to another address, which is not followed"
		e.Remedy = "set the URL that it redirects to"
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		e.Remedy = "the secret in the URL is wrong or has ended: copy the URL again, or make a new one"
	case code == http.StatusNotFound, code == http.StatusGone:
		e.Remedy = "there is no such webhook, bot or topic any more: copy the URL again, or make a new one"
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		e.Refused, e.RetryAfter = false, retryAfter(answer.Header, said)
	case code/100 == 5, code == http.StatusRequestTimeout:
		e.Refused = false
	default:
		e.Remedy = "the service does not take this message: see whether the URL names the right service, channel or chat"
	}
	return e
}

// retryAfter is how long an answer asks to wait. Discord and Telegram say it in the body,
// too, and there more exactly.
func retryAfter(h http.Header, said []byte) time.Duration {
	var after time.Duration
	text := h.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		after = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = time.Until(at)
	} else {
		var body struct {
			RetryAfter float64 `json:"retry_after"`
			Parameters struct {
				RetryAfter float64 `json:"retry_after"`
			} `json:"parameters"`
		}
		_ = json.Unmarshal(said, &body) // no JSON is no wish
		after = time.Duration(min(max(body.RetryAfter, body.Parameters.RetryAfter, 0), longestRetryAfter.Seconds()) * float64(time.Second))
	}
	return min(max(after, 0), longestRetryAfter)
}

package integration

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailsidecar/integration/postfix"
	"mailsidecar/integration/wordpress"
	"mailsidecar/mailer/relaytest"
)

// TestWordPressPageTime prints what one wp_mail() costs a page, by PHPMailer's
// own SMTP and by the plugin, over relays that are 20 and 100 ms away and one
// that drops every packet, when PAGE_TIME says how often to measure:
//
//	PAGE_TIME=15 go test ./integration -run PageTime -v
//
// Each mail is sent by a PHP process of its own, as by a page: there is no
// connection that PHP could keep. The table of docs/wordpress.md is made so.
func TestWordPressPageTime(t *testing.T) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("PAGE_TIME"), "0"))
	if err != nil || n < 1 {
		t.Skip("PAGE_TIME is not set to a number")
	}
	versions := wordpress.Versions(t)
	relay := postfix.Start(t)
	site := wordpress.StartDatabase(t).Site(t, versions[len(versions)-1], wordpressPlugin)
	s := &shop{Site: site, relay: relay}
	t.Logf("WordPress %s, median of %d mails", s.Version, n)
	t.Log("| round trip to the relay | PHPMailer's SMTP | plugin, waiting | plugin, not waiting |")
	t.Log("|---|--:|--:|--:|")
	for _, rtt := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond} {
		s.pageTime(t, n, rtt.String(), distant(t, relay.Submission, rtt))
	}
	s.pageTime(t, min(n, 3), "relay dead", relaytest.BlackHolePort(t))
}

// deadTimeout is what PHPMailer is given for a dead relay instead of its 300 s.
const deadTimeout = 10 * time.Second

// pageTime measures the three ways to a relay on that port and prints a row.
func (s *shop) pageTime(t *testing.T, n int, name string, port int) {
	t.Helper()
	to := s.relay.Recipient(t)
	direct := fmt.Sprintf(`add_action('phpmailer_init', function ($m) { $m->isSMTP(); $m->Host = 'localhost'; $m->Port = %d; $m->SMTPSecure = 'tls';
		$m->SMTPAuth = true; $m->Username = %s; $m->Password = %s; $m->Timeout = %d; $m->SMTPOptions = ['ssl' => ['cafile' => %s]]; });
		add_filter('wp_mail_from', function () { return 'shop@example.com'; });`,
		port, quote(s.relay.Username), quote(s.relay.Password), int(deadTimeout.Seconds()), quote(s.relay.CAFile))
	server := serve(t, withKey(stored(t, s.relay, port)))
	waiting, notWaiting := s.plugin(server.url), s.plugin(server.url)
	notWaiting["MAILSIDECAR_WAIT"] = "0"

	// In turn, so that what else the machine does is the same for all.
	ways := []struct {
		env   map[string]string
		setup string
		took  []float64
	}{{setup: direct}, {env: waiting}, {env: notWaiting}}
	for range n {
		for i := range ways {
			m := s.mail(t, ways[i].env, ways[i].setup, quote(to)+`, 'Page time', 'x'`)
			ways[i].took = append(ways[i].took, m.Seconds)
		}
	}
	// The first mail opens the connection that those behind it find open, or
	// finds out that the relay is dead.
	t.Logf("%s: first mail %s waiting, %s not waiting", name, seconds(ways[1].took[0]), seconds(ways[2].took[0]))
	base := median(ways[0].took)
	row := []string{name, seconds(base)}
	for _, way := range ways[1:] {
		row = append(row, fmt.Sprintf("%s (%.1f×)", seconds(median(way.took)), base/median(way.took)))
	}
	t.Logf("| %s |", strings.Join(row, " | "))
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// distant returns a port from which the one given is as far away as a round trip
// of rtt.
func distant(t *testing.T, port int, rtt time.Duration) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				// The handshake of TCP is a round trip, too.
				time.Sleep(rtt)
				far, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
				if err != nil {
					_ = near.Close()
					return
				}
				go late(far, near, rtt/2)
				late(near, far, rtt/2)
			}()
		}
	}()
	return portOf(t, listener.Addr().String())
}

// late copies from one connection to the other, each piece after delay, as many
// at a time as there are.
func late(to, from net.Conn, delay time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{buffer[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_ = to.Close()
	_, _ = io.Copy(io.Discard, from)
}

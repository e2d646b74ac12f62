package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

// mainCF is a local relay as Postfix's own documentation sets one up
// (SASL_README, "Enabling SASL authentication in the Postfix SMTP/LMTP client"),
// with the certificate checked. Everything else is the default.
const mainCF = `
compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = local.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
message_size_limit = 67108864
smtpd_relay_restrictions = permit_mynetworks, reject
notify_classes =

relayhost = [localhost]:%[2]d
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = nexthop
smtp_tls_CAfile = %[3]s
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:%[1]s/etc/sasl
smtp_sasl_security_options = noanonymous
smtp_host_lookup = native
`

// reuseCF keeps connections to the relay, TLS ones too, as TUNING_README
// recommends for a busy relay.
const reuseCF = `
smtp_connection_cache_destinations = [localhost]:%d
smtp_tls_connection_reuse = yes
smtp_connection_reuse_time_limit = 300s
`

const masterCF = `
127.0.0.1:%d inet n - n - - smtpd
pickup     unix n - n 60 1 pickup
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 300 1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n - - trivial-rewrite
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
proxymap   unix - - n - - proxymap
smtp       unix - - n - - smtp
relay      unix - - n - - smtp
error      unix - - n - - error
retry      unix - - n - - error
anvil      unix - - n - 1 anvil
scache     unix - - n - 1 scache
tlsproxy   unix - - n - 0 tlsproxy
postlog    unix-dgram n - n - 1 postlogd
`

func startPostfix(reuse bool) func(context.Context, *bench, setup) (*instance, error) {
	return func(ctx context.Context, b *bench, s setup) (*instance, error) {
		path, err := exec.LookPath("postfix")
		if err != nil {
			return nil, errors.New("not installed: bench/install-peers does so")
		}
		if os.Geteuid() != 0 {
			return nil, errors.New("only root starts it")
		}
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		if err := writePostfix(b, s, port, reuse); err != nil {
			return nil, err
		}
		etc := filepath.Join(s.dir, "etc")
		i, err := startHTTP(ctx, s, port, processSpec{name: path, args: []string{"-c", etc, "start-fg"}})
		if err != nil {
			return nil, err
		}
		i.connect = func() (caller, error) { return newSMTPCaller(port, s.payload) }
		i.stops = func() { _ = exec.Command(path, "-c", etc, "stop").Run() }
		return i, nil
	}
}

// writePostfix lays out an instance of its own. The machine's Postfix, if there
// is one, is not touched.
func writePostfix(b *bench, s setup, port int, reuse bool) error {
	daemon, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	for _, dir := range []string{"etc", "spool", "data"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			return err
		}
	}
	text := fmt.Sprintf(mainCF, s.dir, s.relayPort, b.caFile)
	if reuse {
		text += fmt.Sprintf(reuseCF, s.relayPort)
	}
	files := map[string]string{
		"main.cf":   text,
		"master.cf": fmt.Sprintf(masterCF, port),
		"sasl":      fmt.Sprintf("[localhost]:%d bench:bench\n", s.relayPort),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.dir, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	uid, err := strconv.Atoi(daemon.Uid)
	if err != nil {
		return err
	}
	return os.Chown(filepath.Join(s.dir, "data"), uid, -1)
}

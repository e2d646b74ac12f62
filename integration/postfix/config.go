package postfix

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// mainCF leaves every message as it was submitted, so that a test can compare
// bytes: no field is rewritten, added or dropped (Postfix would hide a Bcc that
// the client forgot to remove). Nothing is relayed, looked up in the DNS or
// delivered outside the test's directory.
const mainCF = `
compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = relay.example.com
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
default_transport = error:nothing leaves this machine
relay_transport = error:nothing leaves this machine
local_transport = error:nothing leaves this machine
notify_classes =
anvil_rate_time_unit = 1s
message_size_limit = %[2]d

local_header_rewrite_clients =
message_drop_headers =
smtputf8_enable = yes

smtpd_tls_chain_files = %[1]s/server.pem
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = %[1]s/etc/sasl
smtpd_sasl_security_options = noanonymous
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access texthash:%[1]s/etc/access, permit_sasl_authenticated, reject

virtual_mailbox_domains = %[3]s
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = texthash:%[1]s/etc/mailboxes
virtual_mailbox_limit = 0
virtual_uid_maps = static:%[4]s
virtual_gid_maps = static:%[5]s
`

// masterCF runs the three ports of every server and the daemons behind them, none
// in a chroot.
const masterCF = `
127.0.0.1:%[1]d inet n - n - - smtpd
127.0.0.1:%[2]d inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:%[3]d inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=8bitmime,smtputf8
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 300 1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n - - trivial-rewrite
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
proxymap   unix - - n - - proxymap
error      unix - - n - - error
retry      unix - - n - - error
virtual    unix - n n - - virtual
anvil      unix - - n - 1 anvil
postlog    unix-dgram n - n - 1 postlogd
`

// saslConf keeps passwords in a file of the test's own, in clear, because
// CRAM-MD5 and SCRAM cannot be checked against a hash.
const saslConf = `
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: %[1]s/sasldb2
mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256
`

func (s *Server) writeConfig(doors []string) error {
	// Neither root nor a system account may own a mailbox (virtual(8)).
	owner, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	for _, dir := range []string{"etc", "spool", "data", "mail", "etc/sasl"} {
		if err := os.Mkdir(s.Path(dir), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"etc/main.cf":         fmt.Sprintf(mainCF, s.Path(), SizeLimit, Domain, owner.Uid, owner.Gid),
		"etc/master.cf":       fmt.Sprintf(masterCF, s.Submission, s.Submissions, s.SevenBit) + s.masterDoors(doors),
		"etc/access":          Busy + " 450 4.2.1 Mailbox busy, try again later\n",
		"etc/mailboxes":       mailboxes(),
		"etc/sasl/smtpd.conf": fmt.Sprintf(saslConf, s.Path()),
	}
	for name, content := range files {
		if err := os.WriteFile(s.Path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := chown(s.Path("mail"), owner); err != nil {
		return err
	}
	daemon, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	return chown(s.Path("data"), daemon)
}

// masterDoors are the lines of master.cf for the further doors.
func (s *Server) masterDoors(doors []string) string {
	b := new(strings.Builder)
	for i, settings := range doors {
		fmt.Fprintf(b, "127.0.0.1:%d inet n - n - - smtpd", s.Doors[i])
		for setting := range strings.FieldsSeq(settings) {
			fmt.Fprintf(b, " -o %s", setting)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func mailboxes() string {
	b := new(strings.Builder)
	for n := 1; n <= mailboxCount; n++ {
		fmt.Fprintf(b, "%[1]s %[1]s/\n", mailbox(n))
	}
	for _, address := range Odd {
		fmt.Fprintf(b, "%[1]s %[1]s/\n", address)
	}
	return b.String()
}

// writePassword puts the account into the password database, which the daemons
// read as the user postfix.
func (s *Server) writePassword() error {
	name, realm, _ := strings.Cut(s.Username, "@")
	cmd := exec.Command("saslpasswd2", "-c", "-p", "-f", s.Path("sasldb2"), "-u", realm, name)
	cmd.Stdin = strings.NewReader(s.Password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("saslpasswd2: %w: %s", err, out)
	}
	return os.Chmod(s.Path("sasldb2"), 0o644)
}

func chown(path string, u *user.User) error {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

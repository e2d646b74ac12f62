package exim

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"mailsidecar/integration/mta"
)

// daemon is the user that Debian's Exim wants to run as.
const daemon = "Debian-exim"

// config leaves every message as it was submitted, so that a test can compare
// bytes. Nothing is relayed, looked up in the DNS or delivered outside the test's
// directory. The limits are Exim's own defaults, with one exception: mail beyond
// the tenth message of a connection is also delivered at once, because a test
// should not wait for the queue runner.
const config = `
primary_hostname = relay.example.com
qualify_domain = relay.example.com
exim_path = %[1]s
spool_directory = %[2]s/spool
log_file_path = %[2]s/log/%%s.log
pid_file_path = %[2]s/spool/exim.pid
log_selector = +smtp_connection +smtp_protocol_error +smtp_syntax_error +incoming_port +tls_cipher
timezone = UTC
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[3]d : %[4]d
tls_on_connect_ports = %[4]d
tls_advertise_hosts = *
tls_certificate = %[2]s/server.pem
tls_privatekey = %[2]s/server.pem
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
host_lookup =
rfc1413_hosts =
smtp_accept_queue_per_connection = 0
queue_only = %[10]t
deliver_drop_privilege = true
acl_smtp_rcpt = rcpt
acl_smtp_data = data
%[6]s

begin acl

rcpt:
%[7]s
  deny
    !authenticated = *
    message = authenticate first
  defer
    domains = %[5]s
    local_parts = busy
    message = mailbox busy, try again later
  deny
    !domains = %[5]s
    message = relay not permitted
  deny
    !verify = recipient
  accept

data:
  accept

begin routers

boxes:
  driver = accept
  domains = %[5]s
  local_parts = lsearch;%[2]s/boxes
  transport = maildir

begin transports

maildir:
  driver = appendfile
  directory = %[2]s/mail/${local_part_data}@%[5]s
  maildir_format
  create_directory
  return_path_add
  delivery_date_add
  envelope_to_add

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{%[8]s}}{eq{$auth3}{%[9]s}}}}
  server_set_id = $auth2

login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{%[8]s}}{eq{$auth2}{%[9]s}}}}
  server_set_id = $auth1
`

func (s *Server) writeConfig(opts Options) error {
	u, err := user.Lookup(daemon)
	if err != nil {
		return err
	}
	owner, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	group, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	for _, dir := range []string{"spool", "log", "mail"} {
		if err := os.Mkdir(s.Path(dir), 0o755); err != nil {
			return err
		}
		if err := os.Chown(s.Path(dir), owner, group); err != nil {
			return err
		}
	}
	// The sessions read the key, and are not root.
	if err := os.Chown(s.Path(mta.KeyAndChain), owner, group); err != nil {
		return err
	}
	boxes := new(strings.Builder)
	for n := 1; n <= mailboxCount; n++ {
		fmt.Fprintf(boxes, "box%[1]d: box%[1]d\n", n)
	}
	if err := os.WriteFile(s.Path("boxes"), []byte(boxes.String()), 0o644); err != nil {
		return err
	}
	text := fmt.Sprintf(config, s.program(), s.Path(), s.Submission, s.Submissions, Domain,
		strings.Join(opts.Main, "\n"), strings.Join(opts.Rcpt, "\n"), s.Username, s.Password, opts.Hold)
	return os.WriteFile(s.Path("exim.conf"), []byte(text), 0o644)
}

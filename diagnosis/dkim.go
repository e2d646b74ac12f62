package diagnosis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"mailsidecar/mailer/dkim"
)

// OfDKIM says what is wrong with the published record of a key, and what to do. It is the
// zero Advice where nothing is.
func OfDKIM(f dkim.Finding) Advice {
	name, publish := f.Entry.Name(), "publish the TXT record that mailsidecar dkim record prints"
	switch f.State {
	case dkim.Published:
		return Advice{}
	case dkim.Missing:
		return Advice{Found: "there is no DKIM record " + name + ": servers take the signature for none.", Do: publish + "; a new record may take an hour to be seen everywhere."}
	case dkim.Malformed:
		return Advice{Found: "the DKIM record " + name + " cannot be read: " + f.Err.Error() + ".", Do: publish + "."}
	case dkim.Differs:
		return Advice{
			Found: "the DKIM record " + name + " has another public key than the file: servers take the signature for forged.",
			Do:    publish + ", or name the file of the key that is published in MAILSIDECAR_DKIM.",
		}
	case dkim.WrongType:
		return Advice{Found: "the tag k= of the DKIM record " + name + " is not that of a key for " + f.Entry.Key.Algorithm() + ".", Do: publish + "."}
	case dkim.Revoked:
		return Advice{Found: "the DKIM record " + name + " is revoked: its tag p= is empty.", Do: "take the key out of MAILSIDECAR_DKIM, and make another one with mailsidecar dkim new."}
	case dkim.Excluded:
		return Advice{Found: fmt.Sprintf("the DKIM record %s excludes the signatures by its tag %q.", name, f.Tag), Do: publish + "."}
	case dkim.Testing:
		return Advice{Found: "the DKIM record " + name + " says with t=y that the domain only tests DKIM: servers treat its mail as if it were not signed.", Do: "take t=y out of the record."}
	case dkim.Several:
		return Advice{Found: "there are several DKIM records " + name + ": which one servers take is chance.", Do: "leave only the one that mailsidecar dkim record prints."}
	default:
		return Advice{Found: "the DNS could not be asked for the DKIM record " + name + ": " + dnsCause(f.Err) + ".", Do: "nothing, if this machine has no DNS; mailsidecar dkim check --dns SERVER asks another server."}
	}
}

// dnsCause is why the DNS has no answer, without the name of its server.
func dnsCause(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "there was no answer in time"
	case strings.Contains(err.Error(), "server misbehaving"):
		return "the DNS server answers with an error, or refuses to answer"
	case strings.Contains(err.Error(), "connection refused"):
		return "no DNS server listens at that address"
	case strings.Contains(err.Error(), "no such host"):
		return "the name of the DNS server has no address itself"
	case strings.Contains(err.Error(), "unreachable"), strings.Contains(err.Error(), "no route"):
		return "this machine has no route to the DNS server"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	return err.Error()
}

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service/certs"
)

func newCA() *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "Print the authority that signs for MAILSIDECAR_TLS=self-signed",
		Long: `Prints the certificate of the authority that signs for HTTPS where
MAILSIDECAR_TLS=self-signed. It is made at the first start, or by this command,
and stays in the data directory. Clients must trust it:

  PHP, all of it     openssl.cafile=/etc/ssl/mailsidecar-ca.pem
                     curl.cainfo=/etc/ssl/mailsidecar-ca.pem          in php.ini
  Debian, Alpine     copy it to /usr/local/share/ca-certificates/mailsidecar.crt
                     and run update-ca-certificates: for PHP, Python's system
                     store, Ruby, Go, .NET and curl alike
  Node               NODE_EXTRA_CA_CERTS=/etc/ssl/mailsidecar-ca.pem
  Python requests    REQUESTS_CA_BUNDLE=, a file with this and all others
  Java               keytool -importcert -noprompt -cacerts -storepass changeit \
                       -alias mailsidecar -file mailsidecar-ca.pem

The two lines for php.ini replace PHP's own list; where the app calls other sites,
too, use the system's store.

Exit status: 0 printed; 1 the data directory cannot be read or written;
78 wrong configuration.`,
		Example: `  mailsidecar ca > mailsidecar-ca.pem
  docker compose exec mailsidecar mailsidecar ca > mailsidecar-ca.pem`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, warnings, err := config.LoadService()
			if err != nil {
				return misconfigured(err, warnings)
			}
			if !s.SelfSigned() {
				return exit(exitConfig, "MAILSIDECAR_TLS is not self-signed here: there is no authority to print")
			}
			ca, err := certs.OpenAuthority(s.DataDir)
			if err != nil {
				return &statusError{exitFailure, err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s", ca.PEM())
			return err
		},
	}
}

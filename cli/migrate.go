package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"mailsidecar/config"
	"mailsidecar/service"
)

func newQueueMigrate() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of a queue in PostgreSQL to this version",
		Long: `Makes the schema and its tables in the database that MAILSIDECAR_QUEUE names, or changes
them to what this version needs. Each start does so, too, where its role may: run it
before, as a role that may create tables, where the role of the servers may not. Instances
of the version before may run meanwhile.

Exit status: 0 done, or there was nothing to do; 1 the database cannot be used; 64 wrong
command line; 78 wrong configuration.`,
		Example: `  MAILSIDECAR_QUEUE_FILE=/run/secrets/owner-url mailsidecar queue migrate`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSettings(func(c config.Service) error {
				c.LogFormat = "text"
				from, to, err := service.MigrateStore(cmd.Context(), c, service.NewLogger(cmd.ErrOrStderr(), c))
				if err != nil {
					return err
				}
				if from == to {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: version %d, nothing to do\n", c.Queue, to)
				} else {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: version %d, was %d\n", c.Queue, to, from)
				}
				return err
			})
		},
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/proxy/admin"
)

func newTokenCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "token",
		Short: "Print the token of the admin API",
		Long: "Prints the admin token: for --token-file of the other verbs, for the page's login, and for scripts.\n" +
			"The token is read from the mirror's file (admin.token_file, else admin.token in the data folder), which\n" +
			"the mirror's user and root may read. No mirror is asked. In a container:\n\n" +
			"  docker compose exec imgmirror imgmirror token",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			path := cfg.AdminTokenFile()
			token, warnings, err := admin.FindToken(path)
			switch {
			case errors.Is(err, fs.ErrPermission):
				return failure.New("NotAllowed", "only the mirror's user and root may read %s: run the verb as one of them", path)
			case errors.Is(err, fs.ErrNotExist):
				return failure.New("NoToken", "%s does not exist: a mirror with admin.listen makes the file at its first start "+
					"(--data-dir, or data_dir and admin.token_file in the configuration)", path)
			case err != nil:
				return failure.New(failure.CodeFile, "%w", err)
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
}

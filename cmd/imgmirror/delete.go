package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

// removedTable shows the files that delete and vacuum took, or would take.
var removedTable = table[admin.Removed]{
	defaults: "sha1,size,reason,uuids",
	columns: []column[admin.Removed]{
		{"sha1", func(r admin.Removed) any { return r.SHA1 }},
		{"size", func(r admin.Removed) any { return size(r.Size) }},
		{"reason", func(r admin.Removed) any { return r.Reason }},
		{"uuids", func(r admin.Removed) any { return strings.Join(r.UUIDs, ",") }},
	},
}

func newDeleteCmd() *cobra.Command {
	return removeCmd(&cobra.Command{
		Use:   "delete {UUID|FILTER}...",
		Short: "Remove the files of images from the cache",
		Long: "Removes the files of images; those that their sources still list are fetched again when a client\n" +
			"asks. A pinned image is refused. A file that a client is reading is read to its end.\n\n" + filterHelp,
		Args:              wantedArgs,
		ValidArgsFunction: completeUUIDs(onDisk),
	}, func(ctx context.Context, s *session, args []string, dry bool) ([]admin.Removed, error) {
		wanted, err := readWanted(args)
		if err != nil {
			return nil, err
		}
		wanted.DryRun = dry
		return s.Delete(ctx, wanted)
	})
}

// removeCmd completes a verb that removes files and lists them.
func removeCmd(cmd *cobra.Command, do func(ctx context.Context, s *session, args []string, dry bool) ([]admin.Removed, error)) *cobra.Command {
	var dry, quiet bool
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "tell what would be removed")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	addServerFlags(cmd)
	flags := removedTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := removedTable.layout(flags)
		if err != nil {
			return err
		}
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			removed, err := do(ctx, s, args, dry)
			if err != nil || quiet && !dry {
				return err
			}
			return out.print(cmd.OutOrStdout(), removed, same)
		})
	}
	return cmd
}

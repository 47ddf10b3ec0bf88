package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

// itemTable shows the images of a job, or of what was done at once.
var itemTable = table[admin.Item]{
	defaults: "uuid,name,version,state,size",
	columns: []column[admin.Item]{
		{"uuid", func(i admin.Item) any { return i.UUID }},
		{"name", func(i admin.Item) any { return i.Name }},
		{"version", func(i admin.Item) any { return i.Version }},
		{"state", func(i admin.Item) any { return i.State }},
		{"size", func(i admin.Item) any { return size(i.Total) }},
	},
}

func newFetchCmd() *cobra.Command {
	var dry, quiet bool
	cmd := &cobra.Command{
		Use:   "fetch {UUID|FILTER}...",
		Short: "Pull images and their origins into the cache",
		Long: "Downloads the files of images, and of the images that they build on, before anyone asks for them.\n" +
			"Images are named by UUID, by filters, or both. What is on disk already is not fetched again; what\n" +
			"was interrupted goes on where it was.\n\n" + filterHelp,
		Args:              wantedArgs,
		ValidArgsFunction: completeUUIDs(offered),
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "tell what would be fetched")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print failures only")
	addServerFlags(cmd)
	flags := itemTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := readWanted(args)
		if err != nil {
			return err
		}
		out, err := itemTable.layout(flags)
		if err != nil {
			return err
		}
		n := needStore
		if dry {
			n = needLists
		}
		return withSession(cmd, n, func(ctx context.Context, s *session) error {
			if dry {
				items, err := s.FetchDry(ctx, wanted)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), items, same)
			}
			job, err := s.Fetch(ctx, wanted)
			if err != nil {
				return err
			}
			return following{
				session: s, quiet: quiet, json: flags.json,
				done: map[string]string{admin.JobDone: "fetched", admin.ItemPresent: "is here already"},
			}.follow(ctx, cmd, job)
		})
	}
	return cmd
}

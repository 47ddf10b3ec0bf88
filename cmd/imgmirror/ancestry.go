package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newAncestryCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "ancestry UUID",
		Short:             "List an image and the images that it builds on",
		Long:              "Lists an image, its origin, the origin of that, down to the root.",
		Args:              uuidArg,
		ValidArgsFunction: completeUUIDs(offered),
	}
	addServerFlags(cmd)
	flags := imageTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := parseUUID(args[0])
		if err != nil {
			return err
		}
		out, err := imageTable.layout(flags)
		if err != nil {
			return err
		}
		return withSession(cmd, needLists, func(ctx context.Context, s *session) error {
			images, err := s.Ancestry(ctx, id)
			if err != nil {
				return err
			}
			rows, err := imageRows(images)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), rows, imageRow.json)
		})
	}
	return cmd
}

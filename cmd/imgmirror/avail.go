package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newAvailCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "avail [FILTER...]",
		Short: "List the images that the mirror offers",
		Long:  "Lists the merged catalogue of all sources: what imgadm avail shows on a node.\n\n" + filterHelp,
		Args:  filterArgs,
	}
	addServerFlags(cmd)
	flags := imageTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := imageTable.layout(flags)
		if err != nil {
			return err
		}
		return withSession(cmd, needLists, func(ctx context.Context, s *session) error {
			images, err := s.Images(ctx, args...)
			if err != nil {
				return err
			}
			if err := warnOfSilence(ctx, s, cmd.ErrOrStderr()); err != nil {
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

// warnOfSilence names the sources whose images are missing because they have never answered.
func warnOfSilence(ctx context.Context, s *session, to io.Writer) error {
	sources, err := s.Sources(ctx)
	if err != nil {
		return err
	}
	for _, source := range sources {
		if source.LastSuccess == nil && source.LastError != "" {
			fmt.Fprintf(to, "warning: source %s has never answered: %s\n", source.Name, source.LastError)
		}
	}
	return nil
}

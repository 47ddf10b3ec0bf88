package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func newShowCmd() *cobra.Command {
	var sources bool
	cmd := &cobra.Command{
		Use:   "show UUID",
		Short: "Print the manifest of an image",
		Long: "Prints the manifest of an image as clients get it, also of one that no list shows. With --sources\n" +
			"it is an object: the manifest, the source that it is from, all sources that have the image's files,\n" +
			"whether the image is listed, cached and pinned here, and hidden: why clients are not shown it. Without\n" +
			"--sources the last is told on stderr.",
		Args:              uuidArg,
		ValidArgsFunction: completeUUIDs(offered),
	}
	cmd.Flags().BoolVar(&sources, "sources", false, "tell also where the image comes from")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := parseUUID(args[0])
		if err != nil {
			return err
		}
		return withSession(cmd, needLists, func(ctx context.Context, s *session) error {
			image, err := s.Image(ctx, id)
			if err != nil {
				return err
			}
			if sources {
				return printJSON(cmd.OutOrStdout(), image)
			}
			for _, h := range image.Hidden {
				fmt.Fprintf(cmd.ErrOrStderr(), "imgmirror show: image %s is not shown to clients: source %s: %s (%s)\n",
					id, h.Source, printable(h.Detail), h.Reason)
			}
			return printJSON(cmd.OutOrStdout(), image.Manifest)
		})
	}
	return cmd
}

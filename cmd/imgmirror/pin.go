package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

func newPinCmd() *cobra.Command {
	return pinCmd("pin", "Keep images from eviction",
		"Pins images: eviction, vacuum and delete leave their files, and those of the images that they build\n"+
			"on, alone. An image may be pinned before it is fetched. Pins by filter that hold for images to come\n"+
			"are set in the configuration (cache.pins).",
		"pinned", "was pinned already", needStore, (*admin.Client).Pin)
}

func newUnpinCmd() *cobra.Command {
	return pinCmd("unpin", "Let images be evicted again",
		"Takes back pins that the pin verb has set. Those of the configuration (cache.pins) stay.",
		"unpinned", "was not pinned", needFiles, (*admin.Client).Unpin)
}

// pinCmd is pin or unpin; already says how an image is that was so before.
func pinCmd(name, short, long, done, already string, n need, do func(*admin.Client, context.Context, admin.Wanted) ([]admin.Item, error)) *cobra.Command {
	var dry, quiet bool
	cmd := &cobra.Command{
		Use:               name + " {UUID|FILTER}...",
		Short:             short,
		Long:              long + "\n\n" + filterHelp,
		Args:              wantedArgs,
		ValidArgsFunction: completeUUIDs(offered),
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "tell what would be "+done)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		wanted, err := readWanted(args)
		if err != nil {
			return err
		}
		wanted.DryRun = dry
		return withSession(cmd, n, func(ctx context.Context, s *session) error {
			items, err := do(s.Client, ctx, wanted)
			if err != nil {
				return err
			}
			return following{
				quiet: quiet,
				done:  map[string]string{admin.JobDone: done, admin.ItemPresent: already},
			}.tellAll(cmd, items)
		})
	}
	return cmd
}

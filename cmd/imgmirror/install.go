package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/proxy/admin"
)

// takeOutLimit is how long a mirror may take to get an image that was half
// received out of its pool again.
const takeOutLimit = 2 * time.Minute

// installOptions are the options of install.
type installOptions struct {
	pool, from        string
	dry, quiet, stage bool
}

func newInstallCmd() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install {UUID|FILTER}...",
		Short: "Put images and their origins into the local zpool",
		Long: "Installs images, and the images that they build on, as imgadm does: \"imgadm list\" has them, and\n" +
			"\"vmadm create\" finds them. What is not in the cache is received while it is downloaded; what is\n" +
			"installed already stays as it is. An image that fails leaves the pool as it was.\n\n" +
			"With --stage the files are put where imgadm looks for them before it downloads, and no pool is\n" +
			"touched: imgadm then imports from there. With --from the images come from another mirror, straight\n" +
			"into the pool: no data folder, no mirror on this machine, is needed for that.\n\n" + filterHelp,
		Example: "  imgmirror install name=base-64-lts version=24.4.0\n" +
			"  imgmirror install --from http://mirror:8080 7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73",
		Args:              wantedArgs,
		ValidArgsFunction: completeUUIDs(offered),
	}
	f := cmd.Flags()
	f.StringVarP(&o.pool, "pool", "P", "", "`POOL` to install into (default: zfsimport.pool)")
	f.StringVar(&o.from, "from", "", "`URL` of a mirror to take images from, instead of the mirror on this machine")
	f.BoolVar(&o.stage, "stage", false, "put the files where imgadm finds them, and install nothing")
	f.BoolVarP(&o.dry, "dry-run", "n", false, "tell what would be installed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print failures only")
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
		if err := o.check(cmd); err != nil {
			return err
		}
		if o.from != "" {
			return installFrom(cmd, o, wanted, out)
		}
		request := admin.Install{UUIDs: wanted.UUIDs, Filters: wanted.Filters, Pool: o.pool, Stage: o.stage}
		n := needStore
		if o.dry {
			n = needLists
		}
		return withSession(cmd, n, func(ctx context.Context, s *session) error {
			if o.dry {
				items, err := s.InstallDry(ctx, request)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), items, same)
			}
			job, err := s.Install(ctx, request)
			if err != nil {
				return err
			}
			return o.following(s, flags.json).follow(ctx, cmd, job)
		})
	}
	return cmd
}

// check finds options that make no sense together.
func (o installOptions) check(cmd *cobra.Command) error {
	if o.stage && o.pool != "" {
		return failure.Usage("--stage touches no pool: leave --pool out")
	}
	if o.from == "" {
		return nil
	}
	for _, name := range []string{"server", "token-file"} {
		if cmd.Flags().Changed(name) {
			return failure.Usage("--from installs on this machine: leave --%s out", name)
		}
	}
	return nil
}

// following tells how images fare; s may be nil.
func (o installOptions) following(s *session, asJSON bool) following {
	f := following{
		session: s, quiet: o.quiet, json: asJSON, cancelLimit: takeOutLimit,
		done: map[string]string{
			admin.JobDone: "installed", admin.ItemPresent: "is installed already",
			admin.ItemRepaired: "is installed already, and is in imgadm's records again",
		},
	}
	if o.stage {
		f.done = map[string]string{admin.JobDone: "staged", admin.ItemPresent: "is staged already"}
	}
	return f
}

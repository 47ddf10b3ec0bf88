package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

var cachedTable = table.New("uuid,name,version,os,size,used,pinned",
	table.Field("uuid", func(c admin.Cached) any { return c.UUID }),
	table.Field("name", func(c admin.Cached) any { return c.Name }),
	table.Field("version", func(c admin.Cached) any { return c.Version }),
	table.Field("os", func(c admin.Cached) any { return c.OS }),
	table.Field("type", func(c admin.Cached) any { return c.Type }),
	table.Field("size", func(c admin.Cached) any { return table.Size(c.Size) }),
	table.Field("used", func(c admin.Cached) any { return c.LastUsed }),
	table.Field("added", func(c admin.Cached) any { return c.Added }),
	table.Field("pinned", func(c admin.Cached) any { return c.Pinned }),
	table.Field("in_use", func(c admin.Cached) any { return c.InUse }),
	table.Field("retired", func(c admin.Cached) any { return c.Retired }),
	table.Field("origin", func(c admin.Cached) any { return c.Origin }),
	table.Field("source", func(c admin.Cached) any { return c.Source }),
	table.Field("sha1", func(c admin.Cached) any { return c.SHA1 }),
)

func newListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [FILTER...]",
		Short: "List the images whose files are on disk",
		Long: "Lists the images whose files are on disk: their size, when they were last used, and whether they\n" +
			"are pinned. Downloads under way are not in the list: a line on stderr counts them, and fills lists them.\n\n" + filterHelp,
		Args: filterArgs,
	}
	quiet := addQuietFlag(cmd)
	return tableVerb(cmd, cachedTable, needFiles, " among those on disk", func(ctx context.Context, s *session, args []string) ([]admin.Cached, error) {
		cached, err := s.Cached(ctx, args...)
		if err != nil || *quiet {
			return cached, err
		}
		fills, err := s.Fills(ctx)
		switch len(fills) {
		case 0:
		case 1:
			fmt.Fprintln(cmd.ErrOrStderr(), "1 download is under way: see imgmirror fills")
		default:
			fmt.Fprintf(cmd.ErrOrStderr(), "%d downloads are under way: see imgmirror fills\n", len(fills))
		}
		return cached, err
	})
}

// itemTable shows the images of a job, or of what was done at once.
var itemTable = table.New("uuid,name,version,state,size",
	table.Field("uuid", func(i admin.Item) any { return i.UUID }),
	table.Field("name", func(i admin.Item) any { return i.Name }),
	table.Field("version", func(i admin.Item) any { return i.Version }),
	table.Field("state", func(i admin.Item) any { return i.State }),
	table.Field("done", func(i admin.Item) any { return table.Size(i.Done) }),
	table.Field("size", func(i admin.Item) any { return table.Size(i.Total) }),
	table.Field("error", func(i admin.Item) any { return errorText(i.Error) }),
)

// fetched is how the images of a fetch are told of.
var fetched = map[string]string{admin.JobDone: "fetched", admin.ItemPresent: "is here already"}

func newFetchCmd() *cobra.Command {
	var wanted admin.Wanted
	var dry, quiet bool
	cmd := &cobra.Command{
		Use:   "fetch {UUID|FILTER}...",
		Short: "Pull images and their origins into the cache",
		Long: "Downloads the files of images, and of the images that they build on, before anyone asks for them.\n" +
			"Images are named by UUID, by filters, or both. What is on disk already is not fetched again; what\n" +
			"was interrupted goes on where it was.\n\n" + filterHelp,
		Args:              wantedArgs(&wanted),
		ValidArgsFunction: completeFrom(offered),
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "tell what would be fetched")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print failures only")
	addServerFlags(cmd)
	itemTable.Run(cmd, func(cmd *cobra.Command, _ []string, out table.Layout[admin.Item]) error {
		if dry {
			return withTable(cmd, out, needLists, func(ctx context.Context, s *session) ([]admin.Item, error) { return s.FetchDry(ctx, wanted) })
		}
		return withJob(cmd, needStore, progress.Following{Quiet: quiet, JSON: out.JSON, Done: fetched},
			func(ctx context.Context, s *session) (admin.Job, error) {
				if err := warnOfSilence(ctx, s, cmd, quiet || len(wanted.Filters) == 0); err != nil {
					return admin.Job{}, err
				}
				return s.Fetch(ctx, wanted)
			})
	})
	return cmd
}

func newVerifyCmd() *cobra.Command {
	var wanted admin.Wanted
	f := progress.Following{Done: map[string]string{
		admin.JobDone: "ok", admin.ItemHealed: "was wrong, healed", admin.ItemRestored: "was gone, brought anew",
	}}
	cmd := &cobra.Command{
		Use:   "verify [UUID|FILTER]...",
		Short: "Hash what is on disk again, now",
		Long: "Reads the files of images, of all cached ones when none is named, and compares them with their sums.\n" +
			"A wrong file is moved to the quarantine folder; it, or one that is gone, is fetched again from a\n" +
			"source that has it. When there is none, the verb fails.\n\n" + filterHelp,
		Args:              optionalArgs(&wanted),
		ValidArgsFunction: completeFrom(onDisk),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withJob(cmd, needFiles, f, func(ctx context.Context, s *session) (admin.Job, error) { return s.Verify(ctx, wanted) })
		},
	}
	cmd.Flags().BoolVarP(&f.Quiet, "quiet", "q", false, "print failures only")
	cmd.Flags().BoolVarP(&f.JSON, "json", "j", false, "print JSON: the job at its end")
	addServerFlags(cmd)
	return cmd
}

func newPinCmd() *cobra.Command {
	return pinVerb("pin", "Keep images from eviction",
		"Pins images: eviction, vacuum and delete leave their files, and those of the images that they build\n"+
			"on, alone. An image may be pinned before it is fetched. Pins by filter that hold for images to come\n"+
			"are set in the configuration (cache.pins).",
		"pinned", "was pinned already", needStore, (*admin.Client).Pin)
}

func newUnpinCmd() *cobra.Command {
	return pinVerb("unpin", "Let images be evicted again",
		"Takes back pins that the pin verb has set. Those of the configuration (cache.pins) stay.",
		"unpinned", "was not pinned", needFiles, (*admin.Client).Unpin)
}

// pinVerb is pin or unpin; already says how an image is that was so before.
func pinVerb(name, short, long, done, already string, n need, do func(*admin.Client, context.Context, admin.Wanted) ([]admin.Item, error)) *cobra.Command {
	var wanted admin.Wanted
	f := progress.Following{Done: map[string]string{admin.JobDone: done, admin.ItemPresent: already}}
	cmd := &cobra.Command{
		Use:               name + " {UUID|FILTER}...",
		Short:             short,
		Long:              long + "\n\n" + filterHelp,
		Args:              wantedArgs(&wanted),
		ValidArgsFunction: completeFrom(offered),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSession(cmd, n, func(ctx context.Context, s *session) error {
				items, err := do(s.Client, ctx, wanted)
				if err != nil {
					return err
				}
				return f.TellAll(cmd, items)
			})
		},
	}
	cmd.Flags().BoolVarP(&wanted.DryRun, "dry-run", "n", false, "tell what would be "+done)
	cmd.Flags().BoolVarP(&f.Quiet, "quiet", "q", false, "print nothing")
	addServerFlags(cmd)
	return cmd
}

// removedTable shows the files that were taken, or would be taken.
var removedTable = table.New("sha1,size,reason,uuids",
	table.Field("sha1", func(r admin.Removed) any { return r.SHA1 }),
	table.Field("size", func(r admin.Removed) any { return table.Size(r.Size) }),
	table.Field("reason", func(r admin.Removed) any { return r.Reason }),
	table.Field("uuids", func(r admin.Removed) any { return strings.Join(r.UUIDs, ",") }),
)

func newDeleteCmd() *cobra.Command {
	var wanted admin.Wanted
	cmd := &cobra.Command{
		Use:   "delete {UUID|FILTER}...",
		Short: "Remove the files of images from the cache",
		Long: "Removes the files of images; those that their sources still list are fetched again when a client\n" +
			"asks. A pinned image is refused. A file that a client is reading is read to its end.\n\n" + filterHelp,
		Args:              wantedArgs(&wanted),
		ValidArgsFunction: completeFrom(onDisk),
	}
	cmd.Flags().BoolVarP(&wanted.DryRun, "dry-run", "n", false, "tell what would be removed")
	return removeVerb(cmd, &wanted.DryRun, func(ctx context.Context, s *session) ([]admin.Removed, error) { return s.Delete(ctx, wanted) })
}

func newVacuumCmd() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "vacuum",
		Short: "Evict now what the limits ask for",
		Long: "Removes the files that eviction would remove by now to keep cache.max_size and cache.min_free:\n" +
			"those that were not used for the longest time, never one that is pinned or being read, and no\n" +
			"origin before its children. With -n it tells what it would remove.",
		Args: noArgs,
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "tell what would be removed")
	return removeVerb(cmd, &dry, func(ctx context.Context, s *session) ([]admin.Removed, error) { return s.Vacuum(ctx, dry) })
}

// removeVerb completes a verb that removes files and lists them; dry tells that nothing is
// removed, and that the list is what the verb is for.
func removeVerb(cmd *cobra.Command, dry *bool, do func(context.Context, *session) ([]admin.Removed, error)) *cobra.Command {
	var quiet bool
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	addServerFlags(cmd)
	removedTable.Run(cmd, func(cmd *cobra.Command, _ []string, out table.Layout[admin.Removed]) error {
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			removed, err := do(ctx, s)
			if err != nil || quiet && !*dry {
				return err
			}
			return out.Print(cmd.OutOrStdout(), removed)
		})
	})
	return cmd
}

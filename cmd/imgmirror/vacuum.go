package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

func newVacuumCmd() *cobra.Command {
	return removeCmd(&cobra.Command{
		Use:   "vacuum",
		Short: "Evict now what the limits ask for",
		Long: "Removes the files that eviction would remove by now to keep cache.max_size and cache.min_free:\n" +
			"those that were not used for the longest time, never one that is pinned or being read, and no\n" +
			"origin before its children. With -n it tells what it would remove.",
		Args: noArgs,
	}, func(ctx context.Context, s *session, _ []string, dry bool) ([]admin.Removed, error) {
		return s.Vacuum(ctx, dry)
	})
}

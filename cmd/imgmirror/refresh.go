package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/meaning"
)

// refreshWait is how many seconds the list of a source may take: what a mirror itself grants, and some.
const refreshWait = 130

// refreshTable shows what sources have told.
var refreshTable = table.New("name,images,added,removed,changed,took,result",
	table.Field("name", func(s admin.Source) any { return s.Name }),
	table.Field("url", func(s admin.Source) any { return s.URL }),
	table.Field("kind", func(s admin.Source) any { return s.Kind }),
	table.Field("images", func(s admin.Source) any { return s.Images }),
	table.Field("added", func(s admin.Source) any { return checkOf(s).Added }),
	table.Field("removed", func(s admin.Source) any { return checkOf(s).Removed }),
	table.Field("changed", func(s admin.Source) any { return checkOf(s).Changed }),
	table.Field("took", func(s admin.Source) any { return tookText(s.Check) }),
	table.Field("result", func(s admin.Source) any { return checkText(s) }),
)

func checkOf(s admin.Source) admin.Check {
	if s.Check == nil {
		return admin.Check{}
	}
	return *s.Check
}

func newRefreshCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "refresh [SOURCE...]",
		Short: "Take in the lists of the sources now",
		Long: "Asks the sources, all or the ones that are named, for their lists just now, takes the lists over, and tells\n" +
			"how many images each list has, and how many of them are added, removed and changed since the list before.\n" +
			"A source that fails keeps its list, and makes the verb fail. Running downloads go on.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeFrom(sourceNames),
	}
	addServerFlags(cmd)
	refreshTable.Run(cmd, func(cmd *cobra.Command, names []string, out table.Layout[admin.Source]) error {
		return withSession(cmd, needCheck, func(ctx context.Context, s *session) error {
			if err := knownSources(ctx, s, names); err != nil {
				return err
			}
			sources, err := s.Check(ctx, admin.Which{Sources: names, Wait: refreshWait})
			if err != nil {
				return err
			}
			return errors.Join(out.Print(cmd.OutOrStdout(), sources), failedChecks(sources))
		})
	})
	return cmd
}

// knownSources refuses names that no source has.
func knownSources(ctx context.Context, s *session, names []string) error {
	if len(names) == 0 {
		return nil
	}
	sources, err := s.Sources(ctx)
	if err != nil {
		return err
	}
	known := make([]string, len(sources))
	for i, source := range sources {
		known[i] = source.Name
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return failure.New(meaning.NotFound, "%s", table.Unknown("source", name, known))
		}
	}
	return nil
}

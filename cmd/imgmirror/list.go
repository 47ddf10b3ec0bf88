package main

import (
	"context"

	"github.com/spf13/cobra"

	"imgmirror/proxy/admin"
)

var cachedTable = table[admin.Cached]{
	defaults: "uuid,name,version,os,size,used,pinned",
	columns: []column[admin.Cached]{
		{"uuid", func(c admin.Cached) any { return c.UUID }},
		{"name", func(c admin.Cached) any { return c.Name }},
		{"version", func(c admin.Cached) any { return c.Version }},
		{"os", func(c admin.Cached) any { return c.OS }},
		{"type", func(c admin.Cached) any { return c.Type }},
		{"size", func(c admin.Cached) any { return size(c.Size) }},
		{"used", func(c admin.Cached) any { return c.LastUsed }},
		{"added", func(c admin.Cached) any { return c.Added }},
		{"pinned", func(c admin.Cached) any { return c.Pinned }},
		{"in_use", func(c admin.Cached) any { return c.InUse }},
		{"retired", func(c admin.Cached) any { return c.Retired }},
		{"origin", func(c admin.Cached) any { return c.Origin }},
		{"source", func(c admin.Cached) any { return c.Source }},
		{"sha1", func(c admin.Cached) any { return c.SHA1 }},
	},
}

func newListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [FILTER...]",
		Short: "List the images whose files are on disk",
		Long: "Lists the images whose files are on disk: their size, when they were last used, and whether they\n" +
			"are pinned.\n\n" + filterHelp,
		Args: filterArgs,
	}
	addServerFlags(cmd)
	flags := cachedTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := cachedTable.layout(flags)
		if err != nil {
			return err
		}
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			cached, err := s.Cached(ctx, args...)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), cached, same)
		})
	}
	return cmd
}

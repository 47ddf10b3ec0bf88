package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

// fillTable shows downloads under way.
var fillTable = table.New("uuid,name,size,have,percent,rate,eta,readers,source,state",
	table.Field("uuid", func(f admin.Fill) any { return f.UUID }),
	table.Field("name", func(f admin.Fill) any { return f.Name }),
	table.Field("version", func(f admin.Fill) any { return f.Version }),
	table.Field("size", func(f admin.Fill) any { return table.Size(f.Size) }),
	table.Field("have", func(f admin.Fill) any { return table.Size(f.Have) }),
	table.Field("percent", func(f admin.Fill) any { return table.Share(f.Have, f.Size) }),
	table.Field("rate", func(f admin.Fill) any { return table.Rate(f.Rate) }),
	table.Field("eta", func(f admin.Fill) any { return time.Duration(f.ETA) * time.Second }),
	table.Field("readers", func(f admin.Fill) any { return f.Readers }),
	table.Field("source", func(f admin.Fill) any { return f.Source }),
	table.Field("state", func(f admin.Fill) any { return f.State }),
	table.Field("sha1", func(f admin.Fill) any { return f.SHA1 }),
)

// watchedFillFields are the defaults with -w: a line of a terminal.
const watchedFillFields = "name,percent,have,size,rate,eta,readers,source,state"

func newFillsCmd() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "fills",
		Short: "List the downloads under way",
		Long: "Lists the downloads of the mirror that runs: how much has come, at which rate, who reads along, and from\n" +
			"which source the bytes come. The state is waiting (for a slot), filling, or verifying. With -w the list\n" +
			"follows the downloads until Ctrl-C, with the fields " + watchedFillFields + " unless -o names\n" +
			"others; with -w -j each change is a line of JSON.",
		Args: noArgs,
	}
	addWatchFlag(cmd, &watch, "follow the downloads until Ctrl-C")
	addServerFlags(cmd)
	flags := fillTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if watch && !cmd.Flags().Changed("output") {
			flags.Fields = watchedFillFields
		}
		out, err := fillTable.Layout(flags)
		if err != nil {
			return err
		}
		return withRunning(cmd, func(ctx context.Context, s *session) error {
			return printRows(ctx, cmd, out, watch, s.Fills)
		})
	}
	return cmd
}

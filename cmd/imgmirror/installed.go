package main

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"imgmirror/config"
	"imgmirror/proxy/admin"
	"imgmirror/zfsimport"
)

// installedRow is an image in a pool as a row.
type installedRow struct {
	admin.Installed
	m shown // zero without a record
}

// installedTable shows images as "imgadm list" does.
var installedTable = table[installedRow]{
	defaults: "uuid,name,version,os,type,pub",
	columns: []column[installedRow]{
		{"uuid", func(r installedRow) any { return r.UUID }},
		{"name", func(r installedRow) any { return r.m.Name }},
		{"version", func(r installedRow) any { return r.m.Version }},
		{"os", func(r installedRow) any { return r.m.OS }},
		{"type", func(r installedRow) any { return r.m.Type }},
		{"pub", func(r installedRow) any { day, _, _ := strings.Cut(r.m.PublishedAt, "T"); return day }},
		{"published", func(r installedRow) any { return r.m.PublishedAt }},
		{"state", func(r installedRow) any { return r.m.State }},
		{"owner", func(r installedRow) any { return r.m.Owner }},
		{"public", func(r installedRow) any { return r.m.Public }},
		{"origin", func(r installedRow) any { return r.Origin }},
		{"used", func(r installedRow) any { return size(r.Used) }},
		{"clones", func(r installedRow) any { return r.Clones }},
		{"zpool", func(r installedRow) any { return r.Pool }},
		{"dataset", func(r installedRow) any { return r.Dataset }},
		{"snapshot", func(r installedRow) any { return r.Snapshot }},
		{"source", func(r installedRow) any { return r.Source }},
		{"record", func(r installedRow) any { return r.Record }},
	},
}

func (r installedRow) json() any { return r.Installed }

func newInstalledCmd() *cobra.Command {
	var pool string
	cmd := &cobra.Command{
		Use:   "installed",
		Short: "List the images in the local zpool",
		Long: "Lists the images in the local zpool, whoever put them there. ZFS tells which ones there are; what\n" +
			"they are called is in imgadm's records, and an image without one shows \"-\".",
		Args: noArgs,
	}
	cmd.Flags().StringVarP(&pool, "pool", "P", "", "`POOL` to look into (default: zfsimport.pool)")
	addServerFlags(cmd)
	flags := installedTable.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out, err := installedTable.layout(flags)
		if err != nil {
			return err
		}
		all, err := installed(cmd, pool)
		if err != nil {
			return err
		}
		rows := make([]installedRow, len(all))
		for i, image := range all {
			rows[i].Installed = image
			if image.Manifest == nil {
				continue
			}
			if err := json.Unmarshal(jsontext.Value(image.Manifest), &rows[i].m, jsonAsSent); err != nil {
				return fmt.Errorf("imgadm's record of %s: %w", image.UUID, err)
			}
		}
		return out.print(cmd.OutOrStdout(), rows, installedRow.json)
	}
	return cmd
}

// installed asks the mirror; when none runs on the data folder, which has nothing
// to do with pools, it looks for itself.
func installed(cmd *cobra.Command, pool string) ([]admin.Installed, error) {
	s, cfg, err := connectRunning(cmd)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		defer s.close() //nolint:errcheck // drops idle connections
		return s.Installed(cmd.Context(), pool)
	}
	importer, err := zfsimport.New(zfsOptions(cfg))
	if err != nil {
		return nil, err
	}
	return installer{Importer: importer}.Installed(cmd.Context(), pool)
}

// connectRunning finds the mirror that cmd is meant for, if it runs: else there
// is no session, but the configuration.
func connectRunning(cmd *cobra.Command) (*session, *config.Config, error) {
	server, err := cmd.Flags().GetString("server")
	if err != nil {
		return nil, nil, err
	}
	if server != "" {
		s, err := connect(cmd, needFiles)
		return s, nil, err
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	s, err := connectSocket(cmd.Context(), cfg)
	return s, cfg, err
}

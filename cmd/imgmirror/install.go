package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
	"imgmirror/zfsimport"
)

// takeOutLimit is how long a mirror may take to get an image that was half
// received out of its pool again.
const takeOutLimit = 2 * time.Minute

// installOptions are the options of install.
type installOptions struct {
	pool, from        string
	manifest, file    string
	dry, quiet, stage bool
}

func newInstallCmd() *cobra.Command {
	var o installOptions
	var wanted admin.Wanted
	cmd := &cobra.Command{
		Use:   "install {UUID|FILTER}... | install -m MANIFEST -f FILE",
		Short: "Put images and their origins into the local zpool",
		Long: "Installs images, and the images that they build on, as imgadm does: \"imgadm list\" has them, and\n" +
			"\"vmadm create\" finds them. What is not in the cache is received while it is downloaded; what is\n" +
			"installed already stays as it is. An image that fails leaves the pool as it was.\n\n" +
			"With --stage the files are put where imgadm looks for them before it downloads, and no pool is\n" +
			"touched: imgadm then imports from there. With --from the images come from another mirror, straight\n" +
			"into the pool: no data folder, no mirror on this machine, is needed for that.\n\n" +
			"With -m and -f an image of two files on this machine is installed, as \"imgadm install\" does it; no\n" +
			"mirror is needed. The file must have the sha1 and the size of the manifest. The image's origin must be\n" +
			"in the pool.\n\n" + filterHelp,
		Example: "  imgmirror install name=base-64-lts version=24.4.0\n" +
			"  imgmirror install --from http://mirror:8080 7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73\n" +
			"  imgmirror install --from http://mirror:8080 --stage name=base-64-lts version=24.4.0\n" +
			"  imgmirror install -m mine.json -f mine.zfs.gz",
		Args: func(cmd *cobra.Command, args []string) error {
			if o.manifest == "" && o.file == "" {
				return wantedArgs(&wanted)(cmd, args)
			}
			return noArgs(cmd, args)
		},
		ValidArgsFunction: completeFrom(offered),
	}
	f := cmd.Flags()
	f.StringVarP(&o.pool, "pool", "P", "", "`POOL` to install into (default: zfsimport.pool)")
	f.StringVar(&o.from, "from", "", "`URL` of a mirror to take images from, instead of the mirror on this machine")
	f.StringVarP(&o.manifest, "manifest", "m", "", "`MANIFEST` of an image on this machine, JSON (\"-\" = standard input); with --file")
	f.StringVarP(&o.file, "file", "f", "", "`FILE` of the image of --manifest")
	f.BoolVar(&o.stage, "stage", false, "put the files into /var/tmp/.imgadm-downloads, where imgadm finds them, and install nothing")
	f.BoolVarP(&o.dry, "dry-run", "n", false, "tell what would be installed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print failures only")
	addServerFlags(cmd)
	itemTable.Run(cmd, func(cmd *cobra.Command, _ []string, out table.Layout[admin.Item]) error {
		if err := o.check(cmd); err != nil {
			return err
		}
		if o.manifest != "" {
			return installPair(cmd, o, out)
		}
		if o.from != "" {
			return installFrom(cmd, o, wanted, out)
		}
		request := admin.Install{Wanted: wanted, Pool: o.pool, Stage: o.stage}
		if o.dry {
			return withTable(cmd, out, needLists, func(ctx context.Context, s *session) ([]admin.Item, error) { return s.InstallDry(ctx, request) })
		}
		return withJob(cmd, needStore, o.following(out.JSON),
			func(ctx context.Context, s *session) (admin.Job, error) { return s.Install(ctx, request) })
	})
	return cmd
}

// check finds options that make no sense together.
func (o installOptions) check(cmd *cobra.Command) error {
	if o.stage && o.pool != "" {
		return failure.Usage("--stage touches no pool: leave --pool out")
	}
	if o.manifest != "" || o.file != "" {
		if err := needFlags(cmd, "manifest", "file"); err != nil {
			return err
		}
		for _, name := range []string{"from", "stage", "server", "token-file"} {
			if cmd.Flags().Changed(name) {
				return failure.Usage("--manifest and --file are files of this machine, for its pool: leave --%s out", name)
			}
		}
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

// following tells how images fare.
func (o installOptions) following(asJSON bool) progress.Following {
	f := progress.Following{
		Quiet: o.quiet, JSON: asJSON, CancelLimit: takeOutLimit,
		Done: map[string]string{
			admin.JobDone: "installed", admin.ItemPresent: "is installed already",
			admin.ItemRepaired: "is installed already, and is in imgadm's records again",
		},
	}
	if o.stage {
		f.Done = map[string]string{admin.JobDone: "staged", admin.ItemPresent: "is staged already"}
	}
	return f
}

// installedRow is an image in a pool as a row.
type installedRow struct {
	admin.Installed
	m shown // zero without a record
}

// installedTable shows images as "imgadm list" does.
var installedTable = table.New("uuid,name,version,os,type,pub", slices.Concat(
	shownFields(func(r installedRow) (string, shown) { return r.UUID, r.m }),
	[]table.Column[installedRow]{
		table.Field("origin", func(r installedRow) any { return r.Origin }),
		table.Field("used", func(r installedRow) any { return table.Size(r.Used) }),
		table.Field("clones", func(r installedRow) any { return r.Clones }),
		table.Field("zpool", func(r installedRow) any { return r.Pool }),
		table.Field("dataset", func(r installedRow) any { return r.Dataset }),
		table.Field("snapshot", func(r installedRow) any { return r.Snapshot }),
		table.Field("source", func(r installedRow) any { return r.Source }),
		table.Field("record", func(r installedRow) any { return r.Record }),
	})...)

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
	installedTable.Run(cmd, func(cmd *cobra.Command, _ []string, out table.Layout[installedRow]) error {
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
			if err := json.Unmarshal(jsontext.Value(image.Manifest), &rows[i].m, table.AsSent); err != nil {
				return fmt.Errorf("imgadm's record of %s: %w", image.UUID, err)
			}
		}
		return out.Print(cmd.OutOrStdout(), rows)
	})
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
	all, err := importer.Installed(cmd.Context(), pool)
	if err != nil {
		return nil, admin.InstallError(err)
	}
	return admin.InstalledOf(all), nil
}

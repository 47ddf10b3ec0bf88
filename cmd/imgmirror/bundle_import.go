package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

// importedTable shows what became of the images of bundles.
var importedTable = table.New("uuid,name,version,size,state,reason",
	table.Field("uuid", func(i admin.ImportedImage) any { return i.UUID }),
	table.Field("name", func(i admin.ImportedImage) any { return i.Name }),
	table.Field("version", func(i admin.ImportedImage) any { return i.Version }),
	table.Field("size", func(i admin.ImportedImage) any { return table.Size(i.Size) }),
	table.Field("state", func(i admin.ImportedImage) any { return i.State }),
	table.Field("reason", func(i admin.ImportedImage) any {
		if i.Error == nil {
			return ""
		}
		return i.Error.Message
	}),
)

func newBundleImportCmd() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "import FILE|FOLDER...",
		Short: "Take in the images of a bundle",
		Long: "Takes in the images of bundles, the volumes of one in any order, by the same door as a download:\n" +
			"each file is on disk, and known to be right, before its image is listed. What is here already is\n" +
			"passed over, and what was interrupted goes on where it was when the same command is given again.\n" +
			"A bundle whose signature is not good enough (bundle.trusted_keys, bundle.require_signature), or that\n" +
			"needs images which are not here, is refused as a whole. An image is refused alone when its file is\n" +
			"damaged, or the mirror has it with other files. \"-\" is standard input.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return failure.Usage("want bundles to import")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print failures only")
	addServerFlags(cmd)
	flags := importedTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		out, err := importedTable.Layout(flags)
		if err != nil {
			return err
		}
		volumes, err := findVolumes(args)
		if err != nil {
			return err
		}
		return withSession(cmd, needNewStore, func(ctx context.Context, s *session) error {
			in := &importRun{s: s, show: progress.New(cmd.ErrOrStderr(), quiet), added: make(map[string]bool)}
			err := in.all(ctx, cmd.InOrStdin(), volumes)
			if !quiet && len(in.reports) > 0 {
				if flags.JSON {
					err = errors.Join(err, table.JSON(cmd.OutOrStdout(), in.reports))
				} else {
					err = errors.Join(err, out.Print(cmd.OutOrStdout(), in.images()))
				}
			}
			return in.outcome(err)
		})
	}
	return cmd
}

// volume is one volume of a bundle; without a medium it comes on standard input.
type volume struct {
	path   string
	medium *bundle.Media
	number int
}

// findVolumes looks at what is to be imported, and puts it in order: a bundle before
// the deltas that leave its images out, and volumes by their numbers.
func findVolumes(paths []string) ([]volume, error) {
	var all []volume
	for _, path := range paths {
		if path == "-" {
			if len(paths) > 1 {
				return nil, failure.Usage("standard input can only be imported alone")
			}
			return []volume{{path: path}}, nil
		}
		medium, err := openBundle(path)
		if err != nil {
			return nil, err
		}
		for _, n := range medium.Volumes {
			all = append(all, volume{path, medium, n})
		}
	}
	inOrder(all)
	return all, nil
}

func inOrder(all []volume) {
	indexes := make(map[uuid.UUID]bundle.Index)
	for _, v := range all {
		indexes[v.medium.Index.ID] = v.medium.Index
	}
	ordered := slices.Collect(maps.Values(indexes))
	bundle.Order(ordered)
	place := make(map[uuid.UUID]int, len(ordered))
	for i, x := range ordered {
		place[x.ID] = i
	}
	slices.SortStableFunc(all, func(a, b volume) int {
		return cmp.Or(cmp.Compare(place[a.medium.Index.ID], place[b.medium.Index.ID]), cmp.Compare(a.number, b.number))
	})
}

// importRun is the import of some volumes.
type importRun struct {
	s       *session
	show    *progress.Bars
	reports []admin.BundleImport // the last one of each bundle
	added   map[string]bool      // uuids, in whatever volume
}

// all imports all volumes; of a bundle that is refused no other one is tried.
func (in *importRun) all(ctx context.Context, stdin io.Reader, volumes []volume) error {
	for _, v := range volumes {
		report, err := in.one(ctx, stdin, v)
		in.show.Clear()
		if ctx.Err() != nil && err != nil {
			return failure.New(failure.CodeInterrupted, "interrupted; what has arrived is kept, and the same command goes on from there")
		}
		if err != nil {
			told := failure.Of(err)
			report.Error = &admin.Error{Code: told.Code, Message: told.Error()}
		}
		if report.ID != "" {
			in.note(report)
		}
		if report.Error != nil {
			return inBundle(v.path, report.Error)
		}
	}
	return nil
}

// inBundle tells which bundle an error is about.
func inBundle(path string, err error) error {
	if path == "-" {
		path = "standard input"
	}
	e := failure.Of(err)
	return failure.New(e.Code, "%s: %w", path, e.Err)
}

func (in *importRun) one(ctx context.Context, stdin io.Reader, v volume) (admin.BundleImport, error) {
	name, r := "standard input", stdin
	if v.medium != nil {
		volume, err := v.medium.Volume(v.number)
		if err != nil {
			return admin.BundleImport{}, err
		}
		defer volume.Close()
		name, r = filepath.Base(v.path), volume
		if of := v.medium.Index.Volumes; of > 1 {
			name = fmt.Sprintf("%s (%d of %d)", name, v.number, of)
		}
	}
	return in.s.ImportBundle(ctx, r, func(sent, total int64) { in.show.Tick(progress.Transfer(name, sent, total)) })
}

// note keeps what has been reported last of each bundle.
func (in *importRun) note(report admin.BundleImport) {
	report.ID = "" // of an import that has ended
	for i := range report.Images {
		image := &report.Images[i]
		switch {
		case image.State == admin.ImageAdded:
			in.added[image.UUID] = true
		case image.State == admin.ImagePresent && in.added[image.UUID]:
			image.State = admin.ImageAdded // by an earlier volume
		}
	}
	if n := len(in.reports); n > 0 && in.reports[n-1].Bundle == report.Bundle {
		report.KeepRefusals(in.reports[n-1])
		in.reports[n-1] = report
		return
	}
	in.reports = append(in.reports, report)
}

func (in *importRun) images() []admin.ImportedImage {
	var all []admin.ImportedImage
	for _, r := range in.reports {
		all = append(all, r.Images...)
	}
	return all
}

// outcome is the verb's error: err, or that of the images that were refused.
func (in *importRun) outcome(err error) error {
	if err != nil {
		return err
	}
	refused := 0
	var first *admin.Error
	all := in.images()
	for _, i := range all {
		if i.State != admin.ImageRefused {
			continue
		}
		if refused++; first == nil {
			first = i.Error
		}
	}
	if first == nil {
		return nil
	}
	return failure.New(first.Code, "%d of %d images were refused: %s", refused, len(all), first.Message)
}

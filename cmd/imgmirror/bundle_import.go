package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

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
		return withSession(cmd, needStore, func(ctx context.Context, s *session) error {
			in := &importRun{s: s, show: progress.New(cmd.ErrOrStderr(), quiet)}
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
	in.added = make(map[string]bool)
	for _, v := range volumes {
		report, err := in.one(ctx, stdin, v)
		in.show.Clear()
		if err != nil {
			if ctx.Err() != nil {
				return failure.New(failure.CodeInterrupted, "interrupted; what has arrived is kept, and the same command goes on from there")
			}
			return inBundle(v.path, err)
		}
		in.note(report)
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
	if v.medium == nil {
		return in.s.ImportBundle(ctx, stdin, -1, nil)
	}
	h, err := v.medium.Head(v.number)
	if err != nil {
		return admin.BundleImport{}, err
	}
	has, err := in.ask(ctx, v, h)
	if err != nil {
		return has, err
	}
	r, size, err := v.medium.Volume(v.number)
	if err != nil {
		return has, err
	}
	defer r.Close()
	holes := admin.LargestHoles(holesIn(h, has))
	name := filepath.Base(v.path)
	if h.Index.Volumes > 1 {
		name = fmt.Sprintf("%s (%d of %d)", name, v.number, h.Index.Volumes)
	}
	up := &sending{r: r, holes: holes, show: in.show, name: name, total: size}
	for _, h := range holes {
		up.total -= h.Size
	}
	report, err := in.s.ImportBundle(ctx, up, size, holes)
	if broke := up.end(); broke != nil {
		err = broke // it is the medium that is to blame
	}
	return report, err
}

// ask finds out what the mirror has already.
func (in *importRun) ask(ctx context.Context, v volume, h bundle.Head) (admin.BundleImport, error) {
	r, _, err := v.medium.Volume(v.number)
	if err != nil {
		return admin.BundleImport{}, err
	}
	defer r.Close()
	for _, e := range h.Entries() {
		if e.Image >= 0 {
			return in.s.ImportBundleDry(ctx, io.LimitReader(r, e.At))
		}
	}
	return in.s.ImportBundleDry(ctx, r)
}

// holesIn are the files' bytes in a volume that the mirror has.
func holesIn(h bundle.Head, has admin.BundleImport) []admin.Hole {
	var holes []admin.Hole
	for _, e := range h.Entries() {
		if e.File < 0 || e.Image >= len(has.Images) || e.File >= len(has.Images[e.Image].Have) {
			continue
		}
		image := has.Images[e.Image]
		n := min(image.Have[e.File]-e.Begin, e.Size)
		if image.State == admin.ImageRefused {
			n = e.Size
		}
		if n > 0 {
			holes = append(holes, admin.Hole{At: e.Data, Size: n})
		}
	}
	return holes
}

// note keeps what has been reported last of each bundle.
func (in *importRun) note(report admin.BundleImport) {
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
		keepRefusals(in.reports[n-1].Images, report.Images)
		in.reports[n-1] = report
		return
	}
	in.reports = append(in.reports, report)
}

// keepRefusals takes over the reason why an earlier volume's file was refused: the
// last volume knows only that it is missing.
func keepRefusals(before, now []admin.ImportedImage) {
	for i := range min(len(before), len(now)) {
		if before[i].State == admin.ImageRefused && now[i].State == admin.ImageWaiting {
			now[i].State, now[i].Error = before[i].State, before[i].Error
		}
	}
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

// sending is a volume on its way, without its holes, and paints how far it is.
type sending struct {
	name  string
	total int64 // bytes that are to be sent

	mu     sync.Mutex // guards what follows: the one who sends may outlive the request
	r      io.ReadSeeker
	holes  []admin.Hole // that are ahead
	at     int64        // in the volume
	sent   int64
	show   *progress.Bars
	ended  bool
	failed error // of r
}

// Read gives the next bytes that are to be sent.
func (u *sending) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, os.ErrClosed
	}
	n, err := u.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.failed = err
	}
	u.show.Tick(progress.Transfer(u.name, u.sent, u.total))
	return n, err
}

func (u *sending) read(p []byte) (int, error) {
	for len(u.holes) > 0 && u.at == u.holes[0].At {
		if _, err := u.r.Seek(u.holes[0].Size, io.SeekCurrent); err != nil {
			return 0, err
		}
		u.at += u.holes[0].Size
		u.holes = u.holes[1:]
	}
	if len(u.holes) > 0 {
		p = p[:min(int64(len(p)), u.holes[0].At-u.at)]
	}
	n, err := u.r.Read(p)
	u.at += int64(n)
	u.sent += int64(n)
	return n, err
}

// end takes the bar away for good, has nobody read any more, and tells what was
// wrong with the medium.
func (u *sending) end() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	u.show.Clear()
	return u.failed
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/media"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
)

// exporting is a bundle export: its options, and what the mirror says of the images.
type exporting struct {
	output, since, volume, key string
	newest                     int
	fill, dry, quiet           bool
	wanted                     admin.Wanted

	cmd        *cobra.Command
	s          *session
	volumeSize int64
	held       []bundle.Held
	words      string    // what held is
	date       time.Time // zero: --since is no date

	images   []planned // origins first
	byUUID   map[uuid.UUID]manifest.Manifest
	excluded map[uuid.UUID]bool // the receiver has them
}

// planned is one image of the mirror's answer.
type planned struct {
	admin.Bundled
	m manifest.Manifest
}

func newBundleExportCmd() *cobra.Command {
	e := &exporting{}
	cmd := &cobra.Command{
		Use:   "export -o FILE|FOLDER {UUID|FILTER}...",
		Short: "Write images and their origins to a bundle",
		Long: "Writes images, with all that they build on, to a tar, or to the same tree in a folder (an existing\n" +
			"one, or a name that ends in \"/\"). A file is hashed as it is read: what has rotted is not exported.\n" +
			"What was interrupted goes on where it was when the same command is given again. With --volume the\n" +
			"tar comes in files NAME.001.tar, NAME.002.tar and so on.\n\n" +
			"--since leaves out what the other side has, and import then makes sure that it has it. What it has is\n" +
			"told by an earlier bundle, by a list that \"imgmirror bundle have\" wrote there, or by a date: all\n" +
			"images published before it.\n\n" + filterHelp,
		Example: "  imgmirror bundle export -o may.tar --fill --newest 10 os=smartos\n" +
			"  imgmirror bundle export -o june.tar --since may.tar --sign key os=smartos\n" +
			"  imgmirror bundle export -o /media/disk/ --since theirs.json name=~base",
		Args:              wantedArgs(&e.wanted),
		ValidArgsFunction: completeFrom(onDisk),
	}
	f := cmd.Flags()
	f.StringVarP(&e.output, "output", "o", "", "`FILE` or folder to write (\"-\" = standard output)")
	f.StringVar(&e.since, "since", "", "leave out what `REF` tells: a bundle, a list of \"bundle have\", a date")
	f.IntVar(&e.newest, "newest", 0, "only the newest `N` of the images that the filters name")
	f.BoolVar(&e.fill, "fill", false, "fetch first what is not on disk")
	f.StringVar(&e.volume, "volume", "", "`SIZE` of a volume at most, like 4GB")
	f.StringVar(&e.key, "sign", "", "`KEY` file to sign with, of \"bundle keygen\" or minisign")
	f.BoolVarP(&e.dry, "dry-run", "n", false, "tell what would be exported")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "print nothing")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := e.check(cmd); err != nil {
			return err
		}
		n := needFiles
		if e.fill {
			n = needStore
		}
		return withSession(cmd, n, func(ctx context.Context, s *session) error {
			e.cmd, e.s = cmd, s
			err := e.run(ctx)
			if err != nil && ctx.Err() != nil && failure.Of(err).Code != "Interrupted" {
				err = e.interrupted()
			}
			return err
		})
	}
	return cmd
}

func (e *exporting) interrupted() error {
	if e.output == "-" {
		return failure.New(failure.CodeInterrupted, "interrupted")
	}
	return failure.New(failure.CodeInterrupted, "interrupted; the same command goes on from there")
}

// check finds out what can be without asking the mirror.
func (e *exporting) check(cmd *cobra.Command) (err error) {
	if !e.dry {
		if err := needFlags(cmd, "output"); err != nil {
			return err
		}
	}
	if e.newest < 0 {
		return failure.Usage("--newest %d: must be 0 or more", e.newest)
	}
	if e.newest > 0 && len(e.wanted.Filters) == 0 {
		return failure.Usage("--newest is for filters")
	}
	size, err := config.ParseSize(e.volume)
	if err != nil {
		return failure.Usage("--volume %q: %w", e.volume, err)
	}
	e.volumeSize = int64(size)
	if e.volumeSize > 0 && e.output == "-" {
		return failure.Usage("--volume needs a FILE or a folder to write to")
	}
	if e.since != "" {
		e.held, e.words, e.date, err = readSince(e.since)
	}
	return err
}

func (e *exporting) run(ctx context.Context) error {
	if err := e.plan(ctx); err != nil {
		return err
	}
	if e.dry {
		return e.preview()
	}
	to := media.NewOutput(e.output, e.cmd.OutOrStdout())
	unlock, err := to.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	head, err := to.Unfinished()
	if err != nil {
		return err
	}
	if head != nil {
		done, err := to.Complete(*head)
		if err != nil {
			return err
		}
		if err := e.goesOn(*head, done); err != nil {
			return err
		}
		return e.write(ctx, to, *head)
	}
	if len(e.excluded) == len(e.images) {
		return e.say("nothing to export: the other side has all %d images (%s)", len(e.images), e.words)
	}
	if err := e.complete(ctx); err != nil {
		return err
	}
	h, err := e.newHead(ctx)
	if err != nil {
		return err
	}
	return e.write(ctx, to, h)
}

// say prints a line, unless nothing is to be printed; of a bundle on standard
// output it goes elsewhere.
func (e *exporting) say(format string, args ...any) error {
	out := e.cmd.OutOrStdout()
	if e.output == "-" {
		out = e.cmd.ErrOrStderr()
	}
	if e.quiet {
		return nil
	}
	_, err := fmt.Fprintln(out, table.Printable(fmt.Sprintf(format, args...)))
	return err
}

// preview prints what would be exported.
func (e *exporting) preview() error {
	items := make([]admin.Item, len(e.images))
	for i, p := range e.images {
		items[i] = admin.Item{UUID: p.m.UUID.String(), Name: p.m.Name, Version: p.m.Version, State: admin.ItemWaiting}
		for _, f := range p.m.Files {
			items[i].Total += f.Size
		}
		switch {
		case e.excluded[p.m.UUID]:
			items[i].State = "left out"
		case p.Cached:
			items[i].State = admin.ItemPresent
		}
	}
	out, err := itemTable.Layout(nil)
	if err != nil {
		return err
	}
	return out.Print(e.cmd.OutOrStdout(), items)
}

// goesOn is an error unless the bundle that is there, whole or not, is what this
// command would write. One that is not whole may lack images that are new.
func (e *exporting) goesOn(h bundle.Head, whole bool) error {
	other := func(format string, args ...any) error {
		return failure.New("FileExists", "%s holds another bundle (%s of %s): %s. Remove it, or write elsewhere",
			e.output, h.Index.ID, h.Index.Created.Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	if (h.Sig != nil) != (e.key != "") {
		return other("of the two one is signed")
	}
	if h.Index.Since != e.words {
		return other("what they leave out is not the same")
	}
	for _, v := range media.Volumes(h) {
		if e.volumeSize == 0 && h.Index.Volumes > 1 || e.volumeSize > 0 && v.Size() > e.volumeSize {
			return other("its volumes have another size")
		}
	}
	there := make(map[uuid.UUID]bool)
	for _, m := range h.Index.Images {
		if _, ok := e.byUUID[m.UUID]; !ok {
			return other("image %s in it is not wanted", m.UUID)
		}
		there[m.UUID] = true
	}
	for _, r := range h.Index.Requires {
		there[r.UUID] = true
	}
	for _, id := range e.wanted.UUIDs {
		if parsed, ok := manifest.ParseUUID(id); ok && !there[parsed] && !e.excluded[parsed] {
			return other("image %s is not in it", id)
		}
	}
	late := 0
	for _, p := range e.images {
		if !there[p.m.UUID] && !e.excluded[p.m.UUID] {
			late++
		}
	}
	if late > 0 && whole {
		return other("%d images that match are not in it", late)
	}
	if late > 0 {
		return e.say("%s: goes on as it was planned at %s; %d images that match now are not in it",
			e.output, h.Index.Created.Format(time.RFC3339), late)
	}
	return nil
}

// write writes all volumes.
func (e *exporting) write(ctx context.Context, to media.Output, first bundle.Head) error {
	show := progress.New(e.cmd.ErrOrStderr(), e.quiet)
	heads := media.Volumes(first)
	var before, total int64 // bytes of the volumes before the one at hand; of all
	for _, h := range heads {
		total += h.Size()
	}
	for _, h := range heads {
		path, err := to.Write(ctx, h, e, func(offset int64) {
			show.Tick(progress.Transfer(to.Name(), before+offset, total))
		})
		before += h.Size()
		show.Clear()
		if err != nil {
			return err
		}
		if err := e.say("%s: volume %d of %d, %s", path, h.Volume, len(heads), humanize.Bytes(uint64(h.Size()))); err != nil {
			return err
		}
	}
	return e.say("%s, %s", plural(int64(len(first.Index.Images)), "image"), humanize.Bytes(uint64(first.Index.Size())))
}

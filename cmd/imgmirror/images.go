package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

func newAvailCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "avail [FILTER...]",
		Short: "List the images that the mirror offers",
		Long:  "Lists the merged catalogue of all sources: what imgadm avail shows on a node.\n\n" + filterHelp,
		Args:  filterArgs,
	}
	quiet := addQuietFlag(cmd)
	return tableVerb(cmd, imageTable, needLists, "", func(ctx context.Context, s *session, args []string) ([]imageRow, error) {
		images, err := s.Images(ctx, args...)
		if err != nil {
			return nil, err
		}
		if err := warnOfSilence(ctx, s, cmd, *quiet); err != nil {
			return nil, err
		}
		return imageRows(images)
	})
}

// addQuietFlag adds the option -q of a verb that warns on stderr.
func addQuietFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().BoolP("quiet", "q", false, "print no warnings")
}

// warnOfSilence names on stderr the sources that have not answered yet, unless the verb is quiet.
func warnOfSilence(ctx context.Context, s *session, cmd *cobra.Command, quiet bool) error {
	if quiet {
		return nil
	}
	sources, err := s.Sources(ctx)
	if err != nil {
		return err
	}
	tellSilence(cmd.ErrOrStderr(), sources)
	return nil
}

// tellSilence names the sources that have not answered, in this process or an earlier one.
func tellSilence(to io.Writer, sources []admin.Source) {
	for _, source := range sources {
		if !source.LastSuccess.IsZero() {
			continue
		}
		why := ""
		if source.LastError != "" {
			why = " (" + source.LastError + ")"
		}
		fmt.Fprintf(to, "warning: source %s has not answered yet: its images may be missing%s\n", source.Name, table.Printable(why))
	}
}

func newAncestryCmd() *cobra.Command {
	var id uuid.UUID
	cmd := &cobra.Command{
		Use:               "ancestry UUID",
		Short:             "List an image and the images that it builds on",
		Long:              "Lists an image, its origin, the origin of that, down to the root.",
		Args:              uuidArg(&id),
		ValidArgsFunction: completeFrom(offered),
	}
	return tableVerb(cmd, imageTable, needLists, "", func(ctx context.Context, s *session, _ []string) ([]imageRow, error) {
		images, err := s.Ancestry(ctx, id)
		if err != nil {
			return nil, err
		}
		return imageRows(images)
	})
}

func newShowCmd() *cobra.Command {
	var id uuid.UUID
	var sources bool
	cmd := &cobra.Command{
		Use:   "show UUID",
		Short: "Print the manifest of an image",
		Long: "Prints the manifest of an image as clients get it, also of one that no list shows. With --sources\n" +
			"it is an object: the manifest, the source that it is from, all sources that have the image's files,\n" +
			"whether the image is listed, cached and pinned here, files: what of each file is on disk, offers: the\n" +
			"image as each source has it, with sums and sizes, where conflict marks a source with other files under\n" +
			"the same uuid, and hidden: why clients are not shown the image. Conflicts, and without --sources the\n" +
			"reasons of hidden, are told on stderr as well.",
		Args:              uuidArg(&id),
		ValidArgsFunction: completeFrom(offered),
	}
	quiet := addQuietFlag(cmd)
	cmd.Flags().BoolVar(&sources, "sources", false, "tell also where the image comes from")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withSession(cmd, needLists, func(ctx context.Context, s *session) error {
			image, err := s.Image(ctx, id)
			if err != nil {
				return err
			}
			if sources {
				warnOfConflicts(cmd.ErrOrStderr(), id, image.Offers)
				return table.JSON(cmd.OutOrStdout(), image)
			}
			for _, h := range image.Hidden {
				if *quiet {
					break
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "imgmirror show: image %s is not shown to clients: source %s: %s (%s)\n",
					id, h.Source, table.Printable(h.Detail), h.Reason)
			}
			return table.JSON(cmd.OutOrStdout(), image.Manifest)
		})
	}
	return cmd
}

// warnOfConflicts names the sources that have other files under the uuid of an image, with both sums.
func warnOfConflicts(to io.Writer, id uuid.UUID, offers []admin.Offer) {
	at := slices.IndexFunc(offers, func(o admin.Offer) bool { return o.Holds })
	if at < 0 {
		return
	}
	for _, o := range offers {
		if o.Conflict {
			fmt.Fprintf(to, "warning: image %s: source %s has other files (%s) than source %s, which counts (%s)\n",
				id, o.Source, filesText(o.Files), offers[at].Source, filesText(offers[at].Files))
		}
	}
}

// filesText tells files by sum and size.
func filesText(files []admin.OfferFile) string {
	all := make([]string, len(files))
	for i, f := range files {
		all[i] = fmt.Sprintf("sha1 %s, %d bytes", cmp.Or(f.SHA1, "unknown"), f.Size)
	}
	return strings.Join(all, "; ")
}

// imageRow is an image of the catalogue as a row.
type imageRow struct {
	admin.Image
	m shown
}

// imageRows reads manifests; there may be 100,000 of them.
func imageRows(images []admin.Image) ([]imageRow, error) {
	rows := make([]imageRow, len(images))
	for i, image := range images {
		rows[i].Image = image
		if err := json.Unmarshal(image.Manifest, &rows[i].m, table.AsSent); err != nil {
			return nil, fmt.Errorf("a manifest in the mirror's answer: %w", err)
		}
	}
	return rows, nil
}

// imageTable shows images of the catalogue: imgadm's fields, and where an image is to be had.
var imageTable = table.New("uuid,name,version,os,type,pub", slices.Concat(
	shownFields(func(r imageRow) (string, shown) { return r.m.UUID, r.m }),
	[]table.Column[imageRow]{
		table.Field("origin", func(r imageRow) any { return r.m.Origin }),
		table.Field("size", func(r imageRow) any { return r.m.size() }),
		table.Field("sha1", func(r imageRow) any { return r.m.file().SHA1 }),
		table.Field("compression", func(r imageRow) any { return r.m.file().Compression }),
		table.Field("source", func(r imageRow) any { return r.Source }),
		table.Field("sources", func(r imageRow) any { return strings.Join(r.Sources, ",") }),
		table.Field("listed", func(r imageRow) any { return r.Listed }),
		table.Field("cached", func(r imageRow) any { return r.Cached }),
		table.Field("pinned", func(r imageRow) any { return r.Pinned }),
	})...)

// shown is what tables show of a manifest. The mirror has checked the manifest.
type shown struct {
	UUID        string      `json:"uuid"`
	Name        string      `json:"name"`
	Version     string      `json:"version"`
	OS          string      `json:"os"`
	Type        string      `json:"type"`
	PublishedAt string      `json:"published_at"`
	State       string      `json:"state"`
	Owner       string      `json:"owner"`
	Public      bool        `json:"public"`
	Origin      string      `json:"origin"`
	Files       []shownFile `json:"files"`
}

type shownFile struct {
	SHA1        string `json:"sha1"`
	Size        int64  `json:"size"`
	Compression string `json:"compression"`
}

// shownFields are the columns that all tables of images begin with: the uuid, and imgadm's
// fields of the manifest.
func shownFields[T any](of func(T) (id string, m shown)) []table.Column[T] {
	field := func(name string, value func(m shown) any) table.Column[T] {
		return table.Field(name, func(row T) any { _, m := of(row); return value(m) })
	}
	return []table.Column[T]{
		table.Field("uuid", func(row T) any { id, _ := of(row); return id }),
		field("name", func(m shown) any { return m.Name }),
		field("version", func(m shown) any { return m.Version }),
		field("os", func(m shown) any { return m.OS }),
		field("type", func(m shown) any { return m.Type }),
		field("pub", func(m shown) any { day, _, _ := strings.Cut(m.PublishedAt, "T"); return day }),
		field("published", func(m shown) any { return m.PublishedAt }),
		field("state", func(m shown) any { return m.State }),
		field("owner", func(m shown) any { return m.Owner }),
		field("public", func(m shown) any { return m.Public }),
	}
}

// size is that of all files; -1 when no source tells.
func (m shown) size() table.Size {
	var n int64
	for _, f := range m.Files {
		if f.Size == 0 {
			return -1
		}
		n += f.Size
	}
	return table.Size(n)
}

// file is the first one; zero when there is none.
func (m shown) file() shownFile {
	if len(m.Files) == 0 {
		return shownFile{}
	}
	return m.Files[0]
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

func newPublishCmd() *cobra.Command {
	var manifestFile, imageFile string
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "publish -m MANIFEST -f FILE",
		Short: "Make an image of the mirror's own",
		Long: "Gives the mirror an image of its own: from then on clients list and import it like every other.\n" +
			"The file must be what the manifest says (size, sha1, compression), and for the types zone-dataset,\n" +
			"lx-dataset and zvol a ZFS stream; the uuid must be new, and the image's origin, if it is incremental,\n" +
			"there. \"imgmirror manifest create\" writes such a manifest.",
		Example: "  zfs send zones/mine@final | gzip >mine.zfs.gz\n" +
			"  imgmirror manifest create -f mine.zfs.gz --name mine --version 1.0.0 --os smartos --type zone-dataset >mine.json\n" +
			"  imgmirror publish -m mine.json -f mine.zfs.gz",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFlags(cmd, "manifest", "file"); err != nil {
				return err
			}
			text, err := unlessStopped(cmd.Context(), func() ([]byte, error) { return readManifest(manifestFile) })
			if err != nil {
				return err
			}
			image, err := manifest.ParsePublished(text)
			if err != nil {
				return failure.New("InvalidParameter", "%s: %w", manifestFile, err)
			}
			file, err := unlessStopped(cmd.Context(), func() (*os.File, error) { return os.Open(imageFile) })
			if err != nil {
				return err
			}
			defer file.Close()
			// The end of ctx ends reads of a pipe without a writer; files have no deadlines, and need none.
			defer context.AfterFunc(cmd.Context(), func() { _ = file.SetReadDeadline(time.Now()) })()
			// What can be told without sending the file is.
			if info, err := file.Stat(); err != nil {
				return err
			} else if info.IsDir() {
				return failure.New("InvalidParameter", "%s is a folder", imageFile)
			} else if info.Mode().IsRegular() && info.Size() != image.Files[0].Size {
				return failure.New("InvalidParameter", "%s has %d bytes, the manifest says %d", imageFile, info.Size(), image.Files[0].Size)
			}
			in := bufio.NewReaderSize(file, verify.HeadSize)
			head, err := verify.ReadHead(in)
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return context.Cause(cmd.Context())
			case err != nil:
				return err
			}
			warn := cmd.ErrOrStderr()
			if quiet {
				warn = io.Discard
			}
			if err := checkHead(warn, image, head, imageFile); err != nil {
				return err
			}
			return withSession(cmd, needNewStore, func(ctx context.Context, s *session) error {
				up := progress.NewReader(in, progress.New(cmd.ErrOrStderr(), quiet), admin.Item{
					UUID: image.UUID.String(), Name: image.Name, Version: image.Version, Total: image.Files[0].Size,
				})
				got, err := s.Publish(ctx, text, up)
				up.End()
				switch {
				case err != nil || quiet:
					return err
				case asJSON:
					return table.JSON(cmd.OutOrStdout(), got)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "published image %s (%s@%s)\n", image.UUID, image.Name, image.Version)
				return err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&manifestFile, "manifest", "m", "", "`MANIFEST` of the image, JSON (\"-\" = standard input)")
	flags.StringVarP(&imageFile, "file", "f", "", "`FILE` of the image")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	flags.BoolVarP(&asJSON, "json", "j", false, "print the image as JSON")
	addServerFlags(cmd)
	return cmd
}

func newUnpublishCmd() *cobra.Command {
	var id uuid.UUID
	return removeVerb(&cobra.Command{
		Use:   "unpublish UUID",
		Short: "Take back an image of the mirror's own",
		Long: "Takes back an image that was published on this mirror, and removes its file, which has no other\n" +
			"source, unless another image has the same one. An image that others are incremental to is refused.",
		Args: uuidArg(&id),
	}, new(bool), func(ctx context.Context, s *session) ([]admin.Removed, error) { return s.Unpublish(ctx, id) })
}

// unlessStopped calls do, which may wait for ever and cannot be called off, as the opening of a pipe.
// When ctx ends, do is left alone: the process is about to end.
func unlessStopped[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// maxManifestFile is what is read of a manifest's file at most.
const maxManifestFile = 1 << 20

func readManifest(name string) ([]byte, error) {
	text, err := readLimited(name, maxManifestFile+1)
	if err == nil && len(text) > maxManifestFile {
		err = failure.New("InvalidParameter", "%s has more than %d bytes: it is no manifest", name, maxManifestFile)
	}
	return text, err
}

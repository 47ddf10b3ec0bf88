package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
)

func newBundleCmd() *cobra.Command {
	return verbGroup("bundle", "Carry images to a mirror that has no network",
		newBundleExportCmd(), newBundleImportCmd(), newBundleShowCmd(), newBundleHaveCmd(), newBundleKeygenCmd())
}

// openBundle opens a bundle; an error tells how a bundle comes through a pipe.
func openBundle(path string) (*bundle.Media, error) {
	media, err := bundle.Open(path)
	if info, statErr := os.Stat(path); err != nil && statErr == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%w; what comes through a pipe is imported as \"-\"", err)
	}
	return media, err
}

func newBundleHaveCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "have -o FILE",
		Short: "List what is on disk, for the making of a delta elsewhere",
		Long: "Writes a list of the images on this mirror's disk. \"imgmirror bundle export --since FILE\" on another\n" +
			"mirror leaves them out.",
		Args: noArgs,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` to write (\"-\" = standard output)")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needFlags(cmd, "output"); err != nil {
			return err
		}
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			held, err := heldHere(ctx, s)
			if err != nil {
				return err
			}
			text, err := bundle.Have{Created: time.Now(), Mirror: thisMirror(), Images: held}.Bytes()
			if err != nil {
				return err
			}
			if output == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			return os.WriteFile(output, text, 0o644)
		})
	}
	return cmd
}

// heldHere lists the images of which all files are on disk.
func heldHere(ctx context.Context, s *session) ([]bundle.Held, error) {
	cached, err := s.Cached(ctx)
	if err != nil {
		return nil, err
	}
	var held []bundle.Held
	asked := make(map[string]bool)
	for _, c := range cached {
		id, ok := manifest.ParseUUID(c.UUID)
		if !ok || asked[c.UUID] {
			continue
		}
		asked[c.UUID] = true
		image, err := s.Image(ctx, id)
		if told := (*admin.Error)(nil); errors.As(err, &told) && told.Code == "ResourceNotFound" {
			continue // no source has it any more
		}
		if err != nil {
			return nil, err
		}
		m, err := manifest.Parse(image.Manifest, manifest.ParseOptions{})
		if err != nil {
			return nil, fmt.Errorf("a manifest in the mirror's answer: %w", err)
		}
		if image.Cached {
			held = append(held, heldOf(m))
		}
	}
	return held, nil
}

// thisMirror is who makes bundles here.
func thisMirror() bundle.Mirror {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "imgmirror"
	}
	return bundle.Mirror{Name: name, Version: version}
}

func newBundleKeygenCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "keygen -o KEY",
		Short: "Make a key to sign bundles with",
		Long: "Makes a key pair in minisign's format: the secret key in KEY, without a password and for its owner\n" +
			"only, and the public one in KEY.pub. The latter's second line is what a receiving mirror has in\n" +
			"bundle.trusted_keys. Keep KEY where the images come from.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFlags(cmd, "output"); err != nil {
				return err
			}
			secret, public, err := bundle.GenerateKey("")
			if err != nil {
				return err
			}
			if err := writeNew(output, secret, 0o600); err != nil {
				return err
			}
			if err := writeNew(output+".pub", public, 0o644); err != nil {
				return errors.Join(err, os.Remove(output))
			}
			lines := strings.Split(strings.TrimSpace(string(public)), "\n")
			_, err = fmt.Fprintln(cmd.OutOrStdout(), lines[len(lines)-1])
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` for the secret key; the public one goes to FILE.pub")
	return cmd
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return failure.New("FileExists", "%s is there already", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// readSince understands --since: a date, a bundle (file, folder, or its index
// alone) or a list that "bundle have" wrote. Of a date only the time is given.
func readSince(ref string) (held []bundle.Held, words string, date time.Time, err error) {
	if _, statErr := os.Stat(ref); statErr != nil {
		for _, form := range []string{time.DateOnly, time.RFC3339} {
			if date, err = time.Parse(form, ref); err == nil {
				return nil, "published before " + date.Format(time.RFC3339), date, nil
			}
		}
		return nil, "", date, failure.Usage("--since %q is no date (2026-05-31), and no file: %w", ref, statErr)
	}
	var x bundle.Index
	media, err := bundle.Open(ref)
	if err == nil {
		x = media.Index
	} else {
		text, readErr := readLimited(ref, maxList)
		if readErr != nil {
			return nil, "", date, err
		}
		if have, err := bundle.ParseHave(text); err == nil {
			return have.Images, fmt.Sprintf("what %s had at %s", have.Mirror.Name, have.Created.Format(time.RFC3339)), date, nil
		}
		var notIndex error
		if x, notIndex = bundle.ParseIndex(text); notIndex != nil {
			return nil, "", date, failure.New("InvalidBundle", "%s is neither a bundle nor a list that \"bundle have\" wrote: %w", filepath.Base(ref), err)
		}
	}
	return x.Held(), fmt.Sprintf("bundle %s of %s", x.ID, x.Created.Format(time.RFC3339)), date, nil
}

// maxList is what is read of an index, or a list of images, at most.
const maxList = 32 << 20

// readLimited reads the first limit bytes of a file, "-" being standard input.
func readLimited(name string, limit int64) ([]byte, error) {
	file := os.Stdin
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

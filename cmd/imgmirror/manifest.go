package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/manifest"
	"imgmirror/verify"
)

func newManifestCmd() *cobra.Command {
	return verbGroup("manifest", "Write manifests of images", newManifestCreateCmd())
}

// imageManifest is a v2 manifest (spec 1.1), its keys in the order in which imgadm shows them.
type imageManifest struct {
	V           int            `json:"v"`
	UUID        uuid.UUID      `json:"uuid"`
	Owner       uuid.UUID      `json:"owner"` // all zero: no owner
	Name        string         `json:"name"`
	Version     string         `json:"version"`
	State       string         `json:"state"`
	Disabled    bool           `json:"disabled"`
	Public      bool           `json:"public"`
	PublishedAt string         `json:"published_at"`
	Type        string         `json:"type"`
	OS          string         `json:"os"`
	Origin      uuid.UUID      `json:"origin,omitzero"`
	Files       []manifestFile `json:"files"`
	Description string         `json:"description,omitempty"`
	Homepage    string         `json:"homepage,omitempty"`

	// For type zvol.
	NICDriver  string `json:"nic_driver,omitempty"`
	DiskDriver string `json:"disk_driver,omitempty"`
	CPUType    string `json:"cpu_type,omitempty"`
	ImageSize  int    `json:"image_size,omitzero"`
}

type manifestFile struct {
	SHA1        verify.Sum `json:"sha1"`
	Size        int64      `json:"size"`
	Compression string     `json:"compression"`
}

func newManifestCreateCmd() *cobra.Command {
	m := imageManifest{V: 2, State: "active", Public: true}
	var file, id, origin string
	cmd := &cobra.Command{
		Use:   "create -f FILE --name NAME --version VERSION --os OS --type TYPE",
		Short: "Write the manifest of an image file to standard output",
		Long: "Writes a manifest (v2, JSON) to standard output: with the file's sha1, size and compression, a new\n" +
			"uuid and the time of now. What clients would refuse is an error: for the types zone-dataset, lx-dataset\n" +
			"and zvol also a file that is no ZFS stream, as it is or compressed by gzip, bzip2 or xz.\n" +
			"\"imgmirror publish\" takes the manifest.",
		Example: "  imgmirror manifest create -f mine.zfs.gz --name mine --version 1.0.0 --os smartos --type zone-dataset >mine.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFlags(cmd, "file", "name", "version", "os", "type"); err != nil {
				return err
			}
			var err error
			m.UUID = uuid.New()
			if id != "" {
				if m.UUID, err = parseUUID(id); err != nil {
					return err
				}
			}
			if origin != "" {
				if m.Origin, err = parseUUID(origin); err != nil {
					return err
				}
				if m.Origin == uuid.Nil {
					return failure.Usage("--origin must not be all zero")
				}
			}
			return createManifest(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), m, file)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&file, "file", "f", "", "`FILE` of the image: a ZFS stream, or what it was compressed to")
	flags.StringVar(&m.Name, "name", "", "the image's name")
	flags.StringVar(&m.Version, "version", "", "its version")
	flags.StringVar(&m.OS, "os", "", "smartos, linux, windows, bsd, illumos or other")
	flags.StringVar(&m.Type, "type", "", "zone-dataset, lx-dataset, zvol, docker, lxd or other")
	flags.StringVar(&origin, "origin", "", "`UUID` of the image that the file is incremental to")
	flags.StringVar(&id, "uuid", "", "the image's own `UUID` (default: a new one)")
	flags.StringVar(&m.Description, "description", "", "what it is, in a sentence or two")
	flags.StringVar(&m.Homepage, "homepage", "", "`URL` of its home page")
	flags.StringVar(&m.NICDriver, "nic-driver", "", "type zvol: virtio, e1000, ...")
	flags.StringVar(&m.DiskDriver, "disk-driver", "", "type zvol: virtio, ide, scsi, ...")
	flags.StringVar(&m.CPUType, "cpu-type", "", "type zvol: host, qemu64, ...")
	flags.IntVar(&m.ImageSize, "image-size", 0, "type zvol: size of the disk in `MiB`")
	return cmd
}

// createManifest completes m by what the file's bytes tell and prints it. The file must be one that can be published.
func createManifest(ctx context.Context, out, warn io.Writer, m imageManifest, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return errors.New(file + " is a folder")
	}
	in := bufio.NewReaderSize(f, verify.HeadSize)
	head, err := verify.ReadHead(in)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if head.Kind == verify.KindEmpty {
		return fmt.Errorf("%s is empty", file)
	}
	m.PublishedAt = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	// What can be told before all of the file is read is told first, with a sum and a size that pass.
	m.Files = []manifestFile{{SHA1: verify.Sum{1}, Size: 1, Compression: head.Compression()}}
	image, err := m.check()
	if err != nil {
		return err
	}
	if err := checkHead(warn, image, head, file); err != nil {
		return err
	}
	got, err := digestsOf(ctx, in)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	m.Files[0].SHA1, m.Files[0].Size = got.SHA1, got.Size
	return table.JSON(out, m)
}

// check makes m what clients get, if it is one that can be published.
func (m imageManifest) check() (manifest.Manifest, error) {
	var text bytes.Buffer
	if err := table.JSON(&text, m); err != nil {
		return manifest.Manifest{}, err
	}
	image, err := manifest.ParsePublished(text.Bytes())
	if err != nil {
		return image, failure.New("InvalidParameter", "%w", err)
	}
	return image, nil
}

// checkHead refuses a file that cannot be image's by its first bytes, and warns when these do not tell.
func checkHead(warn io.Writer, image manifest.Manifest, head verify.Head, file string) error {
	if err := image.CheckHead(head); err != nil {
		return failure.New("InvalidParameter", "%s: %w", file, err)
	}
	if image.HoldsStream() && !head.Known() {
		fmt.Fprintf(warn, "warning: %s: type %s needs a ZFS stream, and what the %s file holds begins with none\n", file, image.Type, head.Kind)
	}
	return nil
}

// digestsOf hashes what in gives.
func digestsOf(ctx context.Context, in io.Reader) (verify.Digests, error) {
	w := verify.NewWriter()
	defer w.Close()
	if err := verify.HashFrom(ctx, w, in); err != nil {
		return verify.Digests{}, err
	}
	return w.Digests(), nil
}

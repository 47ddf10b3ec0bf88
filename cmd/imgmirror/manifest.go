package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/proxy/published"
	"imgmirror/verify"
)

func newManifestCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "Write manifests of images",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	cmd.AddCommand(newManifestCreateCmd())
	return cmd
}

// imageManifest is a v2 manifest (spec 1.1), its keys in the order in which
// imgadm shows them.
type imageManifest struct {
	V           int            `json:"v"`
	UUID        uuid.UUID      `json:"uuid"`
	Owner       uuid.UUID      `json:"owner"` // all zero: nobody
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
			"uuid and the time of now. What clients would refuse is an error. \"imgmirror publish\" takes it.",
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
					return usageError("--origin must not be all zero")
				}
			}
			return createManifest(cmd.Context(), cmd.OutOrStdout(), m, file)
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
	flags.StringVar(&m.NICDriver, "nic-driver", "", "type zvol: virtio, e1000, …")
	flags.StringVar(&m.DiskDriver, "disk-driver", "", "type zvol: virtio, ide, scsi, …")
	flags.StringVar(&m.CPUType, "cpu-type", "", "type zvol: host, qemu64, …")
	flags.IntVar(&m.ImageSize, "image-size", 0, "type zvol: size of the disk in `MiB`")
	return cmd
}

// createManifest completes m by what the file's bytes tell and prints it.
func createManifest(ctx context.Context, out io.Writer, m imageManifest, file string) error {
	got, err := digestsOf(ctx, file)
	if err != nil {
		return err
	}
	if got.Size == 0 {
		return fmt.Errorf("%s is empty", file)
	}
	compression := got.Format
	if compression == "" { // no format's magic number
		compression = "none"
	}
	m.PublishedAt = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	m.Files = []manifestFile{{SHA1: got.SHA1, Size: got.Size, Compression: compression}}
	var text bytes.Buffer
	if err := printJSON(&text, m); err != nil {
		return err
	}
	if _, err := published.Check(text.Bytes()); err != nil {
		return failure("InvalidParameter", "%w", err)
	}
	_, err = out.Write(text.Bytes())
	return err
}

// digestsOf hashes a file.
func digestsOf(ctx context.Context, name string) (verify.Digests, error) {
	f, err := os.Open(name)
	if err != nil {
		return verify.Digests{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return verify.Digests{}, errors.New(name + " is a folder")
	}
	w := verify.NewWriter()
	defer w.Close()
	if err := verify.HashFrom(ctx, w, f); err != nil {
		return verify.Digests{}, fmt.Errorf("%s: %w", name, err)
	}
	return w.Digests(), nil
}

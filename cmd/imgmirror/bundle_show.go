package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
)

// bundledTable shows the images of a bundle.
var bundledTable = table.New("uuid,name,version,size,volumes",
	table.Field("uuid", func(m bundle.Image) any { return m.UUID.String() }),
	table.Field("name", func(m bundle.Image) any { return m.Name }),
	table.Field("version", func(m bundle.Image) any { return m.Version }),
	table.Field("origin", func(m bundle.Image) any {
		if m.Origin == uuid.Nil {
			return ""
		}
		return m.Origin.String()
	}),
	table.Field("size", func(m bundle.Image) any {
		var n int64
		for _, f := range m.Files {
			n += f.Size
		}
		return table.Size(n)
	}),
	table.Field("volumes", func(m bundle.Image) any { return volumeList(m) }),
	table.Field("sha1", func(m bundle.Image) any { return m.Files[0].SHA1.String() }),
	table.Field("sha256", func(m bundle.Image) any { return m.Files[0].SHA256.String() }),
	table.Field("file", func(m bundle.Image) any { return m.Files[0].Path }),
)

// shownBundle is what show tells of a bundle as JSON.
type shownBundle struct {
	Signature string       `json:"signature"` // none, good, unknown, bad
	Key       string       `json:"key,omitempty"`
	Reason    string       `json:"reason,omitempty"` // of a bad one
	Volumes   []int        `json:"volumes_here"`
	Size      int64        `json:"size"`
	Index     bundle.Index `json:"index"`
}

func newBundleShowCmd() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "show FILE|FOLDER",
		Short: "Tell what a bundle holds",
		Long: "Tells what a bundle holds, who made it, and whether it is signed by a key that is trusted here\n" +
			"(--key, else bundle.trusted_keys). Only its index is read; no mirror is asked.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failure.Usage("want one bundle, not %d arguments", len(args))
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public `KEY`, or a file with one, that is trusted (repeatable)")
	bundledTable.Run(cmd, func(cmd *cobra.Command, args []string, out table.Layout[bundle.Image]) error {
		trusted, err := showKeys(cmd, keys)
		if err != nil {
			return err
		}
		media, err := openBundle(args[0])
		if err != nil {
			return err
		}
		s := describeBundle(media, trusted)
		if out.JSON {
			err = table.JSON(cmd.OutOrStdout(), s)
		} else {
			err = s.print(cmd.OutOrStdout(), out)
		}
		if err != nil {
			return err
		}
		if s.Signature == "bad" {
			return failure.New("BundleNotTrusted", "%s", s.Reason)
		}
		return nil
	})
	return cmd
}

// showKeys are the keys that show holds a signature against.
func showKeys(cmd *cobra.Command, texts []string) (bundle.Trusted, error) {
	if len(texts) == 0 {
		cfg, err := loadConfig(cmd)
		if err != nil {
			return nil, err
		}
		texts = cfg.Bundle.TrustedKeys
	}
	var all bundle.Trusted
	for _, text := range texts {
		keys, err := readTrusted(text)
		if err != nil {
			return nil, failure.New("InvalidParameter", "key %.100q: %w", text, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

func describeBundle(media *bundle.Media, trusted bundle.Trusted) shownBundle {
	s := shownBundle{Signature: "none", Volumes: media.Volumes, Size: media.Index.Size(), Index: media.Index}
	switch {
	case media.Sig == nil:
	case len(trusted) == 0:
		s.Signature = "unknown"
	default:
		var err error
		s.Signature = "good"
		if s.Key, err = trusted.Verify(media.Index, media.Sig); err != nil {
			s.Signature, s.Reason = "bad", err.Error()
		}
	}
	return s
}

// print prints the images as a table, behind what the bundle is as a whole.
func (s shownBundle) print(w io.Writer, out table.Layout[bundle.Image]) error {
	if out.NoHeader {
		return out.Print(w, s.Index.Images)
	}
	x := s.Index
	signature := map[string]string{
		"none":    "none",
		"good":    "good, key " + s.Key,
		"unknown": "there is one; no key is trusted here",
		"bad":     "bad: " + s.Reason,
	}[s.Signature]
	lines := []string{
		"bundle     " + x.ID.String(),
		"created    " + x.Created.Format(time.RFC3339),
		"mirror     " + x.Mirror.Name + " " + x.Mirror.Version,
		"signature  " + signature,
		fmt.Sprintf("volumes    %s of %d", joinInts(s.Volumes), x.Volumes),
		fmt.Sprintf("images     %d, %s", len(x.Images), table.Cell(table.Size(s.Size))),
	}
	if len(x.Requires) > 0 {
		lines = append(lines, fmt.Sprintf("requires   %d images that the receiver must have (%s)", len(x.Requires), x.Since))
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, table.Printable(l)); err != nil {
			return err
		}
	}
	fmt.Fprintln(w) //nolint:errcheck // Print tells
	return out.Print(w, s.Index.Images)
}

// volumeList tells in which volumes an image's files lie: "1", "2,3".
func volumeList(m bundle.Image) string {
	var all []int
	for _, f := range m.Files {
		if len(f.Parts) == 0 {
			all = append(all, f.Volume)
		}
		for _, p := range f.Parts {
			all = append(all, p.Volume)
		}
	}
	slices.Sort(all)
	return joinInts(slices.Compact(all))
}

func joinInts(all []int) string {
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = fmt.Sprint(n)
	}
	return strings.Join(texts, ",")
}

package proxy

import (
	"context"
	"fmt"
	"io"
	"slices"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// maxIcon is what is taken for an icon at most; real ones have up to 128 KiB
// (spec 5.6).
const maxIcon = 1 << 20

// BlobOf says which bytes file index of an image is, and where they may be had:
// from every source that holds the image, in the catalogue's order, and behind them from those that may hold it. The index
// must be one of e.Manifest.Files. Both results are valid for as long as the
// sources are.
func BlobOf(e catalog.Entry, index int) (cache.Blob, []cache.Source) {
	m := e.Manifest
	f := m.Files[index]
	blob := cache.Blob{
		Want:     verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5},
		Key:      fmt.Sprintf("file/%s/%d", m.UUID, index),
		Image:    m.UUID,
		Index:    index,
		Source:   e.Source,
		Manifest: m,
	}
	sources := make([]cache.Source, 0, len(e.Holders)+len(e.Others))
	for _, h := range slices.Concat(e.Holders, e.Others) {
		if index >= len(h.Manifest.Files) {
			continue
		}
		sources = append(sources, cache.Source{
			Name: h.Source.Name(),
			Said: h.Manifest.Raw(),
			Open: func(ctx context.Context, offset int64) (*verify.Stream, error) {
				return h.Source.File(ctx, h.Manifest, index, offset)
			},
		})
	}
	return blob, sources
}

// iconOf is BlobOf for the image's icon. Manifests say nothing of an icon's
// bytes, so it is kept by what the manifest says as a whole and fetched again
// when that changes (spec A37).
func iconOf(e catalog.Entry) (cache.Blob, []cache.Source) {
	m := e.Manifest
	blob := cache.Blob{
		Key:        fmt.Sprintf("icon/%s/%s", m.UUID, tagOf(m.V2())),
		MaxSize:    maxIcon,
		Unverified: true,
		Image:      m.UUID,
		Source:     e.Source,
	}
	sources := make([]cache.Source, 0, len(e.Holders))
	for _, h := range e.Holders {
		if !h.Manifest.Icon {
			continue
		}
		sources = append(sources, cache.Source{
			Name: h.Source.Name(),
			Open: func(ctx context.Context, offset int64) (*verify.Stream, error) {
				return openIcon(ctx, h, offset)
			},
		})
	}
	return blob, sources
}

// openIcon opens an icon at an offset, which sources know nothing of.
func openIcon(ctx context.Context, h catalog.Holder, offset int64) (*verify.Stream, error) {
	stream, err := h.Source.Icon(ctx, h.Manifest)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, stream, offset); err != nil {
		stream.Close()
		return nil, fmt.Errorf("icon of %s: skip to %d: %w", h.Manifest.UUID, offset, err)
	}
	return stream, nil
}

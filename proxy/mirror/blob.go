package mirror

import (
	"context"
	"crypto/sha1"
	"fmt"
	"io"
	"slices"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// maxIcon is the most bytes of an icon; real icons have up to 128 KiB (spec 5.6).
const maxIcon = 1 << 20

// blobOf gives the blob of file index of an image, and the sources of the blob: first the holders of
// the image, in the catalogue's order, then the sources that may hold the image. The index must be
// one of e.Manifest.Files. Both results are valid for as long as the sources are.
func blobOf(e catalog.Entry, index int) (cache.Blob, []cache.Source) {
	m := e.Manifest
	blob := cache.Blob{
		Want:     bytesOf(&m.Files[index]),
		Key:      keyOf(&m, index),
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
			OpenRange: func(ctx context.Context, offset, length int64) (*verify.Stream, error) {
				return h.Source.Part(ctx, h.Manifest, index, offset, length)
			},
		})
	}
	return blob, sources
}

// bytesOf is what the bytes of a file must be.
func bytesOf(f *manifest.File) verify.Want {
	return verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5}
}

// keyOf names file index of an image.
func keyOf(m *manifest.Manifest, index int) string {
	return fmt.Sprintf("file/%s/%d", m.UUID, index)
}

// iconOf is blobOf for the image's icon. Manifests say nothing of an icon's bytes, so the key of the
// blob is made of the whole manifest, and an icon is fetched again when the manifest changes (spec A37).
func iconOf(e catalog.Entry) (cache.Blob, []cache.Source) {
	m := e.Manifest
	blob := cache.Blob{
		Key:        fmt.Sprintf("icon/%s/%x", m.UUID, sha1.Sum(m.V2())),
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

// openIcon opens an icon at an offset; sources send icons from their start only.
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

// Store is where files are kept; *cache.Store is one.
type Store interface {
	File(ctx context.Context, b cache.Blob, sources []cache.Source) (*cache.Reader, error)
	Peek(b cache.Blob) (cache.Info, bool)
}

// Files gives the files and icons of images out of a Store. Its methods may be called concurrently.
type Files struct{ Store Store }

// Open gives a Reader, which the caller closes, on file index of e: from disk, or from the download
// that Open joins or starts. ctx bounds only the wait for the first byte; the sources are asked for
// the client and the mirrors that ctx carries (see catalog.ForClient and via). why says how urgent
// the file is, by who reads.
func (f Files) Open(ctx context.Context, e catalog.Entry, index int, why cache.Why, by cache.By) (*cache.Reader, error) {
	blob, sources := blobOf(e, index)
	blob.Why, blob.By = why, by
	return f.Store.File(ctx, blob, forClient(ctx, e, onBehalf(via.From(ctx), sources)))
}

// OpenIcon is Open for the icon of e.
func (f Files) OpenIcon(ctx context.Context, e catalog.Entry, by cache.By) (*cache.Reader, error) {
	blob, sources := iconOf(e)
	blob.By = by
	return f.Store.File(ctx, blob, onBehalf(via.From(ctx), sources))
}

// Stored tells what is on disk of file index of e, verified; it starts nothing.
func (f Files) Stored(e catalog.Entry, index int) (cache.Info, bool) {
	blob, _ := blobOf(e, index)
	return f.Store.Peek(blob)
}

// StoredIcon is Stored for the icon of e.
func (f Files) StoredIcon(e catalog.Entry) (cache.Info, bool) {
	blob, _ := iconOf(e)
	return f.Store.Peek(blob)
}

// Cached tells whether all files of an image are on disk.
func (f Files) Cached(e catalog.Entry) bool {
	for i := range e.Manifest.Files {
		if _, ok := f.Stored(e, i); !ok {
			return false
		}
	}
	return len(e.Manifest.Files) > 0
}

// onBehalf makes the sources of a blob be asked on behalf of the mirrors ids.
func onBehalf(ids []string, sources []cache.Source) []cache.Source {
	if len(ids) == 0 {
		return sources
	}
	return askedWith(sources, func(ctx context.Context) context.Context { return via.With(ctx, ids) })
}

// forClient makes sources that ask by uuid first do so in the turns of the client that ctx carries
// (see catalog.ForClient). Only the others of e are such sources.
func forClient(ctx context.Context, e catalog.Entry, sources []cache.Source) []cache.Source {
	client, ok := catalog.Client(ctx)
	if !ok || len(e.Others) == 0 {
		return sources
	}
	return askedWith(sources, func(ctx context.Context) context.Context { return catalog.ForClient(ctx, client) })
}

// askedWith makes sources be asked with what note adds to the context.
func askedWith(sources []cache.Source, note func(context.Context) context.Context) []cache.Source {
	for i := range sources {
		open := sources[i].Open
		sources[i].Open = func(ctx context.Context, offset int64) (*verify.Stream, error) {
			return open(note(ctx), offset)
		}
		if ranged := sources[i].OpenRange; ranged != nil {
			sources[i].OpenRange = func(ctx context.Context, offset, length int64) (*verify.Stream, error) {
				return ranged(note(ctx), offset, length)
			}
		}
	}
	return sources
}

package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// Wanted says which images are meant.
type Wanted struct {
	UUIDs   []uuid.UUID       // these, listed or not; each once
	Filters []manifest.Filter // and the listed images that match all of these; none = no others
	Newest  int               // of those that match only so many, the newest; 0 = all
}

// Empty tells that no image is meant.
func (w Wanted) Empty() bool { return len(w.UUIDs) == 0 && len(w.Filters) == 0 }

// told is an error with a text of its own and the meaning of another one.
type told struct {
	text string
	is   error
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.is }

// tell makes an error that matches is and does not repeat its text.
func tell(is error, format string, args ...any) error {
	return &told{text: fmt.Sprintf(format, args...), is: is}
}

// ErrNoMatch says that no image matches the filters; the error matches fs.ErrNotExist.
var ErrNoMatch = fmt.Errorf("no image matches: %w", fs.ErrNotExist)

// noMatch is the error of filters that match nothing. among says which images there were to match;
// "" = all that are listed.
func noMatch(filters []manifest.Filter, among string) error {
	texts := make([]string, len(filters))
	for i, f := range filters {
		texts[i] = f.String()
	}
	return tell(ErrNoMatch, "no image matches %s%s", strings.Join(texts, " and "), among)
}

// Find gives one image, listed or not, and asks the sources if need be. The error matches
// fs.ErrNotExist when every source says that there is none, else it means "cannot tell" and matches
// verify.ErrUnavailable. The error names the sources whose image clients are not shown.
func (m *Mirror) Find(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	e, err := m.Get(ctx, id)
	if err == nil {
		return e, nil
	}
	why := ""
	for _, h := range m.Hidden(id) {
		why += fmt.Sprintf("; source %s has it, and clients are not shown it: %s (%s)", h.Source, h.Detail, h.Reason)
	}
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, verify.ErrUnavailable) {
		return e, tell(fs.ErrNotExist, "image %s was not found%s", id, why)
	}
	return e, fmt.Errorf("%w%s", err, why)
}

// findManifest is Find for an image of which the manifest is enough: one that has left the catalogue
// has a copy of its manifest as long as its file is on disk.
func (m *Mirror) findManifest(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	e, err := m.Find(ctx, id)
	if err == nil {
		return e.Manifest, nil
	}
	if image, err := m.store.Manifest(id); err == nil {
		return image, nil
	}
	return manifest.Manifest{}, err
}

// Chain gives e and its origins, e first, the root last: see manifest.Chain. An origin of which a
// source cannot tell is no broken chain.
func (m *Mirror) Chain(ctx context.Context, e catalog.Entry) ([]catalog.Entry, error) {
	return manifest.Chain(e, manifestOf, m.finder(ctx))
}

// finder is Find for manifest.Chain. What sources cannot tell does not count as absent.
func (m *Mirror) finder(ctx context.Context) func(uuid.UUID) (catalog.Entry, error) {
	return func(id uuid.UUID) (catalog.Entry, error) {
		e, err := m.Find(ctx, id)
		if errors.Is(err, verify.ErrUnavailable) && errors.Is(err, fs.ErrNotExist) {
			err = tell(verify.ErrUnavailable, "%v", err) // absent is what some of them say
		}
		return e, err
	}
}

func manifestOf(e catalog.Entry) manifest.Manifest { return e.Manifest }

// Select gives the images that are meant: those named by uuid in their order, then those that match,
// in the order of the list, the oldest first. An image that is named and cannot be found is an error,
// and so are filters that match nothing: ErrNoMatch.
func (m *Mirror) Select(ctx context.Context, w Wanted) ([]catalog.Entry, error) {
	var out []catalog.Entry
	named := make(map[uuid.UUID]bool)
	for _, id := range w.UUIDs {
		e, err := m.Find(ctx, id)
		if err != nil {
			return nil, err
		}
		named[id] = true
		out = append(out, e)
	}
	if len(w.Filters) == 0 {
		return out, nil
	}
	var matching []catalog.Entry
	found, list := false, m.Current()
	for _, image := range list.Images() {
		if !manifest.MatchAll(image, w.Filters) {
			continue
		}
		found = true
		if named[image.UUID] {
			continue
		}
		if e, ok := list.Entry(image.UUID); ok {
			matching = append(matching, e)
		}
	}
	if !found {
		return nil, noMatch(w.Filters, "")
	}
	if w.Newest > 0 && len(matching) > w.Newest {
		matching = matching[len(matching)-w.Newest:]
	}
	return append(out, matching...), nil
}

// cached is Cached for the catalogue.
func (m *Mirror) cached(image manifest.Manifest) bool {
	return m.Cached(catalog.Entry{Manifest: image})
}

// stored tells what is known of a file from its bytes on disk, if these have told what the file looks like.
func (m *Mirror) stored(image manifest.Manifest, index int) (manifest.Facts, bool) {
	info, ok := m.Stored(catalog.Entry{Manifest: image}, index)
	if !ok || info.Digests.Format == "" {
		return manifest.Facts{}, false
	}
	return factsOf(image, index, info.Digests), true
}

func factsOf(image manifest.Manifest, index int, d verify.Digests) manifest.Facts {
	return manifest.Facts{SHA1: d.SHA1, Size: d.Size, Compression: image.CompressionBy(index, d.Format)}
}

// learn hands to the catalogue what a download has told of a file.
func (m *Mirror) learn(b cache.Blob, info cache.Info) {
	if b.Manifest.UUID != b.Image {
		return // an icon
	}
	m.learned(manifest.FileID{Image: b.Image, Index: b.Index}, factsOf(b.Manifest, b.Index, info.Digests))
}

// WithOrigins gives images behind their origins, every image once, or the error of the first chain
// that cannot be walked.
func (m *Mirror) WithOrigins(ctx context.Context, images []catalog.Entry) ([]catalog.Entry, error) {
	var broken error
	all := manifest.Chains(images, manifestOf, m.finder(ctx), func(_ catalog.Entry, err error) bool {
		broken = cmp.Or(broken, err)
		return false
	})
	return all, broken
}

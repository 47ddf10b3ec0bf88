package page

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// published is the source of the images that were published on this mirror.
const published = "published"

// imageView is the value of image.html.
type imageView struct {
	admin.Image
	UUID   string
	Facts  facts
	JSON   string // the manifest, for people
	More   int    // files that are not shown
	Size   int64
	Have   int64  // bytes on disk
	OnDisk string // none, part, whole
	Stored bool   // a file is on disk, verified

	Chain      []link // the root first, the image last
	ChainFault string // why the chain is not whole
	Offers     []offerRow
	Conflicts  int
	Published  bool              // on this mirror
	Nodes      *admin.ImageNodes // for operators; nil: not to be shown
	Log        []eventRow
}

func (i *imageView) title() string { return strings.TrimSpace(i.Facts.Name + " " + i.Facts.Version) }

// link is one image of a chain.
type link struct {
	UUID, Name, Version string
	Cached              string // none, part, whole
	Pinned              bool
	Size                int64
	This                bool
	Secret              bool // not for everyone: nothing but the uuid is told
}

// offerRow is an offer with what the page says of it.
type offerRow struct {
	admin.Offer
	Verdict, Tone string
	More          int // files that are not shown
}

func isPublished(i admin.Image) bool {
	return i.Source == published || slices.Contains(i.Sources, published)
}

func (p *Page) image(v *visit) (any, error) {
	i, err := v.look().image(v.PathValue("uuid"))
	if err == nil && v.operator() {
		i.Nodes, err = v.look().imageNodes(i.UUID)
		return i, err
	}
	if err == nil {
		return i, nil
	}
	if v.operator() { // sources that do not answer matter little where another one has told
		if hidden, hiddenErr := v.look().hiddenImage(v.PathValue("uuid")); hiddenErr == nil && len(hidden.Rows) > 0 {
			return hidden, nil
		}
	}
	return nil, err
}

// image is all of one image.
func (l *look) image(text string) (*imageView, error) {
	i, err := l.imageState(text)
	if err != nil {
		return nil, err
	}
	l.addChain(i)
	if !l.operator { // texts of events name what is not for everyone
		return i, nil
	}
	return i, l.addLog(i)
}

// imageState is an image without its chain and its history.
func (l *look) imageState(text string) (*imageView, error) {
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return nil, errNoImage
	}
	image, err := l.find(id)
	if err != nil {
		return nil, err
	}
	i := &imageView{Image: image, UUID: id.String(), Facts: readFacts(image.Manifest), OnDisk: "none"}
	if !l.operator {
		if !shown(image) { // strangers hear of public images on the list only
			return nil, errNoImage
		}
		i.Hidden, i.Image.Offers, i.Imported = nil, publicOffers(image.Offers), nil
	}
	i.JSON = pretty(image.Manifest)
	for _, f := range image.Files {
		i.Size += f.Size
		i.Have += f.CachedBytes
		i.Stored = i.Stored || f.Cached == "whole"
	}
	switch {
	case image.Cached:
		i.OnDisk = "whole"
	case i.Have > 0:
		i.OnDisk = "part"
	}
	i.Image.Files, i.More = few(image.Files)
	i.Published = isPublished(image)
	for _, o := range i.Image.Offers {
		row := offerRow{Offer: o, Verdict: "has the files that are served", Tone: "good"}
		switch {
		case o.Conflict:
			row.Verdict, row.Tone = "other files", "bad"
			i.Conflicts++
		case o.Hidden != nil:
			row.Verdict, row.Tone = reasonText(o.Hidden.Reason), "warn"
		}
		row.Files, row.More = few(row.Files)
		i.Offers = append(i.Offers, row)
	}
	return i, nil
}

// addLog adds what has happened to an image.
func (l *look) addLog(i *imageView) error {
	events, err := l.page.o.API.History(l, uuid.MustParse(i.UUID))
	for _, e := range events {
		i.Log = append(i.Log, eventRow{e, eventBadge(e.Kind)})
	}
	return err
}

// find gives an image. For clients no source is asked.
func (l *look) find(id uuid.UUID) (admin.Image, error) {
	if l.operator {
		return l.page.o.API.Image(l, id)
	}
	return l.page.o.API.KnownImage(l, id)
}

// shown tells whether everyone may know of an image: it is public, and a list shows it.
func shown(i admin.Image) bool { return i.Listed && readFacts(i.Manifest).Public }

// few is as many files as a page shows, and how many there are besides.
func few[F any](all []F) (shown []F, more int) {
	n := min(len(all), maxFiles)
	return all[:n], len(all) - n
}

// maxChain bounds the images of a chain, as the catalogue does.
const maxChain = 256

// addChain adds an image and its origins, one after the other: all their manifests together may be too
// large. For clients the chain ends at an image that is not for everyone: the image's own manifest would
// tell more.
func (l *look) addChain(i *imageView) {
	image := i.Image
	seen := make(map[string]bool)
	for {
		step, origin := l.step(i, image)
		i.Chain = append(i.Chain, step)
		seen[step.UUID] = true
		if origin == "" || step.Secret {
			break
		}
		err := errBrokenChain
		if id, bad := uuid.Parse(origin); bad == nil && !seen[id.String()] && len(i.Chain) < maxChain {
			image, err = l.find(id)
		}
		if err != nil {
			i.ChainFault = "The origins of this image are not all known."
			if l.operator {
				i.ChainFault = err.Error()
			}
			break
		}
	}
	slices.Reverse(i.Chain)
}

var errBrokenChain = errors.New("the chain of origins is too long, or comes back to an image of its own")

// step is an image of a chain, and the uuid of the image's origin.
func (l *look) step(i *imageView, image admin.Image) (step link, origin string) {
	f := readFacts(image.Manifest)
	if !l.operator && !shown(image) {
		return link{UUID: f.UUID, Cached: "none", Secret: true}, f.Origin
	}
	step = link{UUID: f.UUID, Name: f.Name, Version: f.Version, Cached: "none", Pinned: image.Pinned, This: f.UUID == i.UUID}
	if image.Cached {
		step.Cached = "whole"
	}
	for _, file := range image.Files {
		step.Size += file.Size
	}
	if step.This {
		step.Cached, step.Size = i.OnDisk, i.Size
	}
	return step, f.Origin
}

// hiddenView is the value of image-hidden.html: an image that the mirror does not serve.
type hiddenView struct {
	UUID string
	Rows []admin.Row // of each source that has the image
}

func (h *hiddenView) title() string {
	return strings.TrimSpace(h.Rows[0].Name + " " + h.Rows[0].Version)
}

func (h *hiddenView) template() string { return "image-hidden" }

// hiddenImage finds an image among those that clients are not shown.
func (l *look) hiddenImage(id string) (*hiddenView, error) {
	page, err := l.page.o.API.Catalog(l, admin.Look{Words: id, State: "hidden", Limit: pageRows})
	if err != nil {
		return nil, err
	}
	h := &hiddenView{UUID: id}
	for _, row := range page.Rows {
		if row.UUID == id {
			h.Rows = append(h.Rows, row)
		}
	}
	return h, nil
}

// publicOffers are the sources that hold an image's files. What others have under the uuid may be
// private.
func publicOffers(all []admin.Offer) []admin.Offer {
	out := slices.Clone(all)
	return slices.DeleteFunc(out, func(o admin.Offer) bool { return !o.Holds || !o.Public || o.Hidden != nil })
}

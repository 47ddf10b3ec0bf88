package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

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

// facts is what a manifest tells, as far as the page has a place of its own for it.
type facts struct {
	UUID        string          `json:"uuid"`
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	OS          string          `json:"os"`
	Type        string          `json:"type"`
	Description string          `json:"description"`
	Homepage    string          `json:"homepage"`
	Owner       string          `json:"owner"`
	State       string          `json:"state"`
	Public      bool            `json:"public"`
	Origin      string          `json:"origin"`
	Published   time.Time       `json:"published_at"`
	Tags        json.RawMessage `json:"tags"`
}

// Link tells that the homepage can be a link.
func (f facts) Link() bool {
	return strings.HasPrefix(f.Homepage, "https://") || strings.HasPrefix(f.Homepage, "http://")
}

// TagList is the tags as "name: value", sorted by the source's own order.
func (f facts) TagList() (all []string) {
	d := json.NewDecoder(bytes.NewReader(f.Tags))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() && len(all) < maxTags {
		name, err := d.Token()
		if err != nil {
			return all
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return all
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		all = append(all, fmt.Sprintf("%v: %s", name, text))
	}
	return all
}

// maxTags bounds the tags that a page shows; the JSON has all.
const maxTags = 50

// readFacts reads a manifest member by member: one member of a wrong type does not hide the others.
func readFacts(manifest json.RawMessage) (f facts) {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(manifest, &members) // what cannot be read is empty
	for name, to := range map[string]any{
		"uuid": &f.UUID, "name": &f.Name, "version": &f.Version, "os": &f.OS, "type": &f.Type, "description": &f.Description,
		"homepage": &f.Homepage, "owner": &f.Owner, "state": &f.State, "public": &f.Public, "origin": &f.Origin, "published_at": &f.Published,
	} {
		if value, ok := members[name]; ok {
			_ = json.Unmarshal(value, to)
		}
	}
	f.Tags = members["tags"]
	return f
}

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
	if !l.operator {
		// Strangers cause no question to a source, and hear of public images on the list only.
		if err := l.onPublicList(id); err != nil {
			return nil, err
		}
	}
	image, err := l.page.o.API.Image(l, id)
	if err != nil {
		return nil, err
	}
	i := &imageView{Image: image, UUID: id.String(), Facts: readFacts(image.Manifest), OnDisk: "none"}
	if !l.operator {
		if !i.Facts.Public || !image.Listed {
			return nil, errNoImage
		}
		i.Hidden, i.Image.Offers, i.Imported = nil, publicOffers(image.Offers), nil
	}
	var b bytes.Buffer
	if json.Indent(&b, image.Manifest, "", "  ") == nil {
		i.JSON = b.String()
	}
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

// addChain adds the origins of an image.
func (l *look) addChain(i *imageView) {
	chain, err := l.page.o.API.Ancestry(l, uuid.MustParse(i.UUID))
	if err != nil {
		i.ChainFault = "The origins of this image are not all known."
		if l.operator {
			i.ChainFault = err.Error()
		}
		chain = []admin.Image{i.Image}
	}
	for _, image := range slices.Backward(chain) {
		f := readFacts(image.Manifest)
		step := link{UUID: f.UUID, Name: f.Name, Version: f.Version, Cached: "none", Pinned: image.Pinned, This: f.UUID == i.UUID}
		if image.Cached {
			step.Cached = "whole"
		}
		var files struct {
			Files []struct {
				Size int64 `json:"size"`
			} `json:"files"`
		}
		_ = json.Unmarshal(image.Manifest, &files) // what cannot be read is empty
		for _, file := range files.Files {
			step.Size += file.Size
		}
		if step.This {
			step.Cached = i.OnDisk
		}
		if !l.operator && (!f.Public || !image.Listed) {
			step = link{UUID: f.UUID, Cached: "none", Secret: true}
		}
		i.Chain = append(i.Chain, step)
	}
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

// onPublicList is errNoImage but for a public image that lists show.
func (l *look) onPublicList(id uuid.UUID) error {
	page, err := l.page.o.API.Catalog(l, publicLook(admin.Look{Words: id.String(), Limit: pageRows}))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(page.Rows, func(r admin.Row) bool { return r.UUID == id.String() && r.Public && r.Listed }) {
		return errNoImage
	}
	return nil
}

// publicOffers are the sources that hold an image's files. What others have under the uuid may be
// private.
func publicOffers(all []admin.Offer) []admin.Offer {
	out := slices.Clone(all)
	return slices.DeleteFunc(out, func(o admin.Offer) bool { return !o.Holds || !o.Public || o.Hidden != nil })
}

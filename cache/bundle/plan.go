package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// Export is an image that is to be carried: its manifest as the catalogue has
// it, its facts filled in, and of each of its files what the store knows.
type Export struct {
	Manifest manifest.Manifest
	Files    []verify.Digests
}

// PlanOptions are the choices of Plan. Required: ID, Created.
type PlanOptions struct {
	ID         uuid.UUID
	Created    time.Time
	Mirror     Mirror
	Since      string // what Have is, in words
	Have       []Held // what the receiver has: left out, and required
	VolumeSize int64  // bytes of a volume's tar, at most; 0: one volume, of any size
}

const (
	maxSigned = blockSize + 1<<10 // what a volume keeps free for the signature
	minRoom   = 1 << 20           // a part smaller than that is not worth beginning
)

// Plan says what a bundle of images looks like: origins before what needs them, else in the given
// order. Images that o.Have has with the same files are left out. Every origin must be in one of
// the two. Files stay whole unless they are larger than a volume; those that are cut are read once,
// for the sums of their parts, and errors that they are wrong match verify.ErrMismatch.
func Plan(ctx context.Context, images []Export, o PlanOptions, c Content) (Index, error) {
	p := planner{options: o, have: make(map[uuid.UUID]Held, len(o.Have)), given: make(map[uuid.UUID]Export, len(images)), done: make(map[uuid.UUID]bool)}
	for _, h := range o.Have {
		p.have[h.UUID] = h
	}
	for _, e := range images {
		p.given[e.Manifest.UUID] = e
	}
	p.index = Index{
		Format: indexFormat, Version: indexVersion,
		ID: o.ID, Created: o.Created.UTC().Truncate(time.Second), Mirror: o.Mirror, Since: o.Since,
	}
	for _, e := range images {
		if err := p.add(e.Manifest.UUID, 0); err != nil {
			return Index{}, err
		}
	}
	if n := max(len(p.index.Images), len(p.index.Requires)); n > MaxImages {
		return Index{}, fmt.Errorf("%d images: a bundle has %d at most", n, MaxImages)
	}
	web := p.web.bytes()
	p.index.Web = Item{Path: WebName, Size: int64(len(web)), SHA256: sha256.Sum256(web)}
	if err := p.fit(); err != nil {
		return Index{}, err
	}
	if err := p.sumParts(ctx, c); err != nil {
		return Index{}, err
	}
	b, err := encode(p.index)
	if err != nil {
		return Index{}, fmt.Errorf("index of the bundle: %w", err)
	}
	return ParseIndex(b) // what is written can be read
}

type planner struct {
	options PlanOptions
	have    map[uuid.UUID]Held
	given   map[uuid.UUID]Export
	done    map[uuid.UUID]bool // in the index, or in its requires
	index   Index
	web     webList
}

// maxChain is how many origins an image may have (spec G4).
const maxChain = manifest.MaxChain - 1

// add adds an image, behind its origins.
func (p *planner) add(id uuid.UUID, depth int) error {
	if p.done[id] {
		return nil
	}
	e, given := p.given[id]
	held, has := p.have[id]
	if !given || has && slices.EqualFunc(held.Files, e.Files, func(sum verify.Sum, is verify.Digests) bool { return sum == is.SHA1 }) {
		if !has {
			return errors.New("is not to be exported, nor does the receiver have it")
		}
		p.done[id] = true
		p.index.Requires = append(p.index.Requires, held)
		return nil
	}
	m := e.Manifest
	if m.HasOrigin() {
		if depth == maxChain {
			return fmt.Errorf("image %s: more than %d origins", id, maxChain)
		}
		if err := p.add(m.Origin, depth+1); err != nil {
			return fmt.Errorf("image %s: origin %s: %w", id, m.Origin, err)
		}
	}
	im, err := entryOf(e)
	if err != nil {
		return fmt.Errorf("image %s: %w", id, err)
	}
	if err := p.web.add(m, im.Files); err != nil {
		return err
	}
	p.done[id] = true
	p.index.Images = append(p.index.Images, im)
	return nil
}

// entryOf is what the index says of an image, but for volumes.
func entryOf(e Export) (Image, error) {
	m := e.Manifest
	if len(e.Files) != len(m.Files) || len(m.Files) == 0 {
		return Image{}, fmt.Errorf("%d of its %d files are known: there must be one at least, and all", len(e.Files), len(m.Files))
	}
	id := m.UUID.String()
	text, original := manifestTexts(m)
	im := Image{
		UUID: m.UUID, Origin: m.Origin, Name: m.Name, Version: m.Version,
		Manifest: Item{Path: id + "/" + manifestName, Size: int64(len(text)), SHA256: sha256.Sum256(text)},
		Original: original,
	}
	compressions := make([]string, len(m.Files))
	for i, f := range m.Files {
		compressions[i] = f.Compression
	}
	for i, name := range fileNames(m.FilePaths(), compressions) {
		want, is := m.Files[i], e.Files[i]
		if err := (verify.Want{SHA1: want.SHA1, Size: want.Size}).Check(is); err != nil {
			return Image{}, fmt.Errorf("file %d is not the manifest's: %w", i, err)
		}
		im.Files = append(im.Files, File{Path: id + "/" + name, Size: is.Size, SHA1: is.SHA1, SHA256: is.SHA256})
	}
	return im, nil
}

// manifestTexts gives the text of manifest.json, which imgadm takes, and the manifest as the mirror has it, for
// the index; original is empty where the first is the same.
func manifestTexts(m manifest.Manifest) (text []byte, original string) {
	text = m.InstallText()
	if bytes.Equal(text, m.Raw()) {
		return text, ""
	}
	return text, strings.ToValidUTF8(string(m.Raw()), "\ufffd") // the index is JSON, which takes nothing else
}

// fit puts the files into volumes. How much room the index leaves depends on
// where the files are, so it is tried until it fits.
func (p *planner) fit() error {
	limit := p.options.VolumeSize
	if limit == 0 {
		p.place(1<<62, 1<<62)
		return nil
	}
	var overhead int64
	for range 20 {
		room := (limit - overhead - maxSigned - trailer) &^ (blockSize - 1)
		if room < minRoom {
			return fmt.Errorf("%w: %d bytes are too small: here they need %d at least", ErrVolumeSize, limit, overhead+maxSigned+trailer+minRoom)
		}
		p.place(room, min(room, minRoom))
		if p.index.Volumes > maxVolumes {
			return fmt.Errorf("%w: of %d bytes %d are needed, %d is the most there may be", ErrVolumeSize, limit, p.index.Volumes, maxVolumes)
		}
		needs, err := p.overhead()
		if err != nil {
			return err
		}
		if needs <= overhead {
			return nil
		}
		overhead = needs
	}
	return fmt.Errorf("%w: no way was found to make some of %d bytes", ErrVolumeSize, limit)
}

// place puts each file where it fits: in the volume at hand, or whole in the
// next, or in parts from here on. room is what a volume has for files.
func (p *planner) place(room, least int64) {
	volume, left := 1, room
	takes := func(size int64) int64 { return headerSize(size) + size + padding(size) }
	for i := range p.index.Images {
		for j := range p.index.Images[i].Files {
			f := &p.index.Images[i].Files[j]
			f.Volume, f.Parts = 0, nil
			n := takes(f.Size)
			if n <= room {
				if n > left {
					volume, left = volume+1, room
				}
				f.Volume = volume
				left -= n
				continue
			}
			for rest := f.Size; rest > 0; {
				if left < least {
					volume, left = volume+1, room
				}
				size := min(rest, left-headerSize(left))
				f.Parts = append(f.Parts, Part{Item{Path: partName(f.Path, len(f.Parts)), Size: size}, volume})
				rest -= size
				left -= takes(size)
			}
		}
	}
	p.index.Volumes = volume
}

// overhead is what a volume needs at most besides files and signature.
func (p *planner) overhead() (int64, error) {
	b, err := encode(p.index)
	if err != nil {
		return 0, fmt.Errorf("index of the bundle: %w", err)
	}
	x := p.index
	x.raw = b
	var most int64
	for volume := 1; volume <= x.Volumes; volume++ {
		n := int64(len(SHA256{}.String()) + len("  "+SignatureName+"\n"))
		for _, e := range (Head{Index: x, Volume: volume}).Entries() {
			if e.File < 0 {
				n += e.end() - e.At
			}
		}
		most = max(most, n)
	}
	return most + blockSize, nil // the signature's line may begin another block
}

// sumParts reads the files that are in parts.
func (p *planner) sumParts(ctx context.Context, c Content) error {
	for _, im := range p.index.Images {
		for j := range im.Files {
			if f := &im.Files[j]; len(f.Parts) > 0 {
				if err := sumFile(ctx, f, c); err != nil {
					return fmt.Errorf("image %s: %s: %w", im.UUID, f.Path, err)
				}
			}
		}
	}
	return nil
}

func sumFile(ctx context.Context, f *File, c Content) error {
	r, err := c.File(ctx, f.SHA1)
	if err != nil {
		return err
	}
	defer r.Close()
	whole := sha256.New()
	for k := range f.Parts {
		part := sha256.New()
		if _, err := io.CopyN(io.MultiWriter(whole, part), untilDone{ctx, r}, f.Parts[k].Size); err != nil {
			return shorter(err)
		}
		part.Sum(f.Parts[k].SHA256[:0])
	}
	if got := SHA256(whole.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%w: sha256 is %s, want %s", verify.ErrMismatch, got, f.SHA256)
	}
	return nil
}

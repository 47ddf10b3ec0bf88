package catalog

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Document is the reply with one manifest, as a client gets it. Immutable.
type Document struct {
	Path string // of IMGAPI: /images/UUID
	Body []byte
	ETag string // strong, unquoted
	// Headers is for the headers of replies; nil: the Document is not kept.
	Headers *Account

	id   uuid.UUID
	form documentForm
}

// documentForm tells the documents of one image apart.
type documentForm struct {
	named   bool   // with the image's channels (spec 2.2)
	dsapi   bool   // DSAPI's form (spec 3.2)
	base    string // of the URLs in it
	channel string // to which the URLs lead
	text    *byte  // of the manifest behind DSAPI's form
}

const (
	// keptDocuments is the number of documents that a list keeps.
	keptDocuments = 2048
	// keptBody bounds the body of a kept document; with keptDocuments, a list keeps 8 MiB at most, beside headers.
	keptBody = 4 << 10
)

// documents are the documents that clients have asked for. Each document has one place by its image
// and form, and gives the place away to the next one.
type documents [keptDocuments]atomic.Pointer[Document]

// kept is the number of documents that are kept.
func (ds *documents) kept() (n int) {
	for i := range ds {
		if ds[i].Load() != nil {
			n++
		}
	}
	return n
}

// get finds the document of an image in a form, or keeps the one that is made of body; nil when body gives
// nothing.
func (ds *documents) get(id uuid.UUID, form documentForm, body func() []byte) *Document {
	place := binary.LittleEndian.Uint32(id[:]) ^ binary.LittleEndian.Uint32(id[12:]) // 0 to 3 and 12 to 15 are random in each version
	if form.named {
		place++
	}
	if form.dsapi {
		place += 2
	}
	at := &ds[place%keptDocuments]
	if d := at.Load(); d != nil && d.id == id && d.form == form {
		return d
	}
	made := body()
	if len(made) == 0 {
		return nil
	}
	form.base, form.channel = strings.Clone(form.base), strings.Clone(form.channel) // may be parts of a whole request
	sum := sha1.Sum(made)
	d := &Document{Path: "/images/" + id.String(), Body: made, ETag: hex.EncodeToString(sum[:]), id: id, form: form}
	if len(made) <= keptBody {
		d.Headers = new(Account)
		at.Store(d)
	}
	return d
}

// Document is the reply with an image's manifest for clients that name no channel; named: with the image's
// channels. The result is nil for an image of which the list alone does not tell: see Catalog.Get.
func (l *List) Document(id uuid.UUID, named bool) *Document {
	return l.documents.get(id, documentForm{named: named}, func() []byte {
		r, ok := l.record(id)
		if !ok || !l.Reaches(l.DefaultChannel(), *r.manifest) || terse(r.manifest) || r.manifest.Incomplete() != "" {
			return nil
		}
		if named {
			return r.manifest.V2Channels()
		}
		return r.manifest.V2()
	})
}

// Dataset is the reply with DSAPI's form of m, which Catalog.Get or a List gave. Its URLs begin with base, and
// lead to channel; "" names none.
func (l *List) Dataset(m manifest.Manifest, base, channel string) *Document {
	form := documentForm{dsapi: true, base: base, channel: channel, text: &m.V2()[0]}
	return l.documents.get(m.UUID, form, func() []byte { return m.V1(base, channel) })
}

package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/history"
	"imgmirror/verify"
)

const (
	// maxDrafts bounds the drafts, maxDraftsOf those of one address.
	maxDrafts   = 16
	maxDraftsOf = 4
	// maxDraftBytes bounds the files of all drafts: two of the largest size.
	maxDraftBytes = 40 << 30
	// draftLife is how long a draft lasts without a request.
	draftLife = 10 * time.Minute
)

// Errors of drafts; others are those of Publish and Unpublish.
var (
	// ErrManyDrafts says that no further image can be imported now, or no further file be taken.
	ErrManyDrafts = errors.New("too many images wait for their activation")
	// ErrDraftBusy says that another request works on the draft.
	ErrDraftBusy = errors.New("another request works on the image just now")
	// ErrActivated says that the image is published already.
	ErrActivated = errors.New("the image is activated already")
	// ErrNoFile says that the file has not come yet.
	ErrNoFile = errors.New("the image has no file yet")
	// ErrWriter says that the image is not the writer's to change.
	ErrWriter = errors.New("the image is not this writer's")
)

// Writer is a client that writes images by the requests of image servers.
type Writer struct {
	Address netip.Addr
	// Trusted: the writer has the token, and may touch images of all writers, published ones too.
	Trusted bool
}

// draft is an image between its import and its activation: IMGAPI calls such an image unactivated. A
// draft is in memory only, and in no list; its uuid is reserved. Its file, once there, is in the
// cache, of no image, and held by a Reader.
type draft struct {
	by   Writer
	done func()        // ends the reservation
	turn chan struct{} // a token in it: a request works on the draft; guards what follows
	gone chan struct{} // closed once the draft has ended

	image manifest.Unactivated
	file  *cache.Reader // nil: none

	// drafts.mu guards:
	bytes  int64              // booked for the file
	sum    verify.Sum         // of the file that is coming, or is there; zero: none
	last   time.Time          // end of the last request
	cancel context.CancelFunc // ends the upload under way; nil: there is none
	ending bool               // Drop waits for the turn
}

// drafts are all drafts.
type drafts struct {
	count, bytes prometheus.Gauge

	// files keeps a file from being removed while a draft begins to need the file; before mu.
	files sync.Mutex

	mu  sync.Mutex // guards all, and what drafts say; a leaf
	all map[uuid.UUID]*draft
}

func (s *drafts) init(reg prometheus.Registerer) {
	s.all = make(map[uuid.UUID]*draft)
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	s.count = gauge("imgmirror_drafts", "Images that were imported by a client and wait for their activation.")
	s.bytes = gauge("imgmirror_draft_bytes", "Size of the files of images that wait for their activation.")
	gauge("imgmirror_drafts_limit", "Limit of imgmirror_drafts.").Set(maxDrafts)
	gauge("imgmirror_draft_limit_bytes", "Limit of imgmirror_draft_bytes.").Set(maxDraftBytes)
}

// add takes d in, or fails: there is no room.
func (s *drafts) add(id uuid.UUID, d *draft) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for _, other := range s.all {
		if other.by.Address == d.by.Address {
			same++
		}
	}
	if len(s.all) >= maxDrafts || same >= maxDraftsOf {
		return fmt.Errorf("image %s: %w: activate or delete them", id, ErrManyDrafts)
	}
	s.all[id] = d
	s.count.Inc()
	return nil
}

// find gives the draft of id that by may touch; nil: there is no such draft.
func (s *drafts) find(id uuid.UUID, by Writer) (*draft, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.all[id]
	if d != nil && !by.Trusted && d.by.Address != by.Address {
		return nil, fmt.Errorf("image %s: %w: another address imports it", id, ErrWriter)
	}
	return d, nil
}

// book sets the bytes of d's file, 0 for no file.
func (s *drafts) book(d *draft, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := n - d.bytes
	for _, other := range s.all {
		sum += other.bytes
	}
	if n > d.bytes && sum > maxDraftBytes {
		return fmt.Errorf("%w: their files have more than %d bytes", ErrManyDrafts, int64(maxDraftBytes))
	}
	d.bytes = n
	s.bytes.Set(float64(sum))
	return nil
}

// need notes which file d needs from now on, zero for none.
func (s *drafts) need(d *draft, sum verify.Sum) {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	d.sum = sum
}

// needed tells whether a draft needs a file. s.files is held.
func (s *drafts) needed(sum verify.Sum) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all {
		if d.sum == sum {
			return true
		}
	}
	return false
}

// remove ends d, and gives the draft's room and uuid free. The caller has the turn of d.
func (s *drafts) remove(id uuid.UUID, d *draft) {
	s.book(d, 0) //nolint:errcheck // always nil
	s.mu.Lock()
	delete(s.all, id)
	s.count.Dec()
	s.mu.Unlock()
	close(d.gone)
	d.done()
}

// end cancels the upload of d under way, and has no further one begin as long as ending is true.
func (s *drafts) end(d *draft, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.ending = ending; ending && d.cancel != nil {
		d.cancel()
	}
}

// upload notes that an upload for d begins, which cancel ends; false: the draft is about to end.
func (s *drafts) upload(d *draft, cancel context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.cancel = cancel
	return !d.ending
}

// takeDraft gives the draft of id and its turn, which the caller gives back by rest, or keeps for remove.
func (m *Mirror) takeDraft(id uuid.UUID, by Writer) (*draft, error) {
	d, err := m.drafts.find(id, by)
	if err != nil {
		return nil, err
	}
	if d == nil {
		if _, published := m.published.Provenance(id); published {
			return nil, fmt.Errorf("image %s: %w", id, ErrActivated)
		}
		return nil, tell(fs.ErrNotExist, "image %s waits for nothing here: import it first", id)
	}
	select {
	case d.turn <- struct{}{}:
		return d, nil
	default:
		return nil, fmt.Errorf("image %s: %w", id, ErrDraftBusy)
	}
}

// rest gives the turn of d back.
func (m *Mirror) rest(d *draft) {
	m.drafts.mu.Lock()
	d.last, d.cancel = time.Now(), nil
	m.drafts.mu.Unlock()
	<-d.turn
}

// Import begins an image by its manifest, which ParseUnactivated reads: the uuid must be id, and new,
// and the origin there. The draft ends by Activate, by Drop, or after ten minutes without a request.
func (m *Mirror) Import(ctx context.Context, by Writer, id uuid.UUID, text []byte) (manifest.Unactivated, error) {
	image, err := manifest.ParseUnactivated(text)
	if err != nil {
		return image, err
	}
	is := image.Manifest()
	if is.UUID != id {
		return image, &manifest.ParseError{Image: id, Field: "uuid", Reason: fmt.Sprintf("is %s in the manifest", is.UUID)}
	}
	done, err := m.reserve(is)
	if err != nil {
		return image, err
	}
	d := &draft{by: by, done: done, turn: make(chan struct{}, 1), gone: make(chan struct{}), image: image, last: time.Now()}
	if err = m.drafts.add(id, d); err != nil {
		done()
		return image, err
	}
	d.turn <- struct{}{}
	if err := m.checkOrigin(ctx, is); err != nil {
		m.drafts.remove(id, d)
		return image, fmt.Errorf("image %s: %w", id, err)
	}
	m.rest(d)
	return image, nil
}

// Activate publishes the draft of id, which has its file: the same as the end of Publish.
func (m *Mirror) Activate(ctx context.Context, by Writer, id uuid.UUID) (manifest.Manifest, error) {
	d, err := m.takeDraft(id, by)
	if err != nil {
		return manifest.Manifest{}, err
	}
	image, err := d.image.Activate()
	if d.file == nil {
		err = ErrNoFile
	}
	if listed, _ := m.Current().Entry(id); listed.Source != "" {
		err = fmt.Errorf("%w: source %s has it by now", ErrExists, listed.Source)
	}
	if err == nil {
		err = m.own(image)
	}
	if err != nil {
		defer m.rest(d)
		return manifest.Manifest{}, fmt.Errorf("image %s: %w", id, err)
	}
	d.release()
	m.drafts.need(d, verify.Sum{})
	defer m.drafts.remove(id, d)
	if err := m.enlist(context.WithoutCancel(ctx), image); err != nil {
		return manifest.Manifest{}, fmt.Errorf("image %s: %w", id, err)
	}
	m.forgetUpload(image.Files[0].SHA1)
	m.history.Add(m.eventOf(image.UUID, history.KindPublished))
	return image, nil
}

// Drop ends the draft of id, and an upload under way with the draft; the file goes too, unless an
// image or another draft has the same. Of a trusted writer Drop takes a published image back, by
// Unpublish.
func (m *Mirror) Drop(ctx context.Context, by Writer, id uuid.UUID) error {
	d, err := m.drafts.find(id, by)
	if err != nil {
		return err
	}
	if d == nil {
		if _, published := m.published.Provenance(id); published && !by.Trusted {
			return fmt.Errorf("image %s: %w: it is published, and only the token takes it back", id, ErrWriter)
		}
		_, err := m.Unpublish(ctx, id)
		return err
	}
	m.drafts.end(d, true)
	select {
	case d.turn <- struct{}{}:
		return m.endDraft(context.WithoutCancel(ctx), id, d)
	case <-d.gone:
		return fmt.Errorf("image %s: %w", id, ErrDraftBusy)
	case <-ctx.Done():
		m.drafts.end(d, false)
		return context.Cause(ctx)
	}
}

// endDraft ends d with its file. The caller has the turn of d.
func (m *Mirror) endDraft(ctx context.Context, id uuid.UUID, d *draft) error {
	err := m.dropFile(ctx, d)
	m.drafts.remove(id, d)
	return err
}

// endDrafts ends the drafts that have been without a request for so long.
func (m *Mirror) endDrafts(ctx context.Context, life time.Duration) {
	var quiet []uuid.UUID
	m.drafts.mu.Lock()
	for id, d := range m.drafts.all {
		if time.Since(d.last) >= life {
			quiet = append(quiet, id)
		}
	}
	m.drafts.mu.Unlock()
	for _, id := range quiet {
		d, err := m.takeDraft(id, Writer{Trusted: true})
		if err != nil {
			continue // a request has come, or has ended the draft
		}
		err = m.endDraft(ctx, id, d)
		m.log.Info("an image that was imported and not activated is forgotten", "uuid", id, "writer", d.by.Address, "error", err)
	}
}

package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/meaning"
	"imgmirror/verify"
)

// BundlePlan lists images with their origins, origins first, and what bundles of them are made of.
func (c *Client) BundlePlan(ctx context.Context, w BundleWanted) ([]Bundled, error) {
	return ask[[]Bundled](ctx, c, http.MethodPost, "/bundle/plan", w)
}

// File opens a file on the mirror's disk at an offset below its size. What comes
// is what the mirror has; who needs to be sure hashes it.
func (c *Client) File(ctx context.Context, sum verify.Sum, offset int64) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, "/files/"+sum.String(), nil)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		want = http.StatusPartialContent
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s, want status %d", req.URL, resp.Status, want)
	}
	return resp.Body, nil
}

const (
	// endTimeout bounds the last question of an import whose context has ended.
	endTimeout = 10 * time.Second
	// aliveEvery is the time between two signs of life of an import.
	aliveEvery = 20 * time.Second
)

// ImportBundle reads the tar of a volume, brings the mirror what it lacks, and tells what became of
// all images of the bundle; of an import that broke off, too, if the mirror has begun it. Of a
// volume that can be sought in, bytes that the mirror has are not read. progress is told how many
// bytes have been sent, of how many, by one call after the other.
func (c *Client) ImportBundle(ctx context.Context, volume io.Reader, progress func(sent, total int64)) (BundleImport, error) {
	s := &sending{c: c, progress: progress, alive: func() {}}
	_, err := bundle.Read(ctx, volume, s)
	s.alive()
	if s.told.ID == "" {
		return s.told, err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	if err == nil {
		cancel()
		end = ctx
	}
	defer cancel()
	last, endErr := ask[BundleImport](end, c, http.MethodDelete, "/bundle/"+s.told.ID, nil)
	if endErr != nil {
		return s.reached(), cmp.Or(err, endErr)
	}
	last.KeepRefusals(s.told)
	return last, err
}

// sending is a bundle.Sink that brings a mirror what it lacks of a volume.
type sending struct {
	c        *Client
	told     BundleImport // what the mirror has said, and what it has refused since
	images   []bundle.Image
	sent     int64
	total    int64
	progress func(sent, total int64)
	alive    func() // ends the signs of life
}

// keepAlive asks after the import until the caller calls stop, which waits for the last question.
// A volume makes no request by itself while its reads give no byte, or bytes that the mirror has.
func (s *sending) keepAlive(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		t := time.NewTicker(aliveEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				_, _ = ask[BundleImport](ctx, s.c, http.MethodGet, "/bundle/"+s.told.ID, nil) // the next file tells
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		asking.Wait()
	}
}

// reached is what the mirror has told, of a mirror that tells no more.
func (s *sending) reached() BundleImport {
	for i := range s.told.Images {
		image := &s.told.Images[i]
		if image.State != ImageWaiting {
			continue
		}
		image.State = ImageAdded
		for f, file := range s.images[i].Files {
			if image.Have[f] < file.Size {
				image.State = ImageWaiting
				image.Error = &Error{codeIncomplete, fmt.Sprintf("file %s is missing from byte %d on", file.Path, image.Have[f])}
				break
			}
		}
	}
	return s.told
}

// Begin has the mirror decide whether the bundle is taken.
func (s *sending) Begin(ctx context.Context, h bundle.Head, manifests [][]byte) error {
	var err error
	s.told, err = ask[BundleImport](ctx, s.c, http.MethodPost, "/bundle", BundleHead{Index: h.Index.Bytes(), Signature: h.Sig, Manifests: manifests, Volume: h.Volume})
	if err != nil {
		return err
	}
	if len(s.told.Images) != len(h.Index.Images) || s.told.ID == "" {
		return fmt.Errorf("the mirror's answer is not about the bundle: it has %d images of %d", len(s.told.Images), len(h.Index.Images))
	}
	s.images = h.Index.Images
	for _, e := range h.Entries() {
		if from, ok := s.lacks(e); ok {
			s.total += e.Begin + e.Size - from
		}
	}
	s.alive = s.keepAlive(ctx)
	return nil
}

// lacks tells from which byte of the file on the mirror takes an entry; false: the mirror takes
// nothing of the entry. An earlier part has to come first.
func (s *sending) lacks(e bundle.Entry) (from int64, ok bool) {
	if e.File < 0 || e.File >= len(s.told.Images[e.Image].Have) {
		return 0, false
	}
	image := s.told.Images[e.Image]
	from = image.Have[e.File]
	return from, image.State != ImageRefused && e.Begin <= from && from < e.Begin+e.Size
}

// File sends what the mirror lacks. An answer against a file refuses the image, unless the mirror
// has ended the import, or stops.
func (s *sending) File(ctx context.Context, p *bundle.Piece) error {
	from, ok := s.lacks(p.Entry)
	if !ok {
		return nil
	}
	if err := p.Skip(from - p.Begin); err != nil {
		return err
	}
	path := fmt.Sprintf("/bundle/%s/files/%s?offset=%d", s.told.ID, s.images[p.Image].Files[p.File].SHA1, from)
	now, err := s.put(ctx, path, p, p.Begin+p.Size-from)
	image := &s.told.Images[p.Image]
	told := (*Error)(nil)
	if errors.As(err, &told) && told.Code != meaning.NotFound && told.Code != meaning.Unavailable {
		image.State, image.Error = ImageRefused, told
		return nil
	}
	if err == nil {
		image.Have[p.File] = now.Have
	}
	return err
}

// put sends size bytes of body, which is not read any more when put has returned.
func (s *sending) put(ctx context.Context, path string, body io.Reader, size int64) (now ImportedFile, err error) {
	closed := make(chan struct{})
	req, err := s.c.request(ctx, http.MethodPut, path, &sentBody{body, s, sync.OnceFunc(func() { close(closed) })})
	if err != nil {
		return now, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", typeBytes)
	req.Header.Set("Expect", "100-continue") // a mirror that has the bytes, or refuses them, says so before they are on their way
	resp, err := s.c.roundTrip(req)
	if err == nil {
		err = decodeReply(resp, &now)
		resp.Body.Close() // read only
	}
	<-closed // net/http may read on when it has the answer
	return now, err
}

// sentBody is the body of a request.
type sentBody struct {
	io.Reader
	s    *sending
	done func()
}

// Read shows how far the volume is.
func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.s.sent += int64(n)
	b.s.progress(b.s.sent, b.s.total)
	return n, err
}

// Close leaves the rest of the Reader to bundle.Read.
func (b *sentBody) Close() error {
	b.done()
	return nil
}

// sendBuffer is how much of a request's body is written to a connection at a time.
const sendBuffer = 512 << 10

// wideConn is a connection to which net/http writes bodies in large pieces.
type wideConn struct{ net.Conn }

// ReadFrom is how net/http writes what follows a request's header. io.CopyBuffer uses its buffer
// where a Reader and a Writer can do no more than read and write.
func (c wideConn) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{c.Conn}, struct{ io.Reader }{r}, make([]byte, sendBuffer))
}

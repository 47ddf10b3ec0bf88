package catalog

import (
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

const (
	lookDeadline  = 10 * time.Second // one look at a file of a source
	lookSlots     = 4                // of those of one pass at the same time
	maxLooks      = 1024             // of all; most of them wait for their turn at a source
	lookMemory    = time.Hour        // of a look that was answered, and in vain
	unsureLook    = 30 * time.Second // of one that was not answered
	notAsked      = -1               // of one that a source was not asked for: none
	looksInterval = 2 * time.Second  // between lists that are built for what a pass has learned
)

// noFile stands in the place of an index for the question for what a list does not tell of an
// image.
const noFile = -1

// looks are the looks at files with terse manifests, the questions for manifests of terse entries,
// and the memory of both in vain. A file that is broken at its source is not looked at with each
// refresh.
type looks struct {
	mu      sync.Mutex // guards what follows; no other lock is taken while it is held
	running map[manifest.FileID]*looking
	vain    map[manifest.FileID]vain
	built   time.Time // when a list was last built for what was learned
}

// looking is a look under way, shared by all who want to know.
type looking struct {
	asker *asker // nil: the catalogue itself
	done  chan struct{}
}

// vain is the outcome of a look that has not told enough.
type vain struct {
	of    [sha1.Size]byte // the manifest
	until time.Time
	why   string
	asks  bool // the source could not tell: not that there is nothing
	busy  bool // the source was not asked
	kept  bool // what the file looks like is in the facts until then
}

// complete learns what images lack: of their files, of their origins, of these origins' files.
func (c *Catalog) complete(ctx context.Context) {
	c.completeFiles(ctx)
	c.completeChains(ctx)
	c.completeFiles(ctx)
}

// completeFiles learns what manifests of the current list do not tell of files, and clients need:
// from the file on disk, else from the file's beginning at its sources; of an image without files,
// from the manifest by uuid. The finds are saved, and in the list being served when completeFiles
// returns.
func (c *Catalog) completeFiles(ctx context.Context) {
	wanted := make(map[manifest.FileID]bool)
	list := c.Current()
	var g errgroup.Group
	g.SetLimit(lookSlots)
	for r := range list.all {
		for i := noFile; i < len(r.manifest.Files); i++ {
			if i == noFile && !(r.listed && terse(r.manifest)) || i != noFile && !c.lacks(r.manifest, i) {
				continue
			}
			wanted[manifest.FileID{Image: r.manifest.UUID, Index: i}] = true
			g.Go(func() error {
				if ctx.Err() == nil {
					_ = c.look(ctx, list.entry(r), i, false) // the next pass looks again
				}
				return nil
			})
		}
	}
	_ = g.Wait() // looks tell nothing by errors
	c.looks.forget(wanted)
	c.rebuild()
	c.saveDetails()
}

// lacks tells that file i of m needs a look: too little is known of the file, or a look found it
// unusable, which may have changed since.
func (c *Catalog) lacks(m *manifest.Manifest, i int) bool {
	switch f := &m.Files[i]; {
	case !f.Complete():
		return true
	case !f.Unusable():
		return false
	}
	c.looks.mu.Lock()
	defer c.looks.mu.Unlock()
	return c.looks.vain[manifest.FileID{Image: m.UUID, Index: i}].kept // else the whole file has told it
}

// completed is e with what its manifest lacks, if a source tells that while a client waits. For
// other mirrors (see via) e stays as it is. The error matches verify.ErrUnavailable when no source
// could tell of e's files, and ErrBusy too when a source was not asked.
func (c *Catalog) completed(ctx context.Context, e Entry) (Entry, error) {
	if !terse(&e.Manifest) && e.Manifest.Incomplete() == "" || len(via.From(ctx)) > 0 {
		return e, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	done, payer := make(chan error, 1), accountOf(ctx)
	if !c.spawn(func(life context.Context) { done <- c.lookAt(life, e, payer) }) {
		return e, nil
	}
	var refused error
	select {
	case refused = <-done:
	case <-ctx.Done():
	}
	now, ok := c.Current().Entry(e.Manifest.UUID)
	switch {
	case !ok:
		return e, nil
	case !terse(&now.Manifest) || !now.Listed:
		return now, nil
	}
	if err := cmp.Or(refused, c.looks.unsure(now.Manifest.UUID)); err != nil {
		return Entry{}, fmt.Errorf("files of image %s: %w", now.Manifest.UUID, err)
	}
	return now, nil
}

// lookAt learns what e lacks, for a client. The error is that of look for e itself.
func (c *Catalog) lookAt(ctx context.Context, e Entry, payer account) (refused error) {
	ctx = askedBy(ctx, newAsker(payer))
	if terse(&e.Manifest) && e.Listed {
		refused = c.look(ctx, e, noFile, true)
		e, _ = c.Current().Entry(e.Manifest.UUID)
		defer c.saveDetails()
	}
	for i := range e.Manifest.Files {
		if c.lacks(&e.Manifest, i) {
			_ = c.look(ctx, e, i, true) // what the list tells is enough for an answer
		}
	}
	return refused
}

// look learns what can be learned of file i of e, or with noFile of e itself, once for all callers,
// and returns after that. With now, the list being served has the find then; else the caller
// rebuilds the list. The error is errNotAsked: too many looks are under way.
func (c *Catalog) look(ctx context.Context, e Entry, i int, now bool) error {
	id := manifest.FileID{Image: e.Manifest.UUID, Index: i}
	of := sha1.Sum(e.Manifest.Raw())
	var onDisk manifest.Facts
	stored := false
	if i != noFile {
		onDisk, stored = c.opts.Stored(e.Manifest, i)
	}
	l := &c.looks
	l.mu.Lock()
	if running := l.running[id]; running != nil {
		l.mu.Unlock()
		running.joined(ctx)
		return nil
	}
	v, known := l.vain[id]
	inVain := known && v.of == of && time.Now().Before(v.until)
	switch {
	case inVain && !stored:
		l.mu.Unlock()
		return nil
	case len(l.running) >= maxLooks:
		l.mu.Unlock()
		c.metrics.refused.WithLabelValues(refusedLooks).Inc()
		return errNotAsked
	}
	running := &looking{asker: askerOf(ctx), done: make(chan struct{})}
	l.running[id] = running
	l.mu.Unlock()

	facts, learned, memory, why := onDisk, true, time.Duration(0), ""
	switch {
	case i == noFile:
		learned, memory, why = c.learnDetail(ctx, e)
	case !stored:
		facts, learned, memory, why = c.learn(ctx, e, i)
	}
	if learned && i != noFile {
		c.keepFacts(id, facts, why == "")
	}
	l.mu.Lock()
	delete(l.vain, id)
	if why != "" {
		l.vain[id] = vain{
			of: of, until: time.Now().Add(memory), why: why, kept: learned || known && v.kept,
			asks: i == noFile && memory == unsureLook, busy: i == noFile && memory == notAsked,
		}
	}
	build := learned && (now || time.Since(l.built) >= looksInterval)
	if build {
		l.built = time.Now()
	}
	l.mu.Unlock()
	if build {
		c.rebuild()
	}
	l.mu.Lock()
	delete(l.running, id)
	l.mu.Unlock()
	close(running.done)
	return nil
}

// joined waits until the look is over or ctx ends; ctx's asker wants the look, too.
func (l *looking) joined(ctx context.Context) {
	if k := askerOf(ctx); k != nil && l.asker != nil {
		l.asker.join(k.accounts[0])
	}
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}

// learn asks the sources for facts of file i of e; learned: there are some. why says what is still
// lacking, or why no node can receive the file; why is remembered for memory. Bytes without a
// verdict may be of a proxy, or change.
func (c *Catalog) learn(ctx context.Context, e Entry, i int) (f manifest.Facts, learned bool, memory time.Duration, why string) {
	if len(e.Holders) == 0 {
		return f, false, unsureLook, "no source may be asked"
	}
	var whys []string
	busy := false
	for _, h := range e.Holders {
		name := h.Source.Name()
		if i >= len(h.Manifest.Files) {
			continue
		}
		got, err := c.lookInto(ctx, h, i)
		if err != nil {
			whys = append(whys, fmt.Sprintf("source %s: %v", name, err))
		} else {
			f, learned = got, true
			m, _ := e.Manifest.WithFacts(i, got)
			file := &m.Files[i]
			switch {
			case file.Unusable():
				whys = append(whys, fmt.Sprintf("source %s: %s", name, m.Unusable()))
			case file.Complete():
				return f, true, 0, ""
			default:
				whys = append(whys, fmt.Sprintf("source %s does not tell it", name))
			}
		}
		busy = busy || errors.Is(err, ErrBusy)
		memory = max(memory, c.lookMemory(name, answered(err)))
	}
	switch {
	case len(whys) == 0:
		return f, false, unsureLook, "its sources have other files by now"
	case busy:
		memory = notAsked
	}
	return f, learned, memory, strings.Join(whys, "; ")
}

// lookMemory is how long a look in vain at source is remembered. A look into a folder costs
// nothing, and the file may come at any time.
func (c *Catalog) lookMemory(source string, answered bool) time.Duration {
	c.state.Lock()
	local := c.byName[source] != nil && c.byName[source].list.Kind == kindDirectory
	c.state.Unlock()
	switch {
	case local:
		return 0
	case answered:
		return lookMemory
	}
	return unsureLook
}

// lookInto looks at the beginning of file i at one source, in the turn of ctx's asker.
func (c *Catalog) lookInto(ctx context.Context, h Holder, i int) (manifest.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, lookDeadline)
	defer cancel()
	leave := func(bool) {}
	if s := c.byName[h.Source.Name()]; s != nil {
		var err error
		if leave, err = s.door.enter(ctx); err != nil {
			return manifest.Facts{}, err
		}
	}
	head, size, err := h.Source.Head(ctx, h.Manifest, i)
	leave(ctx.Err() == nil)
	if err != nil {
		return manifest.Facts{}, err
	}
	stated := h.Manifest.Files[i]
	if stated.Size > 0 && size >= 0 && size != stated.Size {
		return manifest.Facts{}, fmt.Errorf("%w: the manifest says %d bytes, the file has %d", fs.ErrNotExist, stated.Size, size)
	}
	if size < 0 {
		size = stated.Size
	}
	return manifest.Facts{SHA1: stated.SHA1, Size: size, Compression: h.Manifest.CompressionBy(i, verify.KindOf(head))}, nil
}

// forget drops the memory of files that are wanted no more.
func (l *looks) forget(wanted map[manifest.FileID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.vain, func(id manifest.FileID, _ vain) bool { return !wanted[id] })
}

// why says what came of the last looks at the files of m, if that was not enough.
func (l *looks) why(m *manifest.Manifest) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := noFile; i < len(m.Files); i++ {
		if v, ok := l.vain[manifest.FileID{Image: m.UUID, Index: i}]; ok {
			return v.why
		}
	}
	return ""
}

// unsure is an error if no source could tell yet what the list does not tell of the image id.
func (l *looks) unsure(id uuid.UUID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := manifest.FileID{Image: id, Index: noFile}
	switch v := l.vain[q]; {
	case v.busy:
		return errNotAsked
	case l.running[q] != nil || v.asks:
		return verify.ErrUnavailable
	}
	return nil
}

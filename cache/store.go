// Package cache owns the data folder: the index (in cache/index), the verified files
// named by sha1, the downloads in flight. It learns bytes only through the
// Open funcs of its callers, and lets none of them have a final name, or be
// read to the end, before verify has judged them. It knows nothing of HTTP.
//
// Disk is the truth for files, the index for what is known of them: an index
// that is lost is rebuilt from DATA/files and DATA/manifests.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/cache/ranges"
	"imgmirror/verify"
)

var (
	// ErrNoSpace says that there is no room for the file within max_size and min_free (or the disk said ENOSPC).
	ErrNoSpace = disk.ErrNoSpace
	// ErrDisk says that the data folder cannot be read or written just now: what is there is not known.
	ErrDisk = disk.ErrUnusable
	// ErrClosed says that the store is closing or closed.
	ErrClosed = index.ErrClosed
	// ErrRefused is the verify.ErrUnavailable of a file that each source which may have the file refuses to give.
	ErrRefused = fmt.Errorf("%w: the sources refuse to give the file", verify.ErrUnavailable)
	// ErrUnverified says that a file is not taken because neither its manifest nor a source tells a digest of it.
	ErrUnverified = errors.New("there is no sha1 or md5 to check the file against, and verify.allow_unverified is off")
)

// Options of Open. Required: Dir.
type Options struct {
	Dir             string
	MaxSize         int64         // bytes of files/ and partial/, but for loans (adr 16); 0 = no limit but MinFree. What was least recently used makes room.
	MinFree         int64         // bytes that stay free on the file system; likewise
	FillSlots       int           // fills at the same time; 0 = 8. Others wait in a queue.
	Streams         int           // ranges of one large file that are asked for at the same time, from each source; up to 1: one request is for all
	RangeMemory     int64         // bytes that the ranges of all fills may hold ahead of their Readers; 0 = 256 MiB
	StallTimeout    time.Duration // without a byte from a source; 0 = 20s
	MinRate         int64         // bytes a second, over a minute: a slower source is left for a much faster one; 0 = no limit
	Deadline        time.Duration // of a whole fill, its wait for a slot included; 0 = 24h
	Patience        time.Duration // how long a fill may try sources that refuse, or cannot be reached, before any has accepted; 0 = 2.5s (spec 5.5: a 503 within 3 s)
	AllowUnverified bool          // accept a file that nothing can be checked against
	Sources         []string      // names of all sources, so that their metrics are there at zero
	NoSweep         bool          // Run evicts nothing where a limit is passed: only fills that need room do, and Vacuum
	ScrubEvery      time.Duration // within that time each file is read again and checked; 0 = never
	ScrubRate       int64         // bytes a second that this takes, and Check four times as many; 0 = no limit
	OnRemove        func(Evicted) // called after a file, or an unfinished download, was removed to make room or by Remove; must not call Close, Vacuum or File; may be nil

	// OnPublish is called after a fill has been published, once for each image that waited for it;
	// by the fill, so also during Close. File calls it again for a file on disk of which b.Want
	// still has no sha1: the process may have ended before the first call was heard. It may call
	// SaveFacts and the like, but neither File nor Close. It may be nil.
	OnPublish func(Blob, Info)
	// OnEvent is told of what has happened to files. It must be quick, and call nothing of the Store
	// but what does no I/O; it may be nil.
	OnEvent func(Event)
	// Keep tells whether the files of an image must stay as if it were pinned. It
	// is asked again and again, with no lock held, and must be quick; nil: of none.
	Keep func(image uuid.UUID) bool
	// Heal brings the bytes of a file that was found wrong or gone anew, by File
	// with sources that it knows, and returns once they are stored; nil: there are none.
	Heal func(ctx context.Context, sum verify.Sum, size int64) error

	Logger     *slog.Logger // nil: silent
	Registerer prometheus.Registerer

	rateWindow time.Duration // over which MinRate counts; 0 = a minute

	diskRoom func(path string) (disk.Room, error) // what the disk has left for the index; nil: ask it
}

// Defaults of Options.
const (
	defaultFillSlots    = 8
	defaultRangeMemory  = 256 << 20
	defaultStallTimeout = 20 * time.Second
	defaultDeadline     = 24 * time.Hour
	defaultPatience     = 2500 * time.Millisecond
)

// Store is the data folder. All methods may be called concurrently.
type Store struct {
	o        Options
	log      *slog.Logger
	dir      folder
	lock     lock
	index    *index.Index
	space    *space
	advances advances
	metrics  *metrics
	slots    *slots
	ranges   *ranges.Memory

	followers  followers     // of digests that do not decide
	unrecorded chan struct{} // has a place for each download between its verdict and its record

	ctx       context.Context // of all fills; ends with ErrClosed as its cause
	cancel    context.CancelCauseFunc
	work      sync.WaitGroup // fills, adoptions, removals and what else changes files
	running   sync.WaitGroup // Run
	calls     sync.WaitGroup // index operations of callers: OnPublish may need them while fills end
	adoptions singleflight.Group
	pins      *pins
	copies    *copies
	wakeRun   chan struct{} // a token in it: the limits have changed
	places    *places
	health    atomic.Pointer[error] // what Health gives; nil: all is well
	hampered  atomic.Pointer[error] // what else the last look at the data folder has found; nil: nothing
	suspect   atomic.Bool           // a request has failed by the disk, and no look has tried that since

	quarantine quarantine
	checking   pace // of Check and of the scrub
	rounds     rounds

	// step is called with the name of each step of publishing, after it. Tests set it.
	step func(string)
	// tryDisk makes a file in a folder and removes it.
	tryDisk func(dir string) error
	// tend is when Run looks after an index that cannot be written; nil: each tendEvery. Tests set it.
	tend <-chan time.Time

	// These are held over I/O, since that is what they guard; they are taken in
	// this order, and before mu.
	evicting   turn       // making room
	lowered    time.Time  // when a file was last removed down to the low water of MinFree; guarded by evicting
	fileDoors  doors      // a file's final name and its record, by sum
	imageDoors doors      // an image's record and the copy of its manifest, by uuid
	names      sync.Mutex // the making of a partial file, and the removing of a stale one

	mu       sync.RWMutex           // guards what follows; never held over I/O; may be held while a fill's mu is taken, not the other way round
	closed   bool                   // no fill begins any more
	ended    bool                   // none is left: the index is being closed
	files    map[verify.Sum]*stored // verified files
	images   images                 // that have a file on disk
	aliases  aliases                // Blob.Key to the sum that its bytes turned out to have
	orphans  map[verify.Sum]int64   // files on disk of which the index knows nothing: adopted once hashed; their sizes
	partials map[string]Partial     // unfinished downloads that no fill is working on, by their files' names
	fills    map[string]*fill       // in flight, by Blob.fillKey
	liars    liars                  // who sent wrong bytes, and when: asked last
	suspects suspects               // who may have sent some of a wrong file
	changes  atomic.Uint64          // of files and aliases; read without mu
}

// Open opens or makes the data folder; a lost or unreadable index is rebuilt from disk, never a
// reason to fail. A second process on the same folder is refused, and so, by ErrFormat, is a folder of a later
// version's format. It starts nothing in the background but badger's own goroutines. ctx bounds the opening only.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	o.StallTimeout = cmp.Or(max(o.StallTimeout, 0), defaultStallTimeout)
	o.Deadline = cmp.Or(max(o.Deadline, 0), defaultDeadline)
	o.Patience = cmp.Or(max(o.Patience, 0), defaultPatience)
	o.rateWindow = cmp.Or(o.rateWindow, defaultRateWindow)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.diskRoom == nil {
		o.diskRoom = disk.RoomOf
	}
	s := &Store{
		o:      o,
		log:    o.Logger,
		dir:    folder(o.Dir),
		slots:  newSlots(o.FillSlots),
		ranges: ranges.NewMemory(cmp.Or(max(o.RangeMemory, 0), defaultRangeMemory)),
		step:   func(string) {},

		followers:  newFollowers(),
		unrecorded: make(chan struct{}, maxUnrecorded),

		evicting: newTurn(),
		checking: newPace(o.ScrubRate),

		tryDisk: tryDisk,

		wakeRun:  make(chan struct{}, 1),
		files:    make(map[verify.Sum]*stored),
		images:   newImages(),
		aliases:  newAliases(),
		orphans:  make(map[verify.Sum]int64),
		partials: make(map[string]Partial),
		fills:    make(map[string]*fill),
		liars:    make(liars),
		suspects: make(suspects),
	}
	s.space = newSpace(o.MaxSize, o.MinFree, func() (int64, error) {
		room, err := disk.RoomOf(o.Dir)
		return room.Free, err
	})
	if _, err := s.dir.checkFormat(); err != nil { // before the lock, which writes to the folder
		return nil, err
	}
	if s.lock, err = s.dir.acquire(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	written, err := s.dir.checkFormat() // again: until the lock was taken another process had the folder
	if err != nil {
		return nil, err
	}
	if err := s.dir.make(); err != nil {
		return nil, err
	}
	if s.places, err = learnPlaces(s.dir, s.log); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	s.quarantine = quarantine{s.places}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("data folder %s: %w", o.Dir, err)
	}
	if !written { // last: what was read can be read
		if err := s.dir.writeFormat(); err != nil {
			return nil, err
		}
	}
	if s.metrics, err = newMetrics(o.Registerer, o.Sources, s.Stats, s.space.limit, s.slots); err != nil {
		return nil, err
	}
	if err := errors.Join(s.metrics.roomMetrics(o.Registerer, s.advances.removed, s.space.loans, s.share), s.glanceMetrics(o.Registerer), rangeMetrics(o.Registerer, s.ranges), recordMetrics(o.Registerer, s.unrecorded)); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.loadRound()
	return s, nil
}

// Close ends fills (their readers get ErrClosed; what they have is kept for the
// next process), waits for them, records when files were used and closes the
// index. Readers of files that are on disk go on. Idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		s.Idle()
		s.running.Wait()
		return nil
	}
	s.cancel(ErrClosed)
	s.Idle()
	s.running.Wait()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.calls.Wait()
	return errors.Join(s.later(s.flushUses()), s.release())
}

// release gives back what Open took from the machine.
func (s *Store) release() error {
	var err error
	if s.index != nil {
		err = s.index.Close()
	}
	return errors.Join(err, s.lock.close())
}

// Idle returns when no fill, adoption or removal is under way that had begun before the call.
func (s *Store) Idle() { s.work.Wait() }

// enter announces an operation that Close has to wait for; unless it gives
// ErrClosed, s.work.Done must follow.
func (s *Store) enter() error { return s.join(&s.work, &s.closed) }

// enterIndex announces an index operation of a caller; unless it gives
// ErrClosed, s.calls.Done must follow.
func (s *Store) enterIndex() error { return s.join(&s.calls, &s.ended) }

func (s *Store) join(group *sync.WaitGroup, over *bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if *over {
		return ErrClosed
	}
	group.Add(1)
	return nil
}

// Peek tells what is on disk of the blob, verified; it opens and starts nothing.
func (s *Store) Peek(b Blob) (Info, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := s.find(b)
	if found.file == nil || found.wrong != nil {
		return Info{}, false
	}
	return found.file.Info, true
}

// found is what the tables know of a blob; all zero: nothing.
type found struct {
	sum     verify.Sum
	file    *stored
	wrong   error // the file is there, but the blob wants something else under the same sum
	orphan  bool  // the file is there, but was not hashed yet
	unnoted bool  // it is not known yet that the file is the blob's image's, or DATA/manifests has no copy of that
}

// find looks b up in the tables. s.mu is held.
func (s *Store) find(b Blob) (f found) {
	f.sum = b.Want.SHA1
	if f.sum.IsZero() {
		var known bool
		if f.sum, known = s.aliases.sums[b.Key]; !known {
			return found{}
		}
	}
	if f.file = s.files[f.sum]; f.file == nil {
		_, f.orphan = s.orphans[f.sum]
		return f
	}
	if err := b.Want.Check(f.file.Digests); err != nil {
		if b.Want.SHA1.IsZero() {
			return found{} // other bytes are meant by that key now
		}
		f.wrong = err
	}
	if b.ofImage() {
		f.unnoted = !s.copies.has(b.Image) || !s.images.has(b.Image, f.sum)
	}
	return f
}

package verify

import (
	"hash"
	"sync"
	"sync/atomic"
)

const (
	blockSize = 256 << 10 // bytes handed from the producer to the hashers at a time
	blocks    = 6         // blocks of one Writer; the producer waits when all are being hashed
	slack     = 32 << 10  // a block with less room than this is handed over: short reads are dear
)

// Writer takes digests of a sequence of bytes in one pass. Hashing runs beside the caller: sha1
// and sha256 on one goroutine, md5, the slowest, on another. Bytes come in by Write, which copies,
// or without a copy by Buffer and Commit. A Writer holds at most 1.5 MiB.
//
// A Writer is for one goroutine at a time. Digests or Close ends it and waits for its goroutines.
// Fewer bytes than one block start no goroutines.
type Writer struct {
	sums  sums
	lanes [][]hash.Hash // each is fed by a goroutine of its own

	size int64
	head []byte // the first kindLen bytes

	cur     *block
	made    int           // blocks made so far
	free    chan *block   // blocks that no hasher needs any more
	queues  []chan *block // one of each lane; nil until the first block is full
	hashing sync.WaitGroup

	ended bool
	got   Digests
}

type block struct {
	buf  []byte       // its length is the number of committed bytes
	left atomic.Int32 // hashers that still need the block
}

// NewWriter makes a Writer of all digests that has seen no bytes.
func NewWriter() *Writer { return NewWriterOf(All) }

// NewWriterOf makes a Writer of the digests of that set; the others stay zero.
func NewWriterOf(set Set) *Writer {
	w := &Writer{sums: newSums(set), free: make(chan *block, blocks)}
	for _, lane := range [][]hash.Hash{w.sums.of(set & (SHA1 | SHA256)), w.sums.of(set & MD5)} {
		if len(lane) > 0 {
			w.lanes = append(w.lanes, lane)
		}
	}
	return w
}

// Buffer gives room, never empty, for the next bytes: read into the room, then Commit. Buffer waits
// while the hashers are behind. The room is valid until the next call of any method but Commit.
func (w *Writer) Buffer() []byte {
	if w.ended {
		panic("verify: Writer used after its end")
	}
	if w.cur == nil {
		w.cur = w.block()
	}
	b := w.cur.buf
	return b[len(b):cap(b)]
}

// Commit says that the first n bytes of the last Buffer hold the next bytes of
// the sequence. They may be read, not written, until the next call of Buffer.
func (w *Writer) Commit(n int) {
	b := w.cur
	b.buf = b.buf[:len(b.buf)+n]
	w.size += int64(n)
	if len(w.head) < kindLen {
		fresh := b.buf[len(b.buf)-n:]
		w.head = append(w.head, fresh[:min(n, kindLen-len(w.head))]...)
	}
	if cap(b.buf)-len(b.buf) < slack {
		w.handOver()
	}
}

// Write adds p; it never fails and does not keep p.
func (w *Writer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := copy(w.Buffer(), rest)
		w.Commit(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// Digests ends the Writer and gives the digests of all that was committed.
// Digests may be called again.
func (w *Writer) Digests() Digests {
	if w.ended {
		return w.got
	}
	if w.cur != nil {
		if w.queues == nil { // all bytes are in one block: no goroutines
			w.sums.write(w.cur.buf)
		} else {
			w.handOver()
		}
	}
	w.Close()
	w.got = Digests{Size: w.size, Format: KindOf(w.head)}
	w.sums.fill(&w.got)
	return w.got
}

// Close ends a Writer whose digests are of no interest. Close may be called again, and after
// Digests, which stay valid.
func (w *Writer) Close() error {
	if w.ended {
		return nil
	}
	w.ended = true
	for _, q := range w.queues {
		close(q)
	}
	w.hashing.Wait()
	w.cur, w.free = nil, nil
	return nil
}

// block finds a block that is not in use, or waits for one.
func (w *Writer) block() *block {
	if len(w.free) == 0 && w.made < blocks {
		w.made++
		return &block{buf: make([]byte, 0, blockSize)}
	}
	b := <-w.free
	b.buf = b.buf[:0]
	return b
}

// handOver gives the current block to the hashers.
func (w *Writer) handOver() {
	if w.queues == nil {
		for _, lane := range w.lanes {
			q, free := make(chan *block, blocks), w.free
			w.queues = append(w.queues, q)
			w.hashing.Go(func() { hashAll(q, free, lane) })
		}
	}
	b := w.cur
	w.cur = nil
	b.left.Store(int32(len(w.queues)))
	for _, q := range w.queues {
		q <- b // never waits: there is room for every block
	}
}

func hashAll(in <-chan *block, free chan<- *block, hashes []hash.Hash) {
	for b := range in {
		for _, h := range hashes {
			h.Write(b.buf)
		}
		if b.left.Add(-1) == 0 {
			free <- b
		}
	}
}

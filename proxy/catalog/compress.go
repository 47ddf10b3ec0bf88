package catalog

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Encoding is a content coding of a prepared list.
type Encoding uint8

// The encodings.
const (
	Identity Encoding = iota
	Gzip
	Zstd
	encodings = iota
)

// tagEnds tell the encodings of one text apart in their validators.
var tagEnds = [encodings]string{"", "-gzip", "-zstd"}

// demandMemory is how long a new list comes with the encodings that clients have asked for.
const demandMemory = time.Hour

// demand tells which encodings of the whole list clients ask for. Without demand nothing is compressed.
type demand struct {
	asked [2][encodings]atomic.Bool // since the last list; without the images' channels, and with them
	last  [2][encodings]time.Time   // when asked was found true; by announce alone
}

// note notes that a client asks for an encoding.
func (d *demand) note(named bool, e Encoding) {
	if d == nil || e == Identity {
		return
	}
	// A store would take the cache line from all other clients.
	if asked := &d.asked[formOf(named)][e]; !asked.Load() {
		asked.Store(true)
	}
}

func formOf(named bool) int {
	if named {
		return 1
	}
	return 0
}

// makeReplies makes the encodings of the list being served that clients have asked for since the list before, or
// within an hour, so that the next client does not wait. A client that comes meanwhile waits for the rest of the time.
func (c *Catalog) makeReplies() {
	l, d := c.Current(), &c.demand
	view, ok := l.View(l.DefaultChannel())
	for form := range d.asked {
		for e := Gzip; e < encodings; e++ {
			if d.asked[form][e].Swap(false) {
				d.last[form][e] = time.Now()
			}
			if at := d.last[form][e]; ok && !at.IsZero() && time.Since(at) < demandMemory {
				view.body(form == formOf(true)).reply(e)
			}
		}
	}
}

// Lists up to these sizes are compressed with more effort: each byte is sent many times. The first
// client of an encoding waits for the compression.
const (
	muchEffort = 2 << 20
	moreEffort = 16 << 20
)

// compressed is text in an encoding.
func compressed(text []byte, e Encoding) []byte {
	if e == Zstd {
		level := zstd.SpeedDefault
		switch {
		case len(text) <= muchEffort:
			level = zstd.SpeedBestCompression
		case len(text) <= moreEffort:
			level = zstd.SpeedBetterCompression
		}
		// The options are right, so there is no error.
		w, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
		return bytes.Clone(w.EncodeAll(text, nil))
	}
	level := gzip.DefaultCompression
	switch {
	case len(text) <= muchEffort:
		level = gzip.BestCompression
	case len(text) <= moreEffort:
		level = gzip.BestCompression - 1
	}
	var buf bytes.Buffer
	buf.Grow(len(text) / 8)
	// The level is right, and writes to a bytes.Buffer do not fail.
	w, _ := gzip.NewWriterLevel(&buf, level)
	_, _ = w.Write(text)
	_ = w.Close()
	return bytes.Clone(buf.Bytes())
}

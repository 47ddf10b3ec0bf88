package catalog

import (
	"bytes"

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

// Lists up to these sizes are compressed with more effort: each byte is sent many times. The first
// client of a list waits for the compression.
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

package bundle

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

const (
	haveFormat = "imgmirror-have"
	maxHave    = maxIndex
)

// Have is what a mirror has, all files of it, for the making of a delta.
type Have struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Mirror  Mirror    `json:"mirror"`
	Images  []Held    `json:"images"`
}

// Bytes writes the list. Format and Version need not be set.
func (h Have) Bytes() ([]byte, error) {
	h.Format, h.Version, h.Created = haveFormat, indexVersion, h.Created.UTC().Truncate(time.Second)
	return encode(h)
}

// ParseHave reads what Bytes wrote. Errors match ErrInvalid.
func ParseHave(b []byte) (Have, error) {
	if len(b) > maxHave {
		return Have{}, fmt.Errorf("%w: list of images: %d bytes, at most %d are read", ErrInvalid, len(b), maxHave)
	}
	var h Have
	if err := decode(b, &h); err != nil {
		return Have{}, fmt.Errorf("%w: list of images: %.300w", ErrInvalid, err)
	}
	if h.Format != haveFormat || h.Version != indexVersion {
		return Have{}, fmt.Errorf("%w: list of images: format is %.50q, version %d; want %q, version %d",
			ErrInvalid, h.Format, h.Version, haveFormat, indexVersion)
	}
	known := make(map[uuid.UUID]bool, len(h.Images))
	for i, held := range h.Images {
		if err := checkHeld(held, known); err != nil {
			return Have{}, fmt.Errorf("%w: list of images: images[%d]: %w", ErrInvalid, i, err)
		}
	}
	return h, nil
}

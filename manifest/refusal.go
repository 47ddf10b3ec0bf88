package manifest

import (
	"errors"
	"slices"

	"github.com/google/uuid"
)

// maxRefusals is the number of refusals of one list that are kept; the others are only counted.
const maxRefusals = 100

// Refusal is one member of a list that ingestion left out.
type Refusal struct {
	UUID   uuid.UUID `json:"uuid,omitzero"`  // uuid.Nil: none could be read
	Skip   bool      `json:"skip,omitempty"` // left out in silence, see ErrSkip
	Reason string    `json:"reason"`         // one short line
}

// Refusals are the members of one list that ingestion left out. The zero value is "nothing".
type Refusals struct {
	Refused int       `json:"refused,omitempty"` // members that are no manifest, or a manifest that breaks imgadm
	Skipped int       `json:"skipped,omitempty"` // members left out in silence
	First   []Refusal `json:"first,omitempty"`   // the first hundred of both; replaced, never written to
}

// Add is r with further errors of Parse or ParseList.
func (r Refusals) Add(errs ...error) Refusals {
	r.First = slices.Clip(r.First)
	for _, err := range errs {
		r = r.Count(err)
		if len(r.First) == maxRefusals {
			continue
		}
		f := Refusal{Skip: errors.Is(err, ErrSkip), Reason: shorten(err.Error())}
		if pe, ok := errors.AsType[*ParseError](err); ok {
			f.UUID = pe.Image
		}
		r.First = append(r.First, f)
	}
	return r
}

// Count is r with one more error of Parse or ReadList, of which no more is told.
func (r Refusals) Count(err error) Refusals {
	if errors.Is(err, ErrSkip) {
		r.Skipped++
	} else {
		r.Refused++
	}
	return r
}

// Join is r with the refusals of a further part of the list.
func (r Refusals) Join(more Refusals) Refusals {
	r.Refused += more.Refused
	r.Skipped += more.Skipped
	room := maxRefusals - len(r.First)
	r.First = append(slices.Clip(r.First), more.First[:min(room, len(more.First))]...)
	return r
}

// Equal tells that both have the same refusals.
func (r Refusals) Equal(other Refusals) bool {
	return r.Refused == other.Refused && r.Skipped == other.Skipped && slices.Equal(r.First, other.First)
}

// Of gives the first refusal of the image id.
func (r Refusals) Of(id uuid.UUID) (Refusal, bool) {
	i := slices.IndexFunc(r.First, func(f Refusal) bool { return f.UUID == id })
	if i < 0 || id == uuid.Nil {
		return Refusal{}, false
	}
	return r.First[i], true
}

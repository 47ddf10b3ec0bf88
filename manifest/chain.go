package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// MaxChain is the largest number of images in a chain: an image, its origin, and so on down to the
// root. Real chains have ten or fewer.
const MaxChain = 256

var (
	// ErrChain is matched by the errors of chains that cannot be completed, for a reason that stays
	// when the caller asks again: an origin that does not exist, a ring, too many images.
	ErrChain = errors.New("the chain of origins is broken")
	// ErrChainEnd is the answer of Chain's find for an origin that the caller does not want, nor
	// anything below it.
	ErrChainEnd = errors.New("the chain ends here")
)

// ChainError is an ErrChain. The error of a missing origin matches fs.ErrNotExist as well.
type ChainError struct {
	Image   uuid.UUID // the image whose chain is broken
	Child   uuid.UUID // the image whose origin is missing; uuid.Nil for a ring and a chain that is too long
	Missing uuid.UUID // the missing origin
	Ring    []uuid.UUID
}

func (e *ChainError) Error() string {
	switch {
	case e.Child != uuid.Nil:
		return fmt.Sprintf("origin %s of image %s was not found", e.Missing, e.Child)
	case e.Ring != nil:
		names := make([]string, len(e.Ring))
		for i, id := range e.Ring {
			names[i] = id.String()
		}
		return fmt.Sprintf("the origins of image %s form a ring: %s", e.Image, strings.Join(names, ", "))
	}
	return fmt.Sprintf("image %s has more than %d origins", e.Image, MaxChain-1)
}

// Is makes every ChainError an ErrChain.
func (e *ChainError) Is(target error) bool {
	return target == ErrChain || target == fs.ErrNotExist && e.Child != uuid.Nil //nolint:errorlint // both are values
}

// Chain gives an image and its origins: first comes first, the root last. image reads a T. find
// gives an image by its uuid; its error matches fs.ErrNotExist for an image that does not exist,
// and ErrChainEnd for an image that the caller does not want, nor its origins. The error of Chain
// is a *ChainError, or the error of find with the names of the image and its origin.
func Chain[T any](first T, image func(T) Manifest, find func(id uuid.UUID) (T, error)) ([]T, error) {
	chain := []T{first}
	ids := []uuid.UUID{image(first).UUID}
	for m := image(first); m.HasOrigin(); {
		if at := slices.Index(ids, m.Origin); at >= 0 {
			return nil, &ChainError{Image: ids[0], Ring: append(ids[at:], m.Origin)}
		}
		if len(chain) == MaxChain {
			return nil, &ChainError{Image: ids[0]}
		}
		origin, err := find(m.Origin)
		switch {
		case errors.Is(err, ErrChainEnd):
			return chain, nil
		case errors.Is(err, fs.ErrNotExist):
			return nil, &ChainError{Image: ids[0], Child: m.UUID, Missing: m.Origin}
		case err != nil:
			return nil, fmt.Errorf("origin %s of image %s: %w", m.Origin, m.UUID, err)
		}
		chain, ids = append(chain, origin), append(ids, m.Origin)
		m = image(origin)
	}
	return chain, nil
}

// Chains gives images behind their origins, every image once. broken is called for an image with a
// broken chain, with the error of Chain: keep puts the image into the result without its origins,
// else the result has no such image.
func Chains[T any](images []T, image func(T) Manifest, find func(id uuid.UUID) (T, error), broken func(T, error) (keep bool)) []T {
	var all []T
	seen := make(map[uuid.UUID]bool, len(images))
	for _, first := range images {
		if seen[image(first).UUID] {
			continue
		}
		chain, err := Chain(first, image, find)
		if err != nil {
			if !broken(first, err) {
				continue
			}
			chain = []T{first}
		}
		for _, link := range slices.Backward(chain) {
			if id := image(link).UUID; !seen[id] {
				seen[id] = true
				all = append(all, link)
			}
		}
	}
	return all
}

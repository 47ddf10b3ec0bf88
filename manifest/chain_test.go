package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func chainID(n int) (id uuid.UUID) {
	if n > 0 {
		binary.BigEndian.PutUint32(id[:], uint32(n))
	}
	return id
}

// family is images by number with the numbers of their origins; 0 is none.
type family map[int]int

func (f family) find(id uuid.UUID) (Manifest, error) {
	n := int(binary.BigEndian.Uint32(id[:]))
	origin, ok := f[n]
	switch {
	case !ok:
		return Manifest{}, fmt.Errorf("nobody has %d: %w", n, fs.ErrNotExist)
	case origin < 0:
		return Manifest{}, errors.New("cannot tell")
	case origin == endOfChain:
		return Manifest{}, ErrChainEnd
	}
	return f.image(n), nil
}

const endOfChain = 1 << 20

func (f family) image(n int) Manifest { return Manifest{UUID: chainID(n), Origin: chainID(f[n])} }

func itself(m Manifest) Manifest { return m }

func numbers(images []Manifest) (all []int) {
	for _, m := range images {
		all = append(all, int(binary.BigEndian.Uint32(m.UUID[:])))
	}
	return all
}

// line is a chain of n images, n the first.
func line(n int) family {
	f := family{}
	for i := 1; i <= n; i++ {
		f[i] = i - 1
	}
	return f
}

func TestChain(t *testing.T) {
	f := func(family family, from int, want string) {
		t.Helper()
		chain, err := Chain(family.image(from), itself, family.find)
		got := strings.Trim(fmt.Sprint(numbers(chain)), "[]")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(family{1: 0}, 1, "1")
	f(family{1: 0, 2: 1, 3: 2}, 3, "3 2 1")
	f(family{3: 2, 2: endOfChain}, 3, "3")
	f(family{3: 2, 2: 9}, 3, fmt.Sprintf("origin %s of image %s was not found", chainID(9), chainID(2)))
	f(family{3: 2, 2: -1}, 3, fmt.Sprintf("origin %s of image %s: cannot tell", chainID(2), chainID(3)))
	f(family{5: 5}, 5, fmt.Sprintf("the origins of image %s form a ring: %[1]s, %[1]s", chainID(5)))
	f(family{9: 5, 5: 6, 6: 7, 7: 5}, 9, fmt.Sprintf("the origins of image %s form a ring: %s, %s, %s, %[2]s",
		chainID(9), chainID(5), chainID(6), chainID(7)))
	if chain, err := Chain(line(MaxChain).image(MaxChain), itself, line(MaxChain).find); err != nil || len(chain) != MaxChain {
		t.Errorf("%d images: %d, %v", MaxChain, len(chain), err)
	}
	f(line(MaxChain+1), MaxChain+1, fmt.Sprintf("image %s has more than %d origins", chainID(MaxChain+1), MaxChain-1))
}

func TestChainError(t *testing.T) {
	f := func(family family, from int, broken, absent bool) {
		t.Helper()
		_, err := Chain(family.image(from), itself, family.find)
		if errors.Is(err, ErrChain) != broken || errors.Is(err, fs.ErrNotExist) != absent {
			t.Errorf("%v: broken %t, absent %t", err, !broken, !absent)
		}
	}
	f(family{3: 2}, 3, true, true)
	f(family{3: 2, 2: -1}, 3, false, false)
	f(family{3: 3}, 3, true, false)
	f(line(MaxChain+1), MaxChain+1, true, false)
}

func TestChains(t *testing.T) {
	all := family{1: 0, 2: 1, 3: 2, 4: 2, 5: 0, 6: 7, 7: 6, 8: 99}
	f := func(keep bool, want string, from ...int) {
		t.Helper()
		var heads []Manifest
		for _, n := range from {
			heads = append(heads, all.image(n))
		}
		var broken []Manifest
		got := Chains(heads, itself, all.find, func(m Manifest, err error) bool {
			if !errors.Is(err, ErrChain) {
				t.Error(err)
			}
			broken = append(broken, m)
			return keep
		})
		if text := fmt.Sprint(numbers(got), numbers(broken)); text != want {
			t.Errorf("from %d: got %s, want %s", from, text, want)
		}
	}
	f(false, "[1 2 3] []", 3)
	f(false, "[1 2 3 4 5] []", 3, 4, 5, 1, 3)
	f(false, "[5] [6 7 8]", 6, 7, 5, 8)
	f(true, "[6 7 5 8] [6 7 8]", 6, 7, 5, 8)
}

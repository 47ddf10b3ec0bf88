package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
)

// A list is read the same in whatever pieces it comes.
func TestReadListInPieces(t *testing.T) {
	for _, in := range []string{
		string(manyImages(20, false)), string(manyImages(20, true)), "\xef\xbb\xbf " + v2With(fileA), "[]", " [ ] ", "[",
		`[{"a":"\\\"],[{"},` + v2With(`,"description":"]}\\"`+fileA) + `, 7 ,"\\","\""]` + "\n", `[1,2}`, `["a]`, `[1]]`, "[{\"a\":1] ]", "\xef", "\xef\xbb",
	} {
		whole, skipped, err := ParseList([]byte(in), ParseOptions{})
		for name, r := range map[string]io.Reader{
			"bytes": iotest.OneByteReader(strings.NewReader(in)), "halves": iotest.HalfReader(strings.NewReader(in)), "end with data": iotest.DataErrReader(strings.NewReader(in)),
		} {
			var images []Manifest
			refused := 0
			err2 := ReadList(r, ListOptions{}, func(m Manifest, why error) (bool, error) {
				if why != nil {
					refused++
				} else {
					images = append(images, m)
				}
				return true, nil
			})
			if fmt.Sprint(err) != fmt.Sprint(err2) || err == nil && (len(images) != len(whole) || refused != len(skipped)) {
				t.Errorf("%.60q in %s: %d images, %d refused, %v; want %d, %d, %v", in, name, len(images), refused, err2, len(whole), len(skipped), err)
				continue
			}
			for i := range whole {
				if !bytes.Equal(images[i].Raw(), whole[i].Raw()) || !bytes.Contains([]byte(in), images[i].Raw()) {
					t.Errorf("%.60q in %s: image %d is another text", in, name, i)
				}
			}
		}
	}
}

func TestReadListBounds(t *testing.T) {
	good := v2With(fileA)
	f := func(element, want string) {
		t.Helper()
		images, skipped, err := ParseList([]byte("["+element+","+good+"]"), ParseOptions{})
		if err != nil || len(images) != 1 || len(skipped) != 1 || !strings.Contains(skipped[0].Error(), want) {
			t.Errorf("%.60q: %d images, %v, %v, want %q", element, len(images), skipped, err, want)
		}
	}
	long := strings.Repeat("x", MaxText)
	f(`"`+long+`"`, "more than 4194304 bytes")
	f(v2With(`,"description":"`+long+`"`), idA)
	f(strings.Repeat("[", maxValues+1)+strings.Repeat("]", maxValues+1), "more than 50000 values")
	f(v2With(`,"files":[`+strings.Repeat("{},", maxValues)+`{}]`), "more than 50000 values")
	f(`{"a":{`+strings.Repeat(`"a":1,`, maxValues)+`"a":1}}`, "more than 50000 values")
}

// Of many refusals the first hundred tell why, and all tell the image.
func TestReadListBuildsAHundredErrors(t *testing.T) {
	var list strings.Builder
	for i := range 300 {
		fmt.Fprintf(&list, `,{"uuid":"%08x-0000-4000-8000-000000000000","name":7,"version":{}}`, i)
	}
	n := 0
	var plain error
	err := ReadList(strings.NewReader("["+list.String()[1:]+",1]"), ListOptions{}, func(_ Manifest, refused error) (bool, error) {
		var pe *ParseError
		if !errors.As(refused, &pe) || (pe.Reason != "") != (n < maxRefusals) || n < 300 && pe.Image != uuid.MustParse(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n)) {
			t.Errorf("%d: %v", n, refused)
		}
		if n > maxRefusals && refused != plain { //nolint:errorlint // the very same: none is built
			t.Errorf("%d: an error of its own", n)
		}
		plain = refused
		n++
		return false, nil
	})
	if err != nil || n != 301 {
		t.Errorf("%d refused, %v", n, err)
	}
}

// The text of a manifest that is not kept makes room for the next one.
func TestReadListForgets(t *testing.T) {
	list := "[" + strings.Repeat(v2With(fileA)+",", 2_000) + v2With(fileA) + "]"
	n := 0
	err := ReadList(strings.NewReader(list), ListOptions{}, func(Manifest, error) (bool, error) {
		n++
		return n == 1, nil
	})
	if err != nil || n != 2_001 {
		t.Errorf("%d images, %v", n, err)
	}
	var l listReader
	first := l.texts.add([]byte("first"))
	l.texts.drop(l.texts.add([]byte("second")))
	if third := l.texts.add([]byte("third")); string(first) != "first" || string(third) != "third" || len(l.texts.block) != 10 {
		t.Errorf("%q %q in %q", first, third, l.texts.block)
	}
}

func TestReadListStopsWithTake(t *testing.T) {
	enough := errors.New("enough")
	err := ReadList(io.MultiReader(strings.NewReader("[1,2,"), iotest.ErrReader(errors.New("read on"))), ListOptions{}, func(Manifest, error) (bool, error) {
		return false, enough
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	if err := ReadList(io.MultiReader(strings.NewReader("[1,"), iotest.ErrReader(enough)), ListOptions{}, func(Manifest, error) (bool, error) { return false, nil }); !errors.Is(err, enough) {
		t.Error(err)
	}
	if err := ReadList(strings.NewReader(v2With(fileA)), ListOptions{Array: true}, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

package catalog

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// filing is a fake that gives files, too.
type filing struct {
	*fake
	given []manifest.Manifest // what its files were asked for by
}

func (f *filing) File(_ context.Context, m manifest.Manifest, _ int, _ int64) (*verify.Stream, error) {
	f.given = append(f.given, m)
	return &verify.Stream{ReadCloser: io.NopCloser(strings.NewReader(f.name)), Size: -1}, nil
}

// ask opens the file of id(n) at the first of the others of its entry.
func askOther(t *testing.T, c *Catalog, n int) error {
	t.Helper()
	e := entry(t, c, n)
	if len(e.Others) != 1 {
		t.Fatalf("image %d has %d others, want 1", n, len(e.Others))
	}
	s, err := e.Others[0].Source.File(t.Context(), e.Others[0].Manifest, 0, 0)
	if err == nil {
		s.Close()
	}
	return err
}

func seekers(a *fake, b *filing) []SourceOptions {
	return []SourceOptions{{Source: a}, {Source: b, ServePrivate: b.private}}
}

// A source that has the same files as the one that was first to answer is a holder once it has been asked; that is saved,
// and holds when the first has left the configuration.
func TestSecondSourceOfUnlisted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hidden: []spec{{n: 5, state: "disabled"}}}
		b := &filing{fake: &fake{t: t, name: "b"}}
		x := new(memory)
		c := newCatalog(t, Options{Sources: seekers(a, b), Index: x})
		refresh(t, c)
		if e, err := c.Get(t.Context(), id(5)); err != nil || holders(e) != "a" || len(e.Others) != 1 {
			t.Fatalf("%+v, %v", e, err)
		}
		synctest.Wait()
		if err := askOther(t, c, 5); !errors.Is(err, fs.ErrNotExist) || b.asked(5) != 1 { // it has come to know it later
			t.Errorf("%v, asked %d times", err, b.asked(5))
		}
		b.set(func(f *fake) { f.getErr = errDown })
		if err := askOther(t, c, 5); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a source that is down: %v", err)
		}
		b.set(func(f *fake) { f.getErr, f.hidden = nil, []spec{{n: 5, state: "disabled", name: "b's"}} })
		if err := askOther(t, c, 5); err != nil {
			t.Fatal(err)
		}
		if len(b.given) != 1 || b.given[0].Name != "b's" {
			t.Errorf("the file was asked for by %+v", b.given)
		}
		synctest.Wait()
		if e := entry(t, c, 5); holders(e) != "a b" || len(e.Others) != 0 || e.Listed {
			t.Errorf("%+v", e)
		}

		c = restarted(t, c, Options{Sources: seekers(a, b), Index: x})
		if e := entry(t, c, 5); holders(e) != "a b" {
			t.Errorf("after a restart: %s", holders(e))
		}
		c = restarted(t, c, Options{Sources: []SourceOptions{{Source: b}}, Index: x})
		if e := entry(t, c, 5); holders(e) != "b" {
			t.Errorf("without the first: %s", holders(e))
		}
		c = restarted(t, c, Options{Sources: seekers(a, b), Index: x, Offline: true})
		if e := entry(t, c, 5); holders(e) != "" || len(e.Others) != 0 {
			t.Errorf("offline: %+v", e)
		}
	})
}

// What a source has under the uuid that is not the same, or that clients must not have, is not mixed in.
func TestOtherFilesOfUnlisted(t *testing.T) {
	other := strings.Repeat("77", 20)
	for name, f := range map[string]struct {
		has       spec
		first     bool // it is configured first
		exclude   string
		conflicts float64
	}{
		"other sum":            {has: spec{n: 5, sum: other}, conflicts: 1},
		"other sum, but first": {has: spec{n: 5, sum: other}, first: true},
		"other size":           {has: spec{n: 5, size: 7}, conflicts: 1},
		"no sum":               {has: spec{n: 5, sum: "-"}},
		"private":              {has: spec{n: 5, private: true}},
		"left out":             {has: spec{n: 5}, exclude: "os=smartos"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &fake{t: t, name: "a", hidden: []spec{{n: 5}}}
				b := &filing{fake: &fake{t: t, name: "b"}}
				sources := seekers(a, b)
				if f.first {
					sources[0], sources[1] = sources[1], sources[0]
				}
				if f.exclude != "" {
					filter, err := manifest.ParseFilter(f.exclude)
					if err != nil {
						t.Fatal(err)
					}
					for i := range sources {
						if sources[i].Source == Source(b) {
							sources[i].Exclude = []manifest.Filter{filter}
						}
					}
				}
				c := newCatalog(t, Options{Sources: sources})
				refresh(t, c)
				if _, err := c.Get(t.Context(), id(5)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				sum := entry(t, c, 5).Manifest.Files[0].SHA1
				b.set(func(s *fake) { s.hidden = []spec{f.has} })
				if err := askOther(t, c, 5); !errors.Is(err, fs.ErrNotExist) || len(b.given) != 0 {
					t.Errorf("%v, files of %v", err, b.given)
				}
				synctest.Wait()
				if e := entry(t, c, 5); holders(e) != "a" || e.Manifest.Files[0].SHA1 != sum {
					t.Errorf("%+v", e)
				}
				if n := testutil.ToFloat64(c.metrics.conflicts); n != f.conflicts {
					t.Errorf("%v conflicts, want %v", n, f.conflicts)
				}
			})
		})
	}
}

// A list says of a source that the source lacks an image: the source is not asked again.
func TestListedHasNoOthers(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
	b := &filing{fake: &fake{t: t, name: "b"}}
	c := newCatalog(t, Options{Sources: seekers(a, b)})
	refresh(t, c)
	if e := entry(t, c, 1); len(e.Others) != 0 {
		t.Errorf("%+v", e)
	}
}

// With its first source out of reach an image that no list shows is reachable if another one has it.
func TestReachableByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hidden: []spec{{n: 5}}}
		b := &filing{fake: &fake{t: t, name: "b"}}
		c := newCatalog(t, Options{Sources: seekers(a, b)})
		refresh(t, c)
		if _, err := c.Get(t.Context(), id(5)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.set(func(f *fake) { f.reachable = func(ctx context.Context) bool { <-ctx.Done(); return false } })
		defer c.stop()
		if c.Reachable(t.Context(), entry(t, c, 5)) {
			t.Error("reachable, though the other source does not have it")
		}
		b.set(func(f *fake) { f.hidden = []spec{{n: 5}} })
		if !c.Reachable(t.Context(), entry(t, c, 5)) {
			t.Error("out of reach, though the other source has it")
		}
	})
}

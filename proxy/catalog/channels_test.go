package catalog

import (
	"slices"
	"strings"
	"testing"

	"imgmirror/manifest"
)

var twoChannels = []Channel{{Name: "dev"}, {Name: "release", Default: true}}

// wantIn compares the numbers of the images that a channel shows.
func wantIn(t *testing.T, c *Catalog, channel string, want ...int) {
	t.Helper()
	view, ok := c.Current().View(channel)
	if !ok {
		t.Fatalf("no channel %s", channel)
	}
	got := []int{}
	for _, m := range view.Images() {
		got = append(got, number(m.UUID))
	}
	if !slices.Equal(got, want) {
		t.Errorf("in %s: %v, want %v", channel, got, want)
	}
}

// A source's own channels count as far as the mirror has them; one that names none gets what the options say; an
// image in none is for nobody, and hides nobody's (spec A21). All of it survives a restart.
func TestViews(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{
		{n: 1, in: []string{"dev"}},
		{n: 2, in: []string{"nightly", "release"}},
		{n: 3, in: []string{"nightly"}},
		{n: 4},
	}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 4}, {n: 5}, {n: 6, in: []string{"dev", "release"}}}}
	x := new(memory)
	sources := sourcesOf(a, b)
	sources[1].AsChannels = []string{"release"}
	c := newCatalog(t, Options{Sources: sources, Index: x, Channels: twoChannels})
	refresh(t, c)
	for range 2 {
		wantShown(t, c, 1, 2, 4, 5, 6)
		wantIn(t, c, "dev", 1, 6)
		wantIn(t, c, "release", 2, 4, 5, 6)
		wantIn(t, c, "*", 1, 2, 4, 5, 6)
		if c.Current().DefaultChannel() != "release" {
			t.Error("default channel", c.Current().DefaultChannel())
		}
		if e := entry(t, c, 4); e.Source != "b" {
			t.Errorf("image 4 is from %s", e.Source)
		}
		if e := entry(t, c, 2); strings.Join(e.Manifest.Channels, " ") != "release" {
			t.Errorf("channels %v", e.Manifest.Channels)
		}
		wantAbsent(t, c, 3)
		if _, ok := c.Current().View("nightly"); ok {
			t.Error("a channel that nobody configured")
		}
		c = restarted(t, c, Options{Sources: sources, Index: x, Channels: twoChannels, Offline: true})
	}
	c = restarted(t, c, Options{Sources: sources, Index: x, Offline: true})
	wantShown(t, c, 1, 2, 3, 4, 5, 6)
	if _, ok := c.Current().View("dev"); ok || c.Current().DefaultChannel() != "*" {
		t.Error("channels that are off")
	}
}

// The bodies of the default channel differ by what they tell, and are taken over by a list with the same images.
func TestViewBodies(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, in: []string{"dev"}}, {n: 2, in: []string{"release"}}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a), Channels: twoChannels})
	refresh(t, c)
	release, _ := c.Current().View("release")
	plain, plainTag := release.JSON(false)
	named, namedTag := release.JSON(true)
	m := parse(t, spec{n: 2, in: []string{"release"}}, manifest.ParseOptions{})
	if string(plain) != "["+string(m.V2())+"]" || string(named) != "["+string(m.V2Channels())+"]" || plainTag == namedTag {
		t.Errorf("%s %s\n%s %s", plainTag, plain, namedTag, named)
	}
	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 3, in: []string{"dev"}}) })
	refresh(t, c)
	again, _ := c.Current().View("release")
	if other, _ := again.JSON(true); again == release || &other[0] != &named[0] {
		t.Error("another body of the same images")
	}
	// Only the channels of an image change: so does what those are told who are told of channels.
	a.set(func(f *fake) { f.listed = []spec{{n: 2, in: []string{"release", "dev"}}} })
	refresh(t, c)
	again, _ = c.Current().View("release")
	if _, tag := again.JSON(true); tag == namedTag {
		t.Error("the same validator for other channels")
	}
	if body, tag := again.JSON(false); tag != plainTag || &body[0] != &plain[0] {
		t.Error("another validator where channels are not told")
	}
}

// What an image is built on is reached from the image's channels, however it came to be known (spec 7, G8).
func TestReaches(t *testing.T) {
	a := &fake{t: t, name: "a",
		listed: []spec{{n: 1, origin: 2, in: []string{"release"}}, {n: 6, origin: 7, in: []string{"dev"}}, {n: 7, in: []string{"release"}}},
		hidden: []spec{
			{n: 2, origin: 3, in: []string{"dev"}}, {n: 3, state: "disabled"},
			{n: 4, origin: 3, state: "disabled", in: []string{"dev"}}, {n: 5, in: []string{"nightly"}},
		}}
	c := newCatalog(t, Options{Sources: sourcesOf(a), Channels: twoChannels})
	refresh(t, c)
	reaches := func(n int, channel string, want bool) {
		t.Helper()
		if got := c.Current().Reaches(channel, entry(t, c, n).Manifest); got != want {
			t.Errorf("image %d from %s: %v", n, channel, got)
		}
	}
	for range 2 { // as found by uuid, and in a merged list
		reaches(1, "release", true)
		reaches(1, "dev", false)
		reaches(1, "*", true)
		reaches(2, "dev", true)
		reaches(2, "release", true)
		reaches(3, "release", true)
		reaches(3, "dev", true)
		reaches(3, "*", true)
		reaches(7, "dev", true)
		reaches(7, "release", true)
		reaches(6, "release", false)
		wantIn(t, c, "release", 1, 7)
		a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 9, in: []string{"dev"}}) })
		refresh(t, c)
	}

	// A disabled image that is asked for brings its origin into its channel.
	if _, err := c.Get(t.Context(), id(4)); err != nil {
		t.Error(err)
	}
	reaches(4, "dev", true)
	reaches(4, "release", false)
	if _, err := c.Get(t.Context(), id(5)); !isNotExist(err) {
		t.Errorf("an image in no channel: %v", err)
	}

	// A circle ends.
	a.set(func(f *fake) {
		f.listed = []spec{{n: 1, origin: 2, in: []string{"release"}}, {n: 2, origin: 1, in: []string{"dev"}}}
	})
	refresh(t, c)
	reaches(1, "dev", true)
	reaches(2, "release", true)
}

// What a source gives by uuid from another channel than the one that it is asked for is served to those only who have
// an image that is built on it, also while the mirror itself has no channels (spec A22).
func TestOutsideOfSourceChannel(t *testing.T) {
	a := &fake{t: t, name: "a",
		listed: []spec{{n: 1, origin: 2, in: []string{"release"}}},
		hidden: []spec{{n: 2, in: []string{"dev"}}, {n: 3, in: []string{"dev"}}, {n: 4, in: []string{"release"}}, {n: 5}},
	}
	for channel, want := range map[string]bool{"release": false, "*": true, "": true} {
		sources := sourcesOf(a)
		sources[0].Channel = channel
		c := newCatalog(t, Options{Sources: sources})
		refresh(t, c)
		entry(t, c, 2)
		if _, err := c.Get(t.Context(), id(3)); want != (err == nil) || !want && !isNotExist(err) {
			t.Errorf("source channel %q: %v", channel, err)
		}
		for _, n := range []int{4, 5} {
			if _, err := c.Get(t.Context(), id(n)); err != nil {
				t.Errorf("source channel %q: image %d: %v", channel, n, err)
			}
		}
	}
}

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// chainOf makes a chain of n images, the root first. With ring the root is built on the last one.
func chainOf(name string, n int, ring bool) []image {
	all := make([]image, n)
	named := func(i int) string { return fmt.Sprintf("%s-%03d", name, i) }
	for i := range all {
		more := map[string]any{}
		if i > 0 {
			more["origin"] = all[i-1].uuid
		} else if ring {
			more["origin"] = newImage(named(n-1), 0).uuid
		}
		all[i] = newImage(named(i), 2000+i, more)
	}
	return all
}

// TestLongChain: 150 images, each built on the one before, go whole through every verb.
func TestLongChain(t *testing.T) {
	t.Parallel()
	images := chainOf("link", 150, false)
	root, top := images[0], images[len(images)-1]
	m := startMirror(t, nil, from(newSource(t, images...).URL()))
	m.awaitList(len(images))
	lines := func(s said) int { return strings.Count(s.stdout, "\n") }

	said := m.verb("ancestry", "-H", "-o", "uuid", top.uuid)
	said.want(t, root.uuid)
	if lines(said) != len(images) {
		t.Errorf("ancestry: %d images", lines(said))
	}
	m.verb("fetch", "-q", top.uuid).want(t)
	m.verb("pin", top.uuid).want(t)
	m.verb("delete", root.uuid).wantError(t, "delete", "ImagePinned")
	m.verb("verify", "-q").want(t)
	if said := m.verb("list", "-H", "-o", "uuid"); lines(said) != len(images) {
		t.Errorf("list: %d images", lines(said))
	}

	file := filepath.Join(t.TempDir(), "chain.tar")
	m.verb("bundle", "export", "-q", "-o", file, top.uuid).want(t)
	far := startMirror(t, nil)
	wantAll(t, far.verb("bundle", "import", "-j", file).importStates(t), images, "added")
	far.verb("verify", "-q").want(t)
	far.verb("fetch", "-q", top.uuid).want(t) // all is there, and needs no source
}

// TestBrokenChains: a ring, and a chain that is too long, are refused by name by every verb that follows origins.
func TestBrokenChains(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	ring, long, good := chainOf("ring", 3, true), chainOf("long", 257, false), newImage("good", 3000)
	src := newSource(t, slices.Concat(ring, long, []image{good})...)
	set := p.settings()
	set["prefetch"] = []map[string]any{{"match": []string{"name=~ring"}}, {"match": []string{"name=long-256"}}, {"match": []string{"name=good"}}}
	m := startMirror(t, set, from(src.URL()))
	m.awaitList(len(ring) + len(long) + 1)
	for _, chain := range []struct {
		top   image
		names []string
	}{
		{ring[2], []string{ring[0].uuid, ring[1].uuid, ring[2].uuid, "form a ring"}},
		{long[256], []string{long[256].uuid, "more than 255 origins"}},
	} {
		for _, args := range [][]string{
			{"ancestry", chain.top.uuid},
			{"fetch", chain.top.uuid},
			{"bundle", "export", "-o", filepath.Join(t.TempDir(), "x.tar"), chain.top.uuid},
			{"install", chain.top.uuid},
			{"install", "--from", m.url, chain.top.uuid},
			{"install", "--from", src.URL(), chain.top.uuid},
		} {
			said := m.verb(args...)
			if said.code == 0 {
				t.Errorf("%s: exit 0\n%s", args, said.stdout)
			}
			for _, name := range chain.names {
				if text := said.stdout + said.stderr; !strings.Contains(text, name) {
					t.Errorf("%s does not name %q:\n%s", args, name, text)
				}
			}
		}
		m.until("prefetch tells of "+chain.top.name, func() bool {
			return slices.ContainsFunc(strings.Split(m.log(), "\n"), func(line string) bool {
				return strings.Contains(line, "an image cannot be prefetched") && strings.Contains(line, chain.names[len(chain.names)-1])
			})
		})
	}
	m.awaitStored(1) // the good one, which stands behind both
}

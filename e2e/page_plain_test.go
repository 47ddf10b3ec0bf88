package e2e

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPageWithoutScript: each page shows the same with its script and without.
func TestPageWithoutScript(t *testing.T) {
	t.Parallel()
	s := newShowroom(t, nil)
	// The mirror looks for conflicts now and then, and then the overview tells of this one.
	s.untilEach(200*time.Millisecond, "the conflict is among the events", func() bool {
		return bytes.Contains(s.api("/status").body, []byte(`"kind":"conflict"`))
	})
	operator := &visitor{t: t, base: s.admin}
	operator.signIn(s.token())
	var pages []string
	kinds := map[string]int{} // two of each kind are enough
	for _, path := range slices.Sorted(maps.Keys(operator.walk())) {
		kind := uuids.ReplaceAllString(path, "UUID")
		if kinds[kind]++; kinds[kind] <= 2 {
			pages = append(pages, path)
		}
	}
	if len(pages) < 12 {
		t.Fatalf("only the pages %q", pages)
	}
	texts := func(scriptless bool) map[string]string {
		b := newTab(t, s.admin)
		if scriptless {
			b.withoutScript()
		}
		b.open(s.admin + "/ui/")
		b.signIn(s.token())
		all := map[string]string{}
		for _, path := range pages {
			b.open(s.admin + path)
			var text string
			b.js(`document.querySelector("main").innerText`, &text)
			all[path] = settled(text)
		}
		return all
	}
	with, without := texts(false), texts(true)
	for _, path := range pages {
		if len(with[path]) < 20 || with[path] != without[path] {
			t.Errorf("%s with script:\n%s\nwithout:\n%s", path, with[path], without[path])
		}
	}
}

var (
	uuids   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)
	passing = regexp.MustCompile(`just now|\d+ (s|min) ago|[\d:.,]+`) // what changes from one moment to the next
	buttons = regexp.MustCompile(`(?m)^Copy$`)                        // that only a script can do
)

// settled is a page's text without what differs from one look to the next.
func settled(text string) string {
	text = passing.ReplaceAllString(buttons.ReplaceAllString(text, ""), "#")
	return strings.Join(strings.Fields(text), " ")
}

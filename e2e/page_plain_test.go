package e2e

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPageWithoutScript: each page shows the same with its script and without.
func TestPageWithoutScript(t *testing.T) {
	t.Parallel()
	s := newShowroom(t, nil)
	s.until("the conflict is among the events", func() bool { return bytes.Contains(s.api("/status").body, []byte(`"kind":"conflict"`)) })
	operator := &visitor{t: t, base: s.admin}
	operator.signIn(s.token())
	pages := slices.Sorted(maps.Keys(operator.walk()))
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
	passing = regexp.MustCompile(`just now|\d+ (s|min) ago|[\d:.,]+`) // what changes from one moment to the next
	buttons = regexp.MustCompile(`(?m)^Copy$`)                        // that only a script can do
)

// settled is a page's text without what differs from one look to the next.
func settled(text string) string {
	text = passing.ReplaceAllString(buttons.ReplaceAllString(text, ""), "#")
	return strings.Join(strings.Fields(text), " ")
}

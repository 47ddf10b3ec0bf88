package e2e

import (
	"strings"
	"testing"
)

// TestPageText: texts of sources are text, whatever they look like.
func TestPageText(t *testing.T) {
	t.Parallel()
	s := newShowroom(t, nil)
	b := newTab(t, s.admin)
	b.open(s.admin + "/ui/")
	b.signIn(s.token())
	b.open(s.admin + "/ui/images")
	markup := b.count("main [onerror], main [onmouseover], main script")
	list := b.text("main")
	var single []string
	for _, img := range s.images {
		b.open(s.admin + "/ui/images/" + img.uuid)
		markup += b.count("main [onerror], main [onmouseover], main script, h1 *[src]")
		single = append(single, b.text("main"))
		var title string
		b.js(`document.title`, &title)
		single[len(single)-1] += title
	}
	if markup > 0 {
		t.Errorf("%d elements are made of names", markup)
	}
	for _, name := range []string{markupName, quoteName} {
		if !strings.Contains(list, name) {
			t.Errorf("the list has no %s:\n%s", name, list)
		}
	}
	for i, img := range s.images {
		for where, text := range map[string]string{"the list": list, "its page": single[i]} {
			if strings.ContainsAny(text, "\x1b\x07\u202e\u2066\u200f") {
				t.Errorf("%s of %q has raw control characters or marks of direction", where, img.name)
			}
		}
	}
	for _, part := range []string{"[31m", "bell", "safe-", "gnp.exe"} {
		if !strings.Contains(list, part) {
			t.Errorf("the list leaves out %q", part)
		}
	}
}

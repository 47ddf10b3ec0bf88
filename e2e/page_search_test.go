package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPageSearch: among 100,000 images the page finds one by a part of its name and by its uuid, as
// the user types, and without script by a form.
func TestPageSearch(t *testing.T) {
	const n = 100_000
	texts, ids := largeCatalog(n)
	source, _ := serveCatalog(t, texts, ids)
	m := startMirror(t, nil, from(source))
	m.awaitList(n)
	b := newTab(t, m.url)
	b.open(m.url + "/ui/images")
	rows := func(uuid string) string {
		return `document.querySelectorAll('main tbody a[href="/ui/images/` + uuid + `"]').length > 0`
	}
	if got := b.count("main tbody tr"); got < 10 || got > 500 {
		t.Errorf("%d rows of %d", got, n)
	}
	if !strings.Contains(b.text("main"), "100,000") {
		t.Errorf("the page does not tell how many images there are:\n%s", b.describe())
	}
	wanted := ids[54_321]
	b.js(`window.neverLoadedAgain = true`, nil)
	b.typed("main input[type=search]", wanted[:13])
	b.until(rows(wanted) + ` && document.querySelectorAll("main tbody tr").length == 1 && window.neverLoadedAgain`)
	b.js(`document.querySelector("main input[type=search]").value = ""`, nil)
	b.typed("main input[type=search]", "base-64-42")
	b.until(`document.querySelector("main").textContent.includes("1,666")`) // every 60th image
	b.follow(`main tbody a[href^="/ui/images/"]`)
	if !strings.Contains(b.text("main"), "base-64-42") {
		t.Errorf("the image that was found:\n%s", b.describe())
	}

	plain := newTab(t, m.url)
	plain.withoutScript()
	plain.open(m.url + "/ui/images")
	plain.typed("main input[type=search]", wanted)
	plain.load("the search", chromedp.Submit(chromedp.CSS("main input[type=search]")))
	if plain.count("main tbody tr") != 1 || plain.count(`main tbody a[href="/ui/images/`+wanted+`"]`) == 0 {
		t.Errorf("without script:\n%s", plain.describe())
	}
}

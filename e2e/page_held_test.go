package e2e

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// countParts has pages count in window.parts how often a live part has come.
func (b *tab) countParts() {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.parts = 0;
		window.EventSource = class extends EventSource {
			constructor(url) {
				super(url);
				this.addEventListener("part", () => setTimeout(() => window.parts++)); // once the page has seen the part
			}
		};`,
	}); err != nil {
		b.t.Fatal(err)
	}
}

// awaitParts waits until so many more parts have come.
func (b *tab) awaitParts(more int) {
	b.t.Helper()
	var had int
	b.js(`window.parts`, &had)
	b.until(fmt.Sprintf(`window.parts >= %d`, had+more))
}

// TestPageHeld: a live part of the page stays as it is while the reader presses on the part, so that the
// click reaches what the reader sees, and while text of the part is selected. What has come meanwhile is
// shown afterwards, and nothing more has to come for that.
func TestPageHeld(t *testing.T) {
	t.Parallel()
	img := newImage("slow-image", 20<<20)
	m := startMirror(t, nil, from(newSource(t, img).link(500_000), settings{"name": "far"}))
	m.awaitList(1)
	b := newTab(t, m.admin)
	b.countParts()
	b.open(m.admin + "/ui/")
	b.signIn(m.token())
	b.open(m.admin + "/ui/images/" + img.uuid)
	b.press("Fetch")
	job := b.at()
	b.open(m.admin + "/ui/jobs")
	b.until(`(window.link = document.querySelector('main tbody a[href="` + job + `"]')) !== null`)

	// now tells whether the page shows the link of before.
	now := func() (shown bool) {
		t.Helper()
		b.js(`link.isConnected`, &shown)
		return shown
	}
	// mouse presses the button in the middle of what the expression finds in the list, or lets go there.
	mouse := func(what input.DispatchMouseEventType, find string) chromedp.Action[chromedp.Void] {
		t.Helper()
		var at struct{ X, Y float64 }
		b.js(`window.link = document.querySelector("main tbody a");
			link.scrollIntoView({ block: "center", behavior: "instant" });
			(box => ({ X: box.x + box.width / 2, Y: box.y + box.height / 2 }))(`+find+`.getBoundingClientRect())`, &at)
		return chromedp.MouseEvent(what, at.X, at.Y, chromedp.ButtonLeft, chromedp.ClickCount(1))
	}
	const onLink, besideIt = `link`, `link.closest("tr").cells[1]`

	if b.awaitParts(2); now() {
		t.Fatal("parts come, and none is shown")
	}
	b.js(`window.link = document.querySelector("main tbody a"); getSelection().selectAllChildren(link)`, nil)
	if b.awaitParts(2); !now() {
		t.Error("a part with selected text is replaced")
	}
	b.js(`window.free = new Promise(done => document.addEventListener("selectionchange", () => setTimeout(done)));
		getSelection().removeAllRanges(); free`, nil)
	if now() {
		t.Error("what has come while text was selected is not shown afterwards")
	}

	b.do("pressing beside the link", mouse(chromedp.MousePressed, besideIt))
	if b.awaitParts(2); !now() {
		t.Error("a part on which the reader presses is replaced")
	}
	b.js(`window.free = new Promise(done => document.addEventListener("pointerup", () => setTimeout(() => setTimeout(done)))); 0`, nil)
	b.do("letting go", mouse(chromedp.MouseReleased, besideIt))
	if b.js(`free`, nil); now() {
		t.Error("what has come while the reader pressed is not shown afterwards")
	}

	b.do("pressing on the link", mouse(chromedp.MousePressed, onLink))
	b.awaitParts(2)
	b.load("the click", mouse(chromedp.MouseReleased, onLink))
	if b.at() != job {
		t.Errorf("the click leads to %s", b.at())
	}
}

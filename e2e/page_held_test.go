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

// TestPageHeld: the live parts of a page stay as they are while the reader presses, so that the click reaches
// what the reader sees, and while text of a part is selected. What has come meanwhile is shown afterwards, and
// nothing more has to come for that.
func TestPageHeld(t *testing.T) {
	t.Parallel()
	img := newImage("slow-image", 20<<20)
	m := startMirror(t, nil, from(newSource(t, img).link(500_000), settings{"name": "far"}))
	b, job := fetched(t, m, img)
	b.open(m.admin + "/ui/jobs")
	b.until(`document.querySelector('main tbody a[href="` + job + `"]') !== null`)

	const find = `window.link = document.querySelector("main tbody a"); `
	send := func(kind, event, key, where string) string {
		return `document.querySelector("` + where + `").dispatchEvent(new ` + kind + `("` + event + `", { bubbles: true, ` + key + ` })); `
	}
	pointer := func(event, id, where string) string { return send("PointerEvent", event, "pointerId: "+id, where) }
	const unselect = `getSelection().removeAllRanges(); `
	for _, hold := range []struct{ name, begin, end string }{
		{"text is selected", `getSelection().selectAllChildren(link); `, unselect},
		{"text is selected from elsewhere to the part", `getSelection().setBaseAndExtent(document.querySelector("h1"), 0, link, 1); `, unselect},
		{"text is selected from the part to elsewhere", `getSelection().setBaseAndExtent(link, 0, document.querySelector("footer"), 1); `, unselect},
		{"the pointer is pressed", pointer("pointerdown", "1", "main tbody a"), pointer("pointerup", "1", "h1")},
		{"the pointer is pressed beside the part", pointer("pointerdown", "2", "h1"), pointer("pointercancel", "2", "h1")},
		{"the pointer is pressed again at once",
			pointer("pointerdown", "1", "h1") + pointer("pointerup", "1", "h1") + pointer("pointerdown", "1", "h1"), pointer("pointerup", "1", "h1")},
		{"one of two fingers presses",
			pointer("pointerdown", "1", "h1") + pointer("pointerdown", "2", "h1") + pointer("pointerup", "1", "h1"), `window.dispatchEvent(new Event("blur")); `},
		{"the space bar is pressed", send("KeyboardEvent", "keydown", `key: " "`, "h1"), send("KeyboardEvent", "keyup", `key: " "`, "h1")},
	} {
		var held, shown bool
		b.js(find+hold.begin, nil)
		b.awaitParts(2)
		b.js(`link.isConnected`, &held)
		b.js(`new Promise(done => {
			const had = parts;
			`+hold.end+`
			(function look() {
				if (link.isConnected && parts === had) setTimeout(look, 1); else done(parts === had);
			})();
		})`, &shown)
		if !held || !shown {
			t.Errorf("%s: held %t, shown afterwards %t", hold.name, held, shown)
		}
	}

	b.js(find+pointer("pointerdown", "1, button: 2", "h1"), nil) // for a menu, of which the page may not see the end
	b.until(`!link.isConnected`)

	var at struct{ X, Y float64 }
	b.js(find+`link.scrollIntoView({ block: "center", behavior: "instant" });
		(box => ({ X: box.x + box.width / 2, Y: box.y + box.height / 2 }))(link.getBoundingClientRect())`, &at)
	mouse := func(what input.DispatchMouseEventType) chromedp.Action[chromedp.Void] {
		return chromedp.MouseEvent(what, at.X, at.Y, chromedp.ButtonLeft, chromedp.ClickCount(1))
	}
	b.do("pressing on the link", mouse(chromedp.MousePressed))
	b.awaitParts(2)
	b.load("the click", mouse(chromedp.MouseReleased))
	if b.at() != job {
		t.Errorf("the click leads to %s", b.at())
	}
}

// fetched is a page that counts its parts, of an operator who has the mirror fetch img by a job.
func fetched(t *testing.T, m *mirror, img image) (b *tab, job string) {
	t.Helper()
	m.awaitList(1)
	b = newTab(t, m.admin)
	b.countParts()
	b.open(m.admin + "/ui/")
	b.signIn(m.token())
	b.open(m.admin + "/ui/images/" + img.uuid)
	b.press("Fetch")
	return b, b.at()
}

// TestPageHeldToTheEnd: the button for work under way goes with the work, also while text is selected.
func TestPageHeldToTheEnd(t *testing.T) {
	t.Parallel()
	img := newImage("slow-image", 5<<20)
	m := startMirror(t, nil, from(newSource(t, img).link(500_000), settings{"name": "far"}))
	b, _ := fetched(t, m, img)
	var underWay bool
	b.js(`getSelection().selectAllChildren(document.querySelector("[data-live]"));
		!document.querySelector("[data-until-over]").hidden`, &underWay)
	if !underWay {
		t.Fatal("the work is over too early")
	}
	b.until(`document.querySelector("[data-until-over]").hidden && document.getElementById("said").textContent !== ""`)
}

package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// pictures is the folder for the pictures of the pages; "" = none are kept.
var pictures = flag.String("pictures", "", "a `folder` for pictures of the pages, in both themes at two widths")

// axe is the source of the accessibility checker.
var axe = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("node/node_modules/axe-core/axe.min.js")
	return string(text), err
})

// accessible has axe-core look at the page as it is, and returns what is serious or critical.
func (b *tab) accessible() []string {
	b.t.Helper()
	source, err := axe()
	if err != nil {
		missing(b.t, "axe-core: "+err.Error())
	}
	var there bool
	if b.js(`!!window.axe`, &there); !there {
		b.js(source+"\n;0", nil)
	}
	var violations []struct {
		ID, Impact, Help string
		Nodes            []struct {
			HTML           string
			FailureSummary string
		}
	}
	b.js(`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations)`, &violations)
	var faults []string
	for _, v := range violations {
		if v.Impact != "serious" && v.Impact != "critical" {
			continue
		}
		for _, node := range v.Nodes {
			faults = append(faults, fmt.Sprintf("%s (%s): %s\n\t%s\n\t%s", v.ID, v.Impact, v.Help, node.HTML, node.FailureSummary))
		}
	}
	return faults
}

// overflow names the elements that are wider than the page, if the page can be scrolled sideways.
func (b *tab) overflow() []string {
	b.t.Helper()
	var wide []string
	b.js(`(() => {
		const width = document.documentElement.clientWidth;
		if (document.scrollingElement.scrollWidth <= width) return [];
		return [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > width + 1)
			.map(e => e.outerHTML.slice(0, 160)).slice(0, 5).concat("the page is " + document.scrollingElement.scrollWidth + " px wide");
	})()`, &wide)
	return wide
}

// unmarked names the elements that a keyboard reaches and that do not look other when it does.
func (b *tab) unmarked() []string {
	b.t.Helper()
	var plain []string
	b.js(`(() => {
		const look = e => { const s = getComputedStyle(e); return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow].join(); };
		const reached = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
			.filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled);
		document.activeElement.blur();
		return reached.filter(e => {
			const before = look(e);
			e.focus({focusVisible: true});
			const same = document.activeElement !== e || look(e) === before;
			e.blur();
			return same;
		}).map(e => e.outerHTML.slice(0, 160));
	})()`, &plain)
	return plain
}

// TestPageLooks: each page of both sides, and those of a mirror that has nothing yet, in both themes,
// on a phone and on a desk: nothing is wider than the page, the focus of the keyboard is seen, and the
// accessibility checker finds nothing serious.
func TestPageLooks(t *testing.T) {
	t.Parallel()
	x := newExhibit(t)
	t.Run("operators", func(t *testing.T) {
		t.Parallel()
		b := newTab(t, x.admin)
		b.open(x.admin + "/ui/login")
		b.looks("operators-login", true)
		b.signIn(x.token())
		b.tour("operators", x.admin, x.pages(true))
	})
	t.Run("clients", func(t *testing.T) {
		t.Parallel()
		newTab(t, x.url).tour("clients", x.url, x.pages(false))
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		m := startMirror(t, nil)
		b := newTab(t, m.admin)
		b.open(m.admin + "/ui/")
		b.signIn(m.token())
		b.tour("empty", m.admin, map[string]string{
			"overview": "/ui/", "images": "/ui/images", "nodes": "/ui/nodes", "sources": "/ui/sources", "jobs": "/ui/jobs",
		})
	})
}

// tour opens the pages one after the other and checks their looks.
func (b *tab) tour(side, base string, pages map[string]string) {
	b.t.Helper()
	b.allow("answer 404 to " + base + "/ui/none")
	for name, path := range pages {
		b.open(base + path)
		b.looks(side+"-"+name, slices.Contains([]string{"operators-overview", "operators-images", "operators-image-conflict", "operators-nodes"}, side+"-"+name))
	}
}

// pages are all kinds of pages, and their states that look other.
func (x *exhibit) pages(operators bool) map[string]string {
	image := "/ui/images/"
	pages := map[string]string{
		"overview": "/ui/", "images": "/ui/images", "images-none": "/ui/images?q=nothing+has+this+name",
		"image": image + x.cached.uuid, "image-slow": image + x.slow.uuid, "image-long": image + x.long.uuid,
		"image-chain": image + sampleApp, "image-conflict": image + x.conflict.uuid,
		"sources": "/ui/sources", "jobs": "/ui/jobs", "job": "/ui/jobs/" + x.running, "connect": "/ui/connect", "absent": "/ui/none",
	}
	if operators {
		maps.Copy(pages, map[string]string{
			"images-hidden": "/ui/images?state=hidden", "image-own": image + x.own.uuid, "image-hidden": image + x.hidden.uuid,
			"image-delete": image + sampleApp + "/delete", "publish": "/ui/publish",
			"nodes": "/ui/nodes", "nodes-have": "/ui/nodes?image=" + x.cached.uuid, "nodes-none": "/ui/nodes?q=192.0.2.1",
			"node": "/ui/nodes/127.0.10.11", "node-forget": "/ui/nodes/127.0.10.11/forget", "nodes-forget": "/ui/nodes/forget",
		})
	}
	return pages
}

// looks checks the page that the tab shows. The accessibility checker takes its time: it sees the light
// theme on a phone and the dark one on a desk, and with thorough the light one there, too.
func (b *tab) looks(name string, thorough bool) {
	b.t.Helper()
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{390, 1440} {
			b.look(theme, width)
			what := fmt.Sprintf("%s-%s-%d", name, theme, width)
			if *pictures != "" {
				b.load("loading the page anew", chromedp.Reload())
				if err := os.WriteFile(filepath.Join(*pictures, what+".png"), b.picture(), 0o644); err != nil {
					b.t.Fatal(err)
				}
			}
			for _, fault := range b.overflow() {
				b.t.Errorf("%s: wider than the page: %s", what, fault)
			}
			if onDesk := width > 600; onDesk == (theme == "dark") || onDesk && thorough {
				for _, fault := range b.unmarked() {
					b.t.Errorf("%s: no sign of the focus: %s", what, fault)
				}
				for _, fault := range b.accessible() {
					b.t.Errorf("%s: %s", what, fault)
				}
			}
		}
	}
	for _, width := range []int64{360, 2560} {
		b.look("light", width)
		for _, fault := range b.overflow() {
			b.t.Errorf("%s at %d: wider than the page: %s", name, width, fault)
		}
	}
}

// signIn signs the browser's user in.
func (b *tab) signIn(token string) {
	b.t.Helper()
	b.typed("#token", token)
	if status := b.follow("main form button"); status != 200 {
		b.t.Fatalf("signing in: status %d\n%s", status, b.describe())
	}
}

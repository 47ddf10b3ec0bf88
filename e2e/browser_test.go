package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is the one browser of the tests. The first tab starts it, run ends it.
var chromium struct {
	once sync.Once
	ctx  context.Context // of the process; nil until the browser has started
	err  error
}

// startBrowser starts chromium with a profile of its own. The browser reaches addresses of this
// machine only, whatever a page asks for.
func startBrowser(program string) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocated, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocated)
	if chromium.err = chromedp.Do(ctx); chromium.err == nil {
		chromium.ctx = ctx
	}
}

// endBrowser ends the browser, if one has started, and removes its profile.
func endBrowser() {
	if chromium.ctx == nil {
		return
	}
	ctx, cancel := context.WithTimeout(chromium.ctx, 10*time.Second)
	defer cancel()
	if err := chromedp.Cancel(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ending the browser:", err)
	}
}

// tab is a page of the browser, with cookies of its own. What goes wrong in the page is a fault,
// and fails the test when the test ends: an error on the console, an exception, a breach of the
// page's policy, a dialog, an answer of 400 or above, a request without an answer, a request for another
// address than those of the tab.
type tab struct {
	t          testing.TB
	ctx        context.Context
	bases      []string // the addresses that the page may ask
	scriptless bool

	mu      sync.Mutex
	faults  []string
	asked   map[network.RequestID]string // URLs of requests
	allowed []string
}

// newTab opens an empty page that may ask the given servers.
func newTab(t testing.TB, bases ...string) *tab {
	t.Helper()
	b := rawTab(t, bases...)
	t.Cleanup(func() {
		for _, fault := range b.takeFaults() {
			t.Error("in the browser:", fault)
		}
	})
	return b
}

// rawTab is newTab whose faults fail no test.
func rawTab(t testing.TB, bases ...string) *tab {
	t.Helper()
	program := need(t, "chromium")
	chromium.once.Do(func() { startBrowser(program) })
	if chromium.err != nil {
		t.Fatalf("starting %s: %v", program, chromium.err)
	}
	b := &tab{t: t, bases: bases, asked: map[network.RequestID]string{}}
	ctx, cancel := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.see))
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		t.Fatalf("opening a page: %v", err)
	}
	limited, stop := context.WithTimeout(ctx, 5*time.Minute)
	b.ctx = limited
	t.Cleanup(func() {
		stop()
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("closing a page: %v", err)
		}
	})
	return b
}

// see takes the faults out of the browser's events.
func (b *tab) see(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fault := func(format string, args ...any) { b.faults = append(b.faults, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if slices.Contains([]string{"error", "warning", "assert"}, string(e.Type)) {
			var said []string
			for _, arg := range e.Args {
				said = append(said, string(arg.Value)+arg.Description)
			}
			fault("console.%s: %s", e.Type, strings.Join(said, " "))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		fault("exception: %s", text)
	case *log.EventEntryAdded:
		// A failed request has an event of its own.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			fault("%s: %s", e.Entry.Source, e.Entry.Text)
		}
	case *page.EventJavascriptDialogOpening:
		fault("dialog: %s", e.Message)
	case *network.EventRequestWillBeSent:
		b.asked[e.RequestID] = e.Request.URL
		if !b.mayAsk(e.Request.URL) {
			fault("request for %s %s", e.Request.Method, e.Request.URL)
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			fault("answer %d to %s", e.Response.Status, e.Response.URL)
		}
	case *network.EventLoadingFailed:
		// A page that is left lets go of its requests.
		if !e.Canceled || e.BlockedReason != "" {
			fault("no answer to %s: %s %s", b.asked[e.RequestID], e.ErrorText, e.BlockedReason)
		}
	}
}

// mayAsk tells whether the URL is of one of the tab's servers.
func (b *tab) mayAsk(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	if u.Scheme == "data" || address == "about:blank" {
		return true
	}
	return slices.Contains(b.bases, u.Scheme+"://"+u.Host)
}

// allow lets faults pass that contain the text, of what was and what comes.
func (b *tab) allow(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = append(b.allowed, text)
}

// takeFaults gives the faults since the last call, without those that are allowed.
func (b *tab) takeFaults() []string {
	if !b.scriptless {
		// What the page has begun comes to its end: two turns of its event loop. A page that gives
		// way meanwhile has none.
		_ = b.evaluate(`new Promise(done => setTimeout(() => setTimeout(done)))`, nil)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	faults := slices.DeleteFunc(b.faults, func(fault string) bool {
		return slices.ContainsFunc(b.allowed, func(text string) bool { return strings.Contains(fault, text) })
	})
	b.faults = nil
	return faults
}

// open goes to the address and returns the status of the answer once the page has loaded.
func (b *tab) open(address string) int {
	b.t.Helper()
	response, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(address))
	if err != nil {
		b.t.Fatalf("opening %s: %v", address, err)
	}
	return int(response.Status)
}

// load runs what leads to another page, and returns the status of the page's answer.
func (b *tab) load(what string, steps ...chromedp.Action[chromedp.Void]) int {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	response, err := chromedp.RunResponse(ctx, steps...)
	if err != nil {
		b.t.Fatalf("%s: %v\non the page %s", what, err, b.describe())
	}
	return int(response.Status)
}

// follow clicks on the first match of the selector, which leads to another page, and returns the
// status of that page's answer.
func (b *tab) follow(selector string) int {
	b.t.Helper()
	return b.load("a click on "+selector, b.click(`document.querySelector(`+quoted(selector)+`)`))
}

// click clicks on the element that the expression finds, once a user can: the element is there, is
// seen, is enabled, and nothing covers the element. All happens in one turn of the page's event loop, so
// that a live part has no time to put another element in its place.
func (b *tab) click(find string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		tick := time.NewTicker(25 * time.Millisecond)
		defer tick.Stop()
		for {
			why := ""
			err := b.evaluateIn(ctx, `(() => {
				const element = `+find+`;
				if (!element) return "no such element";
				if (element.disabled) return "disabled";
				element.scrollIntoView({ block: "center", behavior: "instant" });
				const box = element.getClientRects()[0];
				if (!box) return "not shown";
				const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
				if (!over || !element.contains(over)) return "covered by " + (over ? over.outerHTML : "nothing that is seen");
				element.click();
				return "";
			})()`, &why)
			if err == nil && why == "" {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %s, %v", find, why, err)
			case <-tick.C:
			}
		}
	})
}

// typed writes into a field as a keyboard does.
func (b *tab) typed(selector, text string) {
	b.t.Helper()
	b.do("typing into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// do runs steps that lead to no other page.
func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v\non the page %s", what, err, b.describe())
	}
}

// evaluate sets value, a pointer, to what the expression gives. A promise is awaited.
func (b *tab) evaluate(expression string, value any) error {
	return b.evaluateIn(b.ctx, expression, value)
}

func (b *tab) evaluateIn(ctx context.Context, expression string, value any) error {
	yes := true
	result, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{
		Expression: expression, ReturnByValue: &yes, AwaitPromise: &yes,
	})
	switch {
	case err != nil:
		return err
	case result.ExceptionDetails != nil:
		return fmt.Errorf("%s: %s", result.ExceptionDetails.Text, result.ExceptionDetails.Exception.Description)
	case value == nil || result.Result.Value == nil:
		return nil
	}
	return json.Unmarshal(result.Result.Value, value)
}

// js is evaluate that fails the test instead.
func (b *tab) js(expression string, value any) {
	b.t.Helper()
	if err := b.evaluate(expression, value); err != nil {
		b.t.Fatalf("%s: %v", tail(expression, 300), err)
	}
}

// text is the text of all matches of the selector, as the document has it.
func (b *tab) text(selector string) string {
	b.t.Helper()
	var text string
	b.js(`[...document.querySelectorAll(`+quoted(selector)+`)].map(e => e.textContent).join("\n")`, &text)
	return text
}

// count is the number of matches of the selector.
func (b *tab) count(selector string) int {
	b.t.Helper()
	var n int
	b.js(`document.querySelectorAll(`+quoted(selector)+`).length`, &n)
	return n
}

// until waits until the expression is true, on this page or the next.
func (b *tab) until(expression string) {
	b.t.Helper()
	b.sample(expression, func(value any) bool { return value == true })
}

// sample asks for the expression's value every few milliseconds until done.
func (b *tab) sample(expression string, done func(value any) bool) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	every := 25 * time.Millisecond
	if b.scriptless { // the page changes by loading it again
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var value any
		err := b.evaluate(expression, &value) // fails while one page gives way to another
		if err == nil && done(value) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("gave up waiting until %s (now %v, %v)\non the page %s", expression, value, err, b.describe())
		}
		<-tick.C
	}
}

// describe is the address of the page and the start of its text.
func (b *tab) describe() string {
	var said string
	if err := b.evaluate(`location.href + "\n" + (document.body ? document.body.innerText : "")`, &said); err != nil {
		return err.Error()
	}
	if len(said) > 3000 {
		said = said[:3000] + "…"
	}
	return said
}

// look sets the theme, light or dark, and the width of the page.
func (b *tab) look(theme string, width int64) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		},
	})
	if err == nil {
		_, err = chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600,
		})
	}
	if err != nil {
		b.t.Fatalf("%s at %d: %v", theme, width, err)
	}
}

// withoutScript turns the page's script off, from the next page on.
func (b *tab) withoutScript() {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled,
		emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		b.t.Fatal(err)
	}
	b.scriptless = true
}

// picture is the whole page as a PNG.
func (b *tab) picture() []byte {
	b.t.Helper()
	yes := true
	shot, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &yes})
	if err != nil {
		b.t.Fatalf("a picture: %v", err)
	}
	return shot.Data
}

// quoted is a text as a literal of JavaScript.
func quoted(text string) string {
	literal, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(literal)
}

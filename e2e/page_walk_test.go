package e2e

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// visitor asks for pages as a browser without script does. It follows no redirect.
type visitor struct {
	t      testing.TB
	base   string // http://HOST:PORT
	cookie string // of the session; "" = none
}

// webPage is one answer.
type webPage struct {
	path   string
	status int
	header http.Header
	body   string
	root   *html.Node
}

// form is one form of a page.
type form struct {
	page   string // where the form is
	action string
	method string
	kind   string     // the enctype
	fields url.Values // with the values that the page has given them
}

// get asks for a page.
func (v *visitor) get(path string) webPage {
	v.t.Helper()
	return v.ask(http.MethodGet, path, "", nil)
}

// post sends a form.
func (v *visitor) post(path string, fields url.Values) webPage {
	v.t.Helper()
	return v.ask(http.MethodPost, path, "application/x-www-form-urlencoded", strings.NewReader(fields.Encode()))
}

func (v *visitor) ask(method, path, kind string, body io.Reader) webPage {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, v.base+path, body)
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Origin", v.base)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if v.cookie != "" {
		req.Header.Set("Cookie", v.cookie)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	root, err := html.Parse(bytes.NewReader(text))
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return webPage{path, resp.StatusCode, resp.Header, string(text), root}
}

// signIn makes the visitor an operator.
func (v *visitor) signIn(token string) {
	v.t.Helper()
	got := v.post("/ui/login", url.Values{"token": {token}})
	if got.status != http.StatusSeeOther {
		v.t.Fatalf("signing in: status %d: %s", got.status, got.body)
	}
	for _, cookie := range (&http.Response{Header: got.header}).Cookies() {
		v.cookie = cookie.Name + "=" + cookie.Value
	}
}

// walk asks for each page that can be reached by links from /ui/, whatever their queries.
func (v *visitor) walk() map[string]webPage {
	v.t.Helper()
	pages := map[string]webPage{}
	for queue := []string{"/ui/"}; len(queue) > 0; queue = queue[1:] {
		path := queue[0]
		if _, seen := pages[path]; seen {
			continue
		}
		if len(pages) == 500 {
			v.t.Fatalf("the pages lead to ever more pages: %q", slices.Sorted(maps.Keys(pages)))
		}
		page := v.get(path)
		pages[path] = page
		for _, link := range page.links() {
			if strings.HasPrefix(link, "/ui/") && !strings.HasPrefix(link, "/ui/static/") {
				queue = append(queue, link)
			}
		}
	}
	return pages
}

// links are the paths of the page's links.
func (p webPage) links() []string {
	var links []string
	here, err := url.Parse(p.path)
	if err != nil {
		return nil
	}
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "a" {
			continue
		}
		to, err := here.Parse(attribute(n, "href"))
		if err != nil || to.Host != "" {
			continue
		}
		to.Fragment, to.RawQuery = "", ""
		links = append(links, to.String())
	}
	return links
}

// forms are the page's forms, those of the search (method GET) too: one for each button with a name.
func (p webPage) forms() []form {
	var forms []form
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		f := form{
			page: p.path, action: attribute(n, "action"), method: strings.ToUpper(attribute(n, "method")),
			kind: attribute(n, "enctype"), fields: url.Values{},
		}
		if f.action == "" {
			f.action = p.path
		}
		var buttons []*html.Node
		for field := range n.Descendants() {
			switch name := attribute(field, "name"); {
			case field.Type != html.ElementNode || name == "":
			case field.Data == "button":
				buttons = append(buttons, field)
			default:
				f.fields.Set(name, attribute(field, "value"))
			}
		}
		if len(buttons) == 0 {
			forms = append(forms, f)
		}
		for _, button := range buttons {
			one := f
			one.fields = maps.Clone(f.fields)
			one.fields.Set(attribute(button, "name"), attribute(button, "value"))
			forms = append(forms, one)
		}
	}
	return forms
}

// attribute is the value of an element's attribute, "" if the element has none.
func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

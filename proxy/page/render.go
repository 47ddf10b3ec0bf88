package page

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"imgmirror/proxy/admin"
	"imgmirror/proxy/meaning"
)

//go:embed templates
var templateFiles embed.FS

// parseTemplates gives each page's template together with base.html and parts.html.
func parseTemplates() (map[string]*template.Template, error) {
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	base, err := template.New("base").Funcs(functions).ParseFS(templateFiles, "templates/base.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	all := make(map[string]*template.Template)
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		page, err := base.Clone()
		if err == nil {
			page, err = page.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, err
		}
		all[name] = page
	}
	return all, nil
}

// frame is what base.html gets.
type frame struct {
	Title    string
	Nav      []navItem
	Version  string
	Operator bool
	CSRF     string // "" on the side of clients
	Notice   string
	Now      time.Time
	Data     any // of the page
}

type navItem struct {
	Path, Text string
	Current    bool
}

// titled is a load's value with a title of its own.
type titled interface{ title() string }

// show sends a page. The whole page is made before its first byte goes out.
func (p *Page) show(w http.ResponseWriter, v *visit, status int, name, title string, data any) {
	f := frame{Title: title, Version: p.o.Version, Operator: v.operator(), Now: time.Now().UTC(), Data: data}
	if t, ok := data.(titled); ok {
		f.Title = t.title()
	}
	if v.session != nil {
		f.CSRF = v.session.csrf
		if notice := v.session.notice.Swap(nil); notice != nil {
			f.Notice = *notice
		}
	}
	if name != "login" {
		f.Nav = navigation(v)
	}
	var b bytes.Buffer
	if err := p.templates[name].ExecuteTemplate(&b, "base", f); err != nil {
		p.log.Error("a page could not be made", "page", name, "error", err)
		http.Error(w, "this page could not be made", http.StatusInternalServerError)
		return
	}
	body := visible(b.Bytes())
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	deadline(w)
	w.WriteHeader(status)
	if v.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that has left needs no answer
	}
}

// replyTimeout is how long a client may take for a reply that is sent whole.
const replyTimeout = 30 * time.Second

// deadline bounds the sending of a reply, where the listener has deadlines.
func deadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
}

// navigation is the pages that the visitor may go to.
func navigation(v *visit) (items []navItem) {
	for _, rt := range routes {
		if rt.nav == "" || rt.private && !v.operator() {
			continue
		}
		current := v.route.template == rt.template || v.route.section == rt.path && rt.path != ""
		items = append(items, navItem{root + rt.path, rt.nav, current})
	}
	return items
}

// fault is an error with the page that tells the fault.
type fault struct {
	status      int
	title, text string
}

func (f *fault) Error() string { return f.title + ": " + f.text }

var notFound = &fault{http.StatusNotFound, "Not found", "There is nothing here. What was here may have been removed."}

// fail sends the page of an error. Clients are told a status, and no more.
func (p *Page) fail(w http.ResponseWriter, v *visit, err error) {
	f := explain(err, v.operator())
	if f.status >= http.StatusInternalServerError {
		p.log.Warn("a page failed", "path", v.URL.Path, "error", err)
	}
	p.show(w, v, f.status, "error", f.Title, f)
}

// explain makes a page of an error.
func explain(err error, operator bool) *failure {
	var known *fault
	if errors.As(err, &known) {
		return &failure{known.status, known.title, known.text}
	}
	status := admin.StatusOf(err)
	if status == 0 {
		status = meaning.Of(err).Status
	}
	f := &failure{status: status}
	switch {
	case status == http.StatusNotFound:
		f.Title, f.Text = notFound.title, notFound.text
	case status >= http.StatusInternalServerError:
		f.Title, f.Text = "The mirror cannot tell", "The mirror could not find this out just now. Load the page again in a moment."
	default:
		f.Title, f.Text = "This did not work", "The mirror refused what was asked for."
	}
	if operator {
		f.Text = err.Error()
	}
	return f
}

// failure is the value of error.html.
type failure struct {
	status      int
	Title, Text string
}

func (f *failure) title() string { return f.Title }

// visible is HTML in which characters that are not seen, or that change the direction of other text,
// stand as text, such as \u202e. Names come from strangers.
func visible(html []byte) []byte {
	clean := true
	for i := 0; clean && i < len(html); i++ {
		c := html[i]
		clean = c < utf8.RuneSelf && (c >= ' ' && c != 0x7f || c == '\n' || c == '\t')
	}
	if clean {
		return html
	}
	out := make([]byte, 0, len(html)+64)
	for len(html) > 0 {
		r, n := utf8.DecodeRune(html)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, html[0])
		case strconv.IsPrint(r), r == '\n', r == '\t':
			out = append(out, html[:n]...)
		default:
			quoted := strconv.QuoteRune(r)
			out = append(out, quoted[1:len(quoted)-1]...)
		}
		html = html[n:]
	}
	return out
}

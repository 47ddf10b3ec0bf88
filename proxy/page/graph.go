package page

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"imgmirror/proxy/admin"
)

// graph is what was served against what was fetched, over one span, as a picture. Texts stand beside the
// picture, in the page's own size: a picture shrinks on a phone.
type graph struct {
	ID, Title       string
	Served, Fetched int64           // bytes of the whole span
	Picture         template.HTML   // of the lines; "" = there was no traffic
	Marks           []string        // of the axis of rates, from the top
	Times           []template.HTML // of the axis of time, from the left
	About           string          // the picture in words
}

// The size of a picture in its own units; CSS gives it the size on the page.
const (
	graphWidth  = 600
	graphHeight = 160
)

// spans are the graphs of the overview.
var spans = []struct{ name, title, layout string }{
	{"hour", "Last hour", "15:04"},
	{"day", "Last day", "15:04"},
	{"week", "Last week", "Mon 2 Jan"},
}

// graphs draws the traffic of all spans.
func (l *look) graphs() ([]graph, error) {
	var all []graph
	for _, s := range spans {
		series, err := l.page.o.API.Traffic(l, s.name)
		if err != nil {
			return nil, err
		}
		all = append(all, draw(series, s.name, s.title, s.layout))
	}
	return all, nil
}

// draw makes the graph of a series.
func draw(s admin.Series, name, title, layout string) graph {
	g := graph{ID: "graph-" + name, Title: title}
	step, last := max(s.Step, 1), len(s.Points)-1
	rate := func(i int, bytes int64) float64 {
		seconds := float64(step)
		if i == last { // the step is not over
			seconds = min(max(time.Since(s.Points[i].Time).Seconds(), seconds/4), seconds)
		}
		return float64(bytes) / seconds
	}
	most := 0.0
	for i, p := range s.Points {
		g.Served += p.Served
		g.Fetched += p.Fetched
		most = max(most, rate(i, p.Served), rate(i, p.Fetched))
	}
	if most == 0 || last < 1 {
		g.About = title + ": nothing was served, and nothing was fetched."
		return g
	}
	g.About = fmt.Sprintf("%s: %s served to clients, %s fetched from sources. The highest rate over %s was %s/s.",
		title, size(g.Served), size(g.Fetched), span(time.Duration(step)*time.Second), size(int64(most)))
	top := niceAbove(most)
	for i := 4; i >= 0; i -= 2 {
		g.Marks = append(g.Marks, size(int64(top*float64(i)/4))+"/s")
	}
	for _, i := range []int{0, last / 2, last} {
		t := s.Points[i].Time
		g.Times = append(g.Times, stamp(t, t.UTC().Format(layout)))
	}
	line := func(value func(admin.Point) int64) string {
		var b strings.Builder
		for i, p := range s.Points {
			x := float64(graphWidth) * float64(i) / float64(last)
			y := graphHeight * (1 - rate(i, value(p))/top)
			fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
		}
		return strings.TrimSuffix(b.String(), " ")
	}
	served := line(func(p admin.Point) int64 { return p.Served })
	fetched := line(func(p admin.Point) int64 { return p.Fetched })
	g.Picture = template.HTML(fmt.Sprintf( //nolint:gosec // numbers and escaped text
		`<svg class="plot" viewBox="0 0 %[1]d %[2]d" preserveAspectRatio="none" role="img" aria-labelledby="%[3]s-t %[3]s-d" focusable="false">`+
			`<title id="%[3]s-t">%[4]s</title><desc id="%[3]s-d">%[5]s</desc>`+
			`<path class="grid-line" d="M0 0H%[1]d M0 %[6]dH%[1]d M0 %[2]dH%[1]d"/>`+
			`<polygon class="served-area" points="0,%[2]d %[7]s %[1]d,%[2]d"/>`+
			`<polyline class="served-line" points="%[7]s"/><polyline class="fetched-line" points="%[8]s"/></svg>`,
		graphWidth, graphHeight, g.ID, template.HTMLEscapeString(title), template.HTMLEscapeString(g.About), graphHeight/2, served, fetched))
	return g
}

// niceAbove is the least number of the form 1, 2, 4 or 8 times a power of ten that is not below n.
func niceAbove(n float64) float64 {
	if n <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, f := range []float64{1, 2, 4, 8, 10} {
		if f*unit >= n {
			return f * unit
		}
	}
	return 10 * unit
}

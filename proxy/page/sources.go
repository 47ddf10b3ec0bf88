package page

import (
	"strings"
	"time"

	"imgmirror/proxy/admin"
)

// sourceList is the value of sources.html.
type sourceList struct {
	Sources []sourceRow
}

// sourceRow is a source with what the page adds.
type sourceRow struct {
	admin.Source
	Reasons []reason
	Tried   bool // the last try is worth a line of its own
}

// reason is why some images of a source are hidden.
type reason struct {
	Name   string
	Images int
}

func (p *Page) sources(v *visit) (any, error) { return v.look().sources() }

func (l *look) sources() (*sourceList, error) {
	all, err := l.page.o.API.Sources(l)
	if err != nil {
		return nil, err
	}
	if !l.operator {
		all = publicSources(all)
	}
	list := &sourceList{}
	for _, s := range all {
		list.Sources = append(list.Sources, sourceRow{Source: s, Reasons: reasons(s.Hidden), Tried: s.LastTry.Sub(s.LastSuccess) > time.Minute})
	}
	return list, nil
}

func (p *Page) actSources(v *visit) (string, error) {
	switch v.PostForm.Get("do") {
	case "refresh":
		job, err := v.api().Refresh(v.Context())
		if err != nil {
			return "", err
		}
		return root + "jobs/" + job.ID, nil
	case "check":
		var which admin.Which
		if name := v.PostForm.Get("source"); name != "" {
			which.Sources = []string{name}
		}
		all, err := v.api().Check(v.Context(), which)
		if err != nil {
			return "", err
		}
		var failed []string
		for _, s := range all {
			if s.Check != nil && !s.Check.OK {
				failed = append(failed, s.Name+": "+s.Check.Error)
			}
		}
		switch {
		case len(failed) > 0:
			v.say("No answer of " + strings.Join(failed, "; "))
		case len(which.Sources) > 0:
			v.say("Source " + which.Sources[0] + " has answered, and its list was taken in.")
		default:
			v.say("All sources have answered, and their lists were taken in.")
		}
		return root + "sources", nil
	}
	return "", unknownAction
}

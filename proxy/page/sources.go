package page

import (
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
		all, err := v.api().CheckSources(v.Context())
		if err != nil {
			return "", err
		}
		failed := 0
		for _, s := range all {
			if s.Check != nil && !s.Check.OK {
				failed++
			}
		}
		if failed == 0 {
			v.say("All sources have answered, and their lists were taken in.")
		} else {
			v.say(count(failed) + " of " + count(len(all)) + " sources did not answer. Their last errors are below.")
		}
		return root + "sources", nil
	}
	return "", unknownAction
}

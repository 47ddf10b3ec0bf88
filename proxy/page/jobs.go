package page

import (
	"net/http"
	"slices"
	"strings"

	"imgmirror/proxy/admin"
)

// maxItems bounds the images of a job that a page shows.
const maxItems = 500

// jobList is the value of jobs.html, newest first.
type jobList struct {
	Running, Over []admin.Job
}

func (p *Page) jobs(v *visit) (any, error) { return v.look().jobs() }

func (l *look) jobs() (*jobList, error) {
	all, err := l.page.o.API.Jobs(l)
	if err != nil {
		return nil, err
	}
	list := &jobList{}
	for _, j := range slices.Backward(all) {
		if !l.operator {
			j = l.publicJob(j)
		}
		if j.Over() {
			list.Over = append(list.Over, j)
		} else {
			list.Running = append(list.Running, j)
		}
	}
	return list, nil
}

// actJobs starts a job, and leads to its page.
func (p *Page) actJobs(v *visit) (string, error) {
	var job admin.Job
	var err error
	switch v.PostForm.Get("do") {
	case "fetch":
		var w admin.Wanted
		for _, word := range strings.Fields(v.PostForm.Get("wanted")) {
			if strings.Contains(word, "=") {
				w.Filters = append(w.Filters, word)
			} else {
				w.UUIDs = append(w.UUIDs, word)
			}
		}
		if len(w.Filters)+len(w.UUIDs) == 0 {
			return "", &fault{http.StatusUnprocessableEntity, "Nothing was done", "Name the images that are to be fetched."}
		}
		job, err = v.api().Fetch(v.Context(), w)
	case "verify":
		job, err = v.api().Verify(v.Context(), admin.Wanted{})
	default:
		return "", unknownAction
	}
	return root + "jobs/" + job.ID, err
}

// jobView is the value of job.html.
type jobView struct {
	admin.Job
	More int // images that are not shown
}

func (j *jobView) title() string { return "Job: " + j.Kind }

func (p *Page) job(v *visit) (any, error) { return v.look().job(v.PathValue("id")) }

func (l *look) job(id string) (*jobView, error) {
	j, err := l.page.o.API.Job(l, id)
	if err != nil {
		return nil, err
	}
	if !l.operator {
		j = l.publicJob(j)
	}
	view := &jobView{Job: j}
	if len(j.Items) > maxItems {
		view.Items, view.More = j.Items[:maxItems], len(j.Items)-maxItems
	}
	return view, nil
}

func (p *Page) actJob(v *visit) (string, error) {
	if v.PostForm.Get("do") != "cancel" {
		return "", unknownAction
	}
	j, err := v.api().Cancel(v.Context(), v.PathValue("id"))
	if err != nil {
		return "", err
	}
	v.say("The job is " + j.State + ".")
	return root + "jobs/" + j.ID, nil
}

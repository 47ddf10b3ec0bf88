package page

import (
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// What clients may see. Each function whose name begins with public takes what the API tells operators
// and leaves what is for everyone: no image that its manifest calls private, no address of a node, no URL
// of a source, and no text of an error or an event, for such texts name all of these. The look of a
// page asks the API by way of these functions only.

// The memory of which images are public, so that a page costs few questions.
const (
	maxVerdicts = 4096
	verdictLife = 20 * time.Second
)

// verdicts remembers for a short time which images everyone may know of.
type verdicts struct {
	mu  sync.Mutex
	all map[uuid.UUID]verdict
}

type verdict struct {
	public bool
	until  time.Time
}

// find gives a verdict that still holds.
func (vs *verdicts) find(id uuid.UUID) (public, known bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v, ok := vs.all[id]
	return v.public, ok && time.Now().Before(v.until)
}

func (vs *verdicts) note(id uuid.UUID, public bool) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.all == nil || len(vs.all) >= maxVerdicts {
		vs.all = make(map[uuid.UUID]verdict)
	}
	vs.all[id] = verdict{public, time.Now().Add(verdictLife)}
}

// isPublic tells whether everyone may know of an image: a list shows the image, and the image is public.
// No source is asked.
func (l *look) isPublic(id string) bool {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return false
	}
	if public, known := l.page.verdicts.find(parsed); known {
		return public
	}
	image, err := l.page.o.API.KnownImage(l, parsed)
	public := err == nil && shown(image)
	if err == nil || gone(err) {
		l.page.verdicts.note(parsed, public)
	}
	return public
}

// status is what the mirror does and saves, for the side of the look.
func (l *look) status() (admin.Status, error) {
	st, err := l.page.o.API.Status(l)
	if err == nil && !l.operator {
		st = l.publicStatus(st)
	}
	return st, err
}

// publicStatus is the status without what is not for everyone.
func (l *look) publicStatus(st admin.Status) admin.Status {
	if len(st.Trouble) > 0 {
		st.Trouble = []string{"The mirror has trouble with its data folder."}
	}
	st.Sources = publicSources(st.Sources)
	st.Fills = slices.DeleteFunc(slices.Clone(st.Fills), func(f admin.Fill) bool { return !l.isPublic(f.UUID) })
	jobs := make([]admin.Job, len(st.Jobs))
	for i, j := range st.Jobs {
		jobs[i] = l.publicJob(j)
	}
	st.Jobs = jobs
	events := []admin.Event{}
	for _, e := range st.Events {
		if e.Private || e.UUID != "" && !l.isPublic(e.UUID) {
			continue
		}
		e.Text, e.Node = "", ""
		events = append(events, e)
	}
	st.Events = events
	return st
}

// publicSources are sources without addresses and without texts of errors.
func publicSources(all []admin.Source) []admin.Source {
	out := slices.Clone(all)
	for i := range out {
		s := &out[i]
		s.URL, s.LastError, s.Reason, s.Check = "", "", "", nil
	}
	return out
}

// publicRows are the rows of public images, whatever the API was asked for.
func publicRows(all []admin.Row) []admin.Row {
	return slices.DeleteFunc(slices.Clone(all), func(r admin.Row) bool { return !r.Public })
}

// publicJob is a job without the texts of errors, and without its private images.
func (l *look) publicJob(j admin.Job) admin.Job {
	j.Error = nil
	items := []admin.Item{}
	for _, item := range j.Items[:min(len(j.Items), maxItems)] {
		if l.isPublic(item.UUID) {
			item.Error = nil
			items = append(items, item)
		}
	}
	j.Items = items
	return j
}

// gone tells that err means a thing that is not there.
func gone(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.status == http.StatusNotFound || errors.Is(err, fs.ErrNotExist) || admin.StatusOf(err) == http.StatusNotFound
}

package page

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// What clients may see. Each function whose name begins with public takes what the API tells operators
// and leaves what is for everyone: no image that its manifest calls private, no address of a node, no URL
// of a source, and no text of an error or an event, for such texts name all of these. The look of a
// page asks the API by way of these functions only.

// isPublic tells whether everyone may know of an image: the mirror has its manifest, and the manifest
// says so. An image that the mirror cannot find is not public.
func isPublic(ctx context.Context, api *admin.Client, id string) bool {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return false
	}
	image, err := api.Image(ctx, parsed)
	return err == nil && publicManifest(image.Manifest)
}

// publicManifest tells whether a manifest is of a public image.
func publicManifest(manifest json.RawMessage) bool {
	var m struct {
		Public *bool `json:"public"`
	}
	return json.Unmarshal(manifest, &m) == nil && m.Public != nil && *m.Public
}

// status is what the mirror does and saves, for the side of the look.
func (l *look) status() (admin.Status, error) {
	st, err := l.page.o.API.Status(l)
	if err == nil && !l.operator {
		st = publicStatus(l, l.page.o.API, st)
	}
	return st, err
}

// publicStatus is the status without what is not for everyone.
func publicStatus(ctx context.Context, api *admin.Client, st admin.Status) admin.Status {
	if len(st.Trouble) > 0 {
		st.Trouble = []string{"The mirror has trouble with its data folder."}
	}
	st.Sources = publicSources(st.Sources)
	st.Fills = publicFills(ctx, api, st.Fills)
	jobs := make([]admin.Job, len(st.Jobs))
	for i, j := range st.Jobs {
		jobs[i] = publicJob(ctx, api, j)
	}
	st.Jobs = jobs
	events := []admin.Event{}
	for _, e := range st.Events {
		if e.Private || e.UUID != "" && !isPublic(ctx, api, e.UUID) {
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

// publicFills are the downloads of public images.
func publicFills(ctx context.Context, api *admin.Client, all []admin.Fill) []admin.Fill {
	return slices.DeleteFunc(slices.Clone(all), func(f admin.Fill) bool { return !isPublic(ctx, api, f.UUID) })
}

// publicJob is a job without the texts of errors, and without its private images.
func publicJob(ctx context.Context, api *admin.Client, j admin.Job) admin.Job {
	j.Error = nil
	items := []admin.Item{}
	for _, item := range j.Items {
		if len(items) < maxItems && isPublic(ctx, api, item.UUID) {
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

package admin

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/zfsimport"
)

// install is POST /install.
func (s *Server) install(r *http.Request) (any, error) {
	var body Install
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	wanted, err := body.some()
	if err == nil && body.Stage && body.Pool != "" {
		err = refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "stage touches no pool: leave pool out")
	}
	if err != nil {
		return nil, err
	}
	images, err := s.mirror.Select(r.Context(), wanted)
	if err != nil {
		return nil, err
	}
	to := mirror.Target{Pool: body.Pool, Stage: body.Stage}
	steps, err := s.mirror.PlanInstall(r.Context(), images, to)
	if err != nil {
		return nil, InstallError(err)
	}
	items := InstallItems(steps)
	if body.DryRun {
		return items, nil
	}
	kind := kindInstall
	if body.Stage {
		kind = kindStage
	}
	return s.jobs.start(kind, items, func(ctx context.Context, j *job) error {
		return InstallError(s.mirror.Install(ctx, steps, to, func(i int, t mirror.Turn) {
			j.update(i, func(item *Item) { item.Installing(t) })
		}))
	})
}

// InstallItems gives the items of an install before their turns.
func InstallItems(steps []mirror.Step) []Item {
	items := make([]Item, len(steps))
	for i, st := range steps {
		st.Err = InstallError(st.Err)
		items[i] = itemOf(st)
		if files := st.Entry.Manifest.Files; len(files) > 0 {
			items[i].Total = files[0].Size // zpools have no room for more
		}
		if st.Cached || st.Outcome == zfsimport.Present {
			items[i].Fetched = items[i].Total
		}
		if st.Outcome == zfsimport.Present {
			items[i].Done = items[i].Total
		}
	}
	return items
}

// Installing takes over what a Turn tells of an image that is being installed.
func (item *Item) Installing(t mirror.Turn) {
	t.Err = InstallError(t.Err)
	if t.Have == 0 || t.Ended { // else the file is fetched, whatever the image's turn is
		item.turn(t)
	}
	item.Done, item.Received = max(item.Done, t.Read), max(item.Received, t.Written)
	item.Fetched = max(item.Fetched, item.Done, t.Have)
	item.Total = max(item.Total, item.Done)
	if t.Ended && t.Err == nil {
		item.Done, item.Fetched = item.Total, item.Total
	}
}

// InstallError gives what zfsimport refuses its code. Other errors, those of the file that was read
// among them, stay what they are.
func InstallError(err error) error {
	if code := zfsimport.CodeOf(err); code != "" {
		return &Error{Code: code, Message: err.Error()}
	}
	return err
}

// installed is GET /installed.
func (s *Server) installed(r *http.Request) (any, error) {
	all, err := s.mirror.Installed(r.Context(), r.URL.Query().Get("pool"))
	return InstalledOf(all), InstallError(err)
}

// InstalledOf is the data of the API for the images of a pool.
func InstalledOf(all []zfsimport.Installed) []Installed {
	out := make([]Installed, len(all))
	for n, in := range all {
		out[n] = Installed{
			UUID: in.UUID.String(), Pool: in.Pool, Dataset: in.Dataset, Snapshot: in.Snapshot,
			Used: in.Used, Clones: in.Clones, Record: in.Record, Source: in.Source,
		}
		if in.Origin != uuid.Nil {
			out[n].Origin = in.Origin.String()
		}
		if in.Manifest != nil {
			out[n].Manifest = in.Manifest.Raw()
		}
	}
	return out
}

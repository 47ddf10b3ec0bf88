package admin

import (
	"net/http"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
)

// readSome reads the Wanted of a request for what may not be done to everything by mistake.
func readSome(r *http.Request) (wanted mirror.Wanted, dry bool, err error) {
	var w Wanted
	if err := readJSON(r, &w); err != nil {
		return mirror.Wanted{}, false, err
	}
	wanted, err = w.some()
	return wanted, w.DryRun, err
}

// understood is w, which may be empty, in the terms of package mirror.
func (w Wanted) understood() (out mirror.Wanted, err error) {
	seen := make(map[uuid.UUID]bool, len(w.UUIDs))
	for _, text := range w.UUIDs {
		id, err := uuidOf(text)
		if err != nil {
			return out, err
		}
		if !seen[id] {
			seen[id] = true
			out.UUIDs = append(out.UUIDs, id)
		}
	}
	out.Filters, err = manifest.ParseFilters(w.Filters)
	return out, err
}

// some is understood for what may not be empty.
func (w Wanted) some() (mirror.Wanted, error) {
	out, err := w.understood()
	if err == nil && out.Empty() {
		err = refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "name images by uuids or filters")
	}
	return out, err
}

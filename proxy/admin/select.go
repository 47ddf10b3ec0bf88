package admin

import (
	"net/http"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
)

// readWanted reads a request's Wanted. It may be empty.
func readWanted(r *http.Request) (wanted mirror.Wanted, dry bool, err error) {
	var w Wanted
	if err := readJSON(r, &w); err != nil {
		return mirror.Wanted{}, false, err
	}
	wanted, err = w.understood()
	return wanted, w.DryRun, err
}

// readSome is readWanted for what may not be done to everything by mistake.
func readSome(r *http.Request) (wanted mirror.Wanted, dry bool, err error) {
	if wanted, dry, err = readWanted(r); err == nil {
		err = some(wanted)
	}
	return wanted, dry, err
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

// some refuses a selection of nothing.
func some(w mirror.Wanted) error {
	if w.Empty() {
		return refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "name images by uuids or filters")
	}
	return nil
}

package main

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
)

// imageRow is an image of the catalogue as a row.
type imageRow struct {
	admin.Image
	m shown
}

// shown is what the table shows of a manifest. The mirror has checked it.
type shown struct {
	UUID        string      `json:"uuid"`
	Name        string      `json:"name"`
	Version     string      `json:"version"`
	OS          string      `json:"os"`
	Type        string      `json:"type"`
	PublishedAt string      `json:"published_at"`
	State       string      `json:"state"`
	Owner       string      `json:"owner"`
	Public      bool        `json:"public"`
	Origin      string      `json:"origin"`
	Files       []shownFile `json:"files"`
}

type shownFile struct {
	SHA1        string `json:"sha1"`
	Size        int64  `json:"size"`
	Compression string `json:"compression"`
}

// imageRows reads manifests; there may be 100,000 of them.
func imageRows(images []admin.Image) ([]imageRow, error) {
	rows := make([]imageRow, len(images))
	for i, image := range images {
		rows[i].Image = image
		if err := json.Unmarshal(image.Manifest, &rows[i].m, jsonAsSent); err != nil {
			return nil, fmt.Errorf("a manifest in the mirror's answer: %w", err)
		}
	}
	return rows, nil
}

// imageTable shows images of the catalogue: imgadm's fields, and where an image
// is to be had.
var imageTable = table[imageRow]{
	defaults: "uuid,name,version,os,type,pub",
	columns: []column[imageRow]{
		{"uuid", func(r imageRow) any { return r.m.UUID }},
		{"name", func(r imageRow) any { return r.m.Name }},
		{"version", func(r imageRow) any { return r.m.Version }},
		{"os", func(r imageRow) any { return r.m.OS }},
		{"type", func(r imageRow) any { return r.m.Type }},
		{"pub", func(r imageRow) any { day, _, _ := strings.Cut(r.m.PublishedAt, "T"); return day }},
		{"published", func(r imageRow) any { return r.m.PublishedAt }},
		{"state", func(r imageRow) any { return r.m.State }},
		{"owner", func(r imageRow) any { return r.m.Owner }},
		{"public", func(r imageRow) any { return r.m.Public }},
		{"origin", func(r imageRow) any { return r.m.Origin }},
		{"size", func(r imageRow) any { return r.m.size() }},
		{"sha1", func(r imageRow) any { return r.m.file().SHA1 }},
		{"compression", func(r imageRow) any { return r.m.file().Compression }},
		{"source", func(r imageRow) any { return r.Source }},
		{"sources", func(r imageRow) any { return strings.Join(r.Sources, ",") }},
		{"listed", func(r imageRow) any { return r.Listed }},
		{"cached", func(r imageRow) any { return r.Cached }},
		{"pinned", func(r imageRow) any { return r.Pinned }},
	},
}

func (r imageRow) json() any { return r.Image }

// size is that of all files; -1 when no source tells.
func (m shown) size() size {
	var n int64
	for _, f := range m.Files {
		if f.Size == 0 {
			return -1
		}
		n += f.Size
	}
	return size(n)
}

// file is the first one; zero when there is none.
func (m shown) file() shownFile {
	if len(m.Files) == 0 {
		return shownFile{}
	}
	return m.Files[0]
}

// filterHelp explains filters to those who ask for help.
const filterHelp = `A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE; of several, all must hold. Fields are
uuid, name, version, os, type, state, owner, public, origin, published_at, description and tag.KEY.`

// filterArgs is for verbs whose arguments are filters only.
func filterArgs(_ *cobra.Command, args []string) error {
	for _, a := range args {
		if _, err := manifest.ParseFilter(a); err != nil {
			return &failure.Error{Code: failure.CodeUsage, Err: err}
		}
	}
	return nil
}

// uuidArg is for verbs with one image as their argument.
func uuidArg(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return failure.Usage("want one UUID, not %d arguments", len(args))
	}
	_, err := parseUUID(args[0])
	return err
}

func parseUUID(s string) (uuid.UUID, error) {
	id, ok := manifest.ParseUUID(strings.ToLower(s))
	if !ok {
		return id, failure.Usage("%q is not a UUID", s)
	}
	return id, nil
}

// readWanted reads arguments that are UUIDs, filters or both.
func readWanted(args []string) (admin.Wanted, error) {
	var w admin.Wanted
	for _, a := range args {
		if strings.Contains(a, "=") {
			if err := filterArgs(nil, []string{a}); err != nil {
				return w, err
			}
			w.Filters = append(w.Filters, a)
			continue
		}
		id, err := parseUUID(a)
		if err != nil {
			return w, err
		}
		w.UUIDs = append(w.UUIDs, id.String())
	}
	return w, nil
}

// wantedArgs is for verbs that need at least one UUID or filter.
func wantedArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return failure.Usage("want UUIDs or filters")
	}
	_, err := readWanted(args)
	return err
}

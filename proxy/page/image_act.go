package page

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// What operators do with one image.

func (p *Page) actImage(v *visit) (string, error) {
	id, err := uuid.Parse(v.PathValue("uuid"))
	if err != nil {
		return "", errNoImage
	}
	wanted := admin.Wanted{UUIDs: []string{id.String()}}
	here := root + "images/" + id.String()
	ctx, api := v.Context(), v.api()
	var job admin.Job
	switch v.PostForm.Get("do") {
	case "fetch":
		job, err = api.Fetch(ctx, wanted)
	case "verify":
		job, err = api.Verify(ctx, wanted)
	case "install":
		job, err = api.Install(ctx, admin.Install{Wanted: wanted})
	case "pin":
		if _, err = api.Pin(ctx, wanted); err == nil {
			v.say("The image is pinned: its files, and those of its origins, stay on disk.")
		}
		return here, err
	case "unpin":
		if _, err = api.Unpin(ctx, wanted); err == nil {
			v.say("The pin is taken back.")
		}
		return here, err
	case "delete":
		removed, err := api.Delete(ctx, wanted)
		if err == nil {
			v.say("Deleted: " + removedText(removed) + ".")
		}
		return here, err
	case "unpublish":
		removed, err := api.Unpublish(ctx, id)
		if err == nil {
			v.say("The image is no longer published. Deleted: " + removedText(removed) + ".")
		}
		return root + "images", err
	default:
		return "", unknownAction
	}
	return root + "jobs/" + job.ID, err
}

// removedText tells how much was removed.
func removedText(all []admin.Removed) string {
	var bytes int64
	for _, r := range all {
		bytes += r.Size
	}
	if len(all) == 1 {
		return "1 file, " + size(bytes)
	}
	return fmt.Sprintf("%d files, %s", len(all), size(bytes))
}

// confirmation is the value of image-confirm.html.
type confirmation struct {
	UUID, Name string
	Do, What   string
	Removed    []admin.Removed
	Others     []string // images that lose a file, too
	Fault      string   // why it cannot be done
}

func (c *confirmation) title() string { return c.What }

// Amount is how much would be removed.
func (c *confirmation) Amount() string { return removedText(c.Removed) }

func (p *Page) confirmDelete(v *visit) (any, error) {
	c, err := v.confirmation("delete", "Delete the files of this image")
	if err != nil {
		return nil, err
	}
	removed, err := v.api().Delete(v.Context(), admin.Wanted{UUIDs: []string{c.UUID}, DryRun: true})
	if err != nil {
		c.Fault = err.Error()
		return c, nil
	}
	c.Removed = removed
	for _, r := range removed {
		for _, id := range r.UUIDs {
			if id != c.UUID {
				c.Others = append(c.Others, id)
			}
		}
	}
	return c, nil
}

func (p *Page) confirmUnpublish(v *visit) (any, error) {
	c, err := v.confirmation("unpublish", "Unpublish this image")
	if err != nil {
		return nil, err
	}
	return c, nil
}

// confirmation names the image of a page that asks once more.
func (v *visit) confirmation(do, what string) (*confirmation, error) {
	id, err := uuid.Parse(v.PathValue("uuid"))
	if err != nil {
		return nil, errNoImage
	}
	image, err := v.api().Image(v.Context(), id)
	if err != nil {
		return nil, err
	}
	f := readFacts(image.Manifest)
	c := &confirmation{UUID: id.String(), Name: f.Name + " " + f.Version, Do: do, What: what}
	if do == "unpublish" && !isPublished(image) {
		c.Fault = "The image is not published on this mirror."
	}
	return c, nil
}

func (p *Page) publishForm(*visit) (any, error) { return struct{}{}, nil }

// The bounds of a form that publishes.
const (
	maxManifest = 1 << 20
	maxUnread   = 1 << 30 // bytes that are read and dropped after an error, so that the browser shows the answer
)

// actPublish passes the file on as it comes in.
func (p *Page) actPublish(v *visit) (_ string, err error) {
	if v.parts == nil {
		return "", errTorn
	}
	defer func() {
		if err != nil {
			_, _ = io.CopyN(io.Discard, v.Body, maxUnread)
		}
	}()
	part, err := v.parts.NextPart()
	if err != nil || part.FormName() != "manifest" {
		return "", errTorn
	}
	manifest, err := io.ReadAll(io.LimitReader(part, maxManifest+1))
	switch {
	case err != nil:
		return "", errTorn
	case len(manifest) > maxManifest:
		return "", errLarge
	case !json.Valid(manifest):
		return "", &fault{422, "Not published", "The manifest is not JSON. imgmirror manifest create writes one."}
	}
	file, err := v.parts.NextPart()
	if err != nil || file.FormName() != "file" {
		return "", errTorn
	}
	if file.FileName() == "" {
		return "", &fault{422, "Not published", "No file was chosen."}
	}
	image, err := v.api().Publish(v.Context(), manifest, file)
	if err != nil {
		return "", err
	}
	v.say("The image is published.")
	return root + "images/" + readFacts(image.Manifest).UUID, nil
}

// Package man writes the manual pages. They are made of the commands and of the configuration's
// keys, so they are those of the version at hand.
package man

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manual is the description in imgmirror(8), Markdown like all that cobra's writer takes.
const manual = `imgmirror stands between the compute nodes of a data centre and their image servers. It merges the lists of its
sources, fetches the file of an image when a node first asks for it, checks it while it passes, keeps it, and serves it
from disk from then on. Nodes use it by

    imgadm sources -a http://MIRROR:8080

Each verb but serve asks the mirror that runs on the data folder, over the socket admin.sock in it. When none runs, the
verb opens the data folder itself. With --server it asks a mirror on another machine. Each verb has a page of its own:
imgmirror-fetch(8).

# FILES
**/etc/imgmirror/imgmirror.yaml**
: the configuration, see imgmirror.yaml(5)

**DATA/admin.sock**
: where the verbs find a running mirror; who may open it may do everything

**DATA/admin.token**
: the token that the admin listener wants over TCP

# ENVIRONMENT
**IMGMIRROR_SECTION_KEY**
: sets a key of the configuration, see imgmirror.yaml(5)

**HTTP_PROXY, HTTPS_PROXY, NO_PROXY**
: proxies to the sources, in either case

# EXIT STATUS
**0**
: success

**1**
: failure; the message is on standard error, as imgmirror VERB: error (Code): message

**2**
: the command line makes no sense

**95, 96**
: of serve under SMF: a fatal error, a wrong configuration
`

// Write writes imgmirror(8), a page of each verb, and imgmirror.yaml(5) to a folder, for the
// binary of that version, with the date of SOURCE_DATE_EPOCH, or else of today. The texts of root, the
// whole command tree, become those of the page.
func Write(folder string, root *cobra.Command, version string) error {
	date, err := dateOf(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	header := doc.GenManHeader{Section: "8", Source: "imgmirror " + version, Manual: "imgmirror", Date: &date}
	root.Use, root.Long, root.DisableAutoGenTag = "imgmirror VERB", manual, true
	if err := doc.GenManTree(root, &header, folder); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(folder, "imgmirror.yaml.5"))
	if err != nil {
		return err
	}
	defer f.Close()
	page, err := configPage()
	if err != nil {
		return err
	}
	header.Section = "5"
	if err := doc.GenMan(page, &header, f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return withDay(folder, date)
}

// dateOf is the date of pages: that of the seconds in epoch, or without epoch today.
func dateOf(epoch string) (time.Time, error) {
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: not a number of seconds", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// withDay puts the whole date into the heads of the pages in folder: cobra writes month and year.
func withDay(folder string, date time.Time) error {
	pages, err := filepath.Glob(filepath.Join(folder, "imgmirror*.[58]"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		month, day := strconv.Quote(date.Format("Jan 2006")), strconv.Quote(date.Format(time.DateOnly))
		if err := os.WriteFile(page, bytes.Replace(text, []byte(month), []byte(day), 1), 0o644); err != nil {
			return err
		}
	}
	return nil
}

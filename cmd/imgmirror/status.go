package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

func newStatusCmd() *cobra.Command {
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the mirror does and saves, on one screen",
		Long: "Shows the mirror at a glance: how many of the bytes and requests of clients were met without a download of\n" +
			"their own (hit ratio), what was saved, the disk against its limit, the sources and the age of their lists, the\n" +
			"downloads and jobs under way, and the last events. The sums outlive restarts. Hours saved are the bytes saved\n" +
			"at the mean rate of this mirror's own downloads. With -w the screen follows the mirror until Ctrl-C; with\n" +
			"-w -j each change is a line of JSON. With no mirror running it tells what is on disk.",
		Args: noArgs,
	}
	addWatchFlag(cmd, &watch, "follow the mirror until Ctrl-C")
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "JSON output, as GET /api/v1/status has it")
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withSession(cmd, needFiles, func(ctx context.Context, s *session) error {
			if watch {
				return watchStatus(ctx, cmd, s, asJSON)
			}
			st, err := s.Status(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return table.JSON(cmd.OutOrStdout(), st)
			}
			width, height := screenOf(cmd)
			_, err = cmd.OutOrStdout().Write([]byte(statusText(st, s.local, width, height)))
			return err
		})
	}
	return cmd
}

// watchStatus shows the status whenever it has changed, until the operator's Ctrl-C, which is the usual end.
func watchStatus(ctx context.Context, cmd *cobra.Command, s *session, asJSON bool) error {
	screen := progress.NewScreen(cmd.OutOrStdout())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failed error
	err := s.FollowStatus(ctx, func(st admin.Status) {
		text, err := jsonLine(st)
		if !asJSON {
			width, height := screenOf(cmd)
			text, err = statusText(st, s.local, width, height), nil
		}
		if err = errors.Join(err, screen.Show(text)); err != nil {
			failed = err
			stop()
		}
	})
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

// The screen that a status is made for.
const (
	screenWidth  = 80
	screenHeight = 24
	widest       = 100
)

// screenOf gives the columns and rows of the terminal that the verb writes to, within reason; without
// one, those of a usual terminal.
func screenOf(cmd *cobra.Command) (width, height int) {
	var f *os.File
	switch out := cmd.OutOrStdout().(type) {
	case *os.File:
		f = out
	case interface{ File() *os.File }:
		f = out.File()
	}
	if f != nil {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return min(max(w-1, 40), widest), max(h, screenHeight)
		}
	}
	return screenWidth, screenHeight
}

// age is how long ago t was, in its largest unit.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t)) + " ago"
}

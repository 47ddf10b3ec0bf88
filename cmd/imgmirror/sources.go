package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

var sourceTable = table.New("name,url,kind,state,images,refreshed,error",
	table.Field("name", func(s admin.Source) any { return s.Name }),
	table.Field("url", func(s admin.Source) any { return s.URL }),
	table.Field("kind", func(s admin.Source) any { return s.Kind }),
	table.Field("state", func(s admin.Source) any { return stateText(s) }),
	table.Field("images", func(s admin.Source) any { return s.Images }),
	table.Field("hidden", func(s admin.Source) any { return hiddenText(s.Hidden) }),
	table.Field("refreshed", func(s admin.Source) any { return s.LastSuccess }),
	table.Field("tried", func(s admin.Source) any { return s.LastTry }),
	table.Field("asked_from", func(s admin.Source) any { return s.AskedFrom }),
	table.Field("resting", func(s admin.Source) any { return s.Resting }),
	table.Field("reason", func(s admin.Source) any { return s.Reason }),
	table.Field("certificate", func(s admin.Source) any { return s.Certificate }),
	table.Field("error", func(s admin.Source) any { return s.LastError }),
	table.Field("check", func(s admin.Source) any { return checkText(s) }),
	table.Field("took", func(s admin.Source) any { return tookText(s.Check) }),
)

// checkedFields are the defaults with -c.
const checkedFields = "name,url,kind,images,check,took"

func newSourcesCmd() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "sources",
		Short: "List the image servers that are mirrored, and how they are",
		Long: "Lists the sources in order of priority: kind, state, number of images, when their list was last\n" +
			"fetched, and what the last try ended with. A source that fails again and again is resting: it is asked\n" +
			"less and less, and next to nothing for a client until the time in asked_from. The field resting counts\n" +
			"the images that a source fails to give while it gives others; these are asked for rarely. The field\n" +
			"reason tells why images, or the source, rest. The field hidden, and hidden in\n" +
			"the JSON, counts by reason what a source offers and clients are not shown; show UUID explains it of one\n" +
			"image. With -c each source is asked for its list just now, and the list is taken over.",
		Args: noArgs,
	}
	cmd.Flags().BoolVarP(&check, "check", "c", false, "ask each source now; exit 1 if one fails")
	quiet := addQuietFlag(cmd)
	addServerFlags(cmd)
	flags := sourceTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if check && !cmd.Flags().Changed("output") {
			flags.Fields = checkedFields
		}
		out, err := sourceTable.Layout(flags)
		if err != nil {
			return err
		}
		wanted := needAnswers
		if check {
			wanted = needCheck
		}
		return withSession(cmd, wanted, func(ctx context.Context, s *session) error {
			ask := s.Sources
			if check {
				ask = s.CheckSources
			}
			sources, err := ask(ctx)
			if err != nil {
				return err
			}
			if !*quiet {
				tellSilence(cmd.ErrOrStderr(), sources)
			}
			return errors.Join(out.Print(cmd.OutOrStdout(), sources), failedChecks(sources))
		})
	}
	return cmd
}

// failedChecks is the error of a verb after some sources did not give their lists.
func failedChecks(sources []admin.Source) error {
	failed := 0
	for _, s := range sources {
		if s.Check != nil && !s.Check.OK {
			failed++
		}
	}
	if failed > 0 {
		return failure.New("SourcePing", "%d of %d sources failed", failed, len(sources))
	}
	return nil
}

// stateText is up, down or unknown, or resting: down, and left alone for a while.
func stateText(s admin.Source) string {
	if time.Now().Before(s.AskedFrom) {
		return "resting"
	}
	return s.State
}

// hiddenText is how many images are not shown, by reason, those with the most first: "private=12,refused=1".
func hiddenText(counts map[string]int) string {
	reasons := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	for i, r := range reasons {
		reasons[i] = r + "=" + strconv.Itoa(counts[r])
	}
	return strings.Join(reasons, ",")
}

// checkText is the outcome of a check: ok, perhaps with what the source could not read, or the error.
func checkText(s admin.Source) string {
	switch {
	case s.Check == nil:
		return ""
	case s.Check.OK && s.LastError != "":
		return "ok, but " + s.LastError
	case s.Check.OK:
		return "ok"
	}
	return s.Check.Error
}

func tookText(c *admin.Check) string {
	if c == nil {
		return ""
	}
	return (time.Duration(c.Took) * time.Millisecond).String()
}

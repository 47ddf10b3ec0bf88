package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/meaning"
)

// jobTable shows jobs.
var jobTable = table.New("id,kind,state,started,took,done,total,percent",
	table.Field("id", func(j admin.Job) any { return j.ID }),
	table.Field("kind", func(j admin.Job) any { return j.Kind }),
	table.Field("state", func(j admin.Job) any { return j.State }),
	table.Field("started", func(j admin.Job) any { return j.Started }),
	table.Field("ended", func(j admin.Job) any { return j.Ended }),
	table.Field("took", func(j admin.Job) any { return jobTook(j) }),
	table.Field("done", func(j admin.Job) any { return table.Size(j.Done) }),
	table.Field("total", func(j admin.Job) any { return table.Size(j.Total) }),
	table.Field("percent", func(j admin.Job) any { return table.Share(j.Done, j.Total) }),
	table.Field("error", func(j admin.Job) any { return errorText(j.Error) }),
)

// jobItemFields are the fields of the images of a job that are shown without -o.
const jobItemFields = "uuid,name,version,state,done,size,error"

func newJobsCmd() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "jobs [ID]",
		Short: "List the jobs of the mirror, or show one",
		Long: "Lists the jobs of the mirror that runs, oldest first: fetches, installs, checks of files and of sources,\n" +
			"those under way and the last ones that are over. With the ID of a job, or the beginning of an ID, it shows\n" +
			"the job and its images (fields: " + jobItemFields + "). With -w it follows the jobs until Ctrl-C, or\n" +
			"one job until it is over; the jobs go on. With -w -j each change is a line of JSON. jobs cancel ID ends a job.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return nil
			}
			if verbs := verbNames(cmd); table.Nearest(args[0], verbs) != "" {
				return failure.Usage("%s", table.Unknown("verb", args[0], verbs))
			}
			return failure.Usage("want one ID, not %d arguments", len(args))
		},
		ValidArgsFunction: completeFrom(jobsOf(func(admin.Job) bool { return true })),
	}
	addWatchFlag(cmd, &watch, "follow the jobs until Ctrl-C, or one job until it is over")
	addServerFlags(cmd)
	flags := jobTable.Flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			out, err := jobTable.Layout(flags)
			if err != nil {
				return err
			}
			return withRunning(cmd, func(ctx context.Context, s *session) error {
				return printRows(ctx, cmd, out, watch, s.Jobs)
			})
		}
		if !cmd.Flags().Changed("output") {
			flags.Fields = jobItemFields
		}
		out, err := itemTable.Layout(flags)
		if err != nil {
			return err
		}
		return withRunning(cmd, func(ctx context.Context, s *session) error { return showJob(ctx, cmd, s, args[0], out, watch) })
	}
	cmd.AddCommand(newJobsCancelCmd())
	return cmd
}

// showJob prints the job that typed names: once, or with watch until the job is over. A job that has
// failed is the verb's failure then.
func showJob(ctx context.Context, cmd *cobra.Command, s *session, typed string, out table.Layout[admin.Item], watch bool) error {
	job, err := findJob(ctx, s, typed)
	if err != nil {
		return err
	}
	if !watch {
		if job, err = s.Job(ctx, job.ID); err != nil {
			return err
		}
		if out.JSON {
			return table.JSON(cmd.OutOrStdout(), job)
		}
		return printJob(cmd.OutOrStdout(), job, out)
	}
	err = follow(ctx, cmd, func(ctx context.Context) (string, bool, error) {
		if job, err = s.Job(ctx, job.ID); err != nil {
			return "", false, err
		}
		if out.JSON {
			text, err := jsonLine(job)
			return text, job.Over(), err
		}
		var b bytes.Buffer
		err := printJob(&b, job, out)
		return b.String(), job.Over(), err
	})
	switch {
	case err != nil || job.State == admin.JobRunning || job.State == admin.JobDone:
		return err
	case job.Error != nil:
		return job.Error
	}
	return failure.New("JobFailed", "the job is %s", job.State)
}

// printJob prints the images of a job, behind what the job is as a whole.
func printJob(w io.Writer, j admin.Job, out table.Layout[admin.Item]) error {
	if !out.NoHeader {
		state := j.State
		if j.Error != nil {
			state += ": " + errorText(j.Error)
		}
		done := table.Cell(table.Size(j.Done))
		if j.Total > 0 {
			done += fmt.Sprintf(" of %s, %s", table.Cell(table.Size(j.Total)), table.Cell(table.Share(j.Done, j.Total)))
		}
		for _, l := range []string{
			"job      " + j.ID,
			"kind     " + j.Kind,
			"state    " + state,
			"started  " + table.Cell(j.Started),
			"took     " + table.Cell(jobTook(j)),
			"done     " + done,
		} {
			if _, err := fmt.Fprintln(w, table.Printable(l)); err != nil {
				return err
			}
		}
		if len(j.Items) == 0 {
			return nil
		}
		fmt.Fprintln(w) //nolint:errcheck // Print tells
	}
	return out.Print(w, j.Items)
}

func newJobsCancelCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a job",
		Long: "Ends a job, named by its ID or the beginning of its ID, and waits until the job has ended. What has\n" +
			"arrived is kept, and a new job goes on from there. A job that is over stays as it is.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failure.Usage("want one ID, not %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: completeFrom(jobsOf(func(j admin.Job) bool { return !j.Over() })),
	}
	addServerFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withRunning(cmd, func(ctx context.Context, s *session) error {
			job, err := findJob(ctx, s, args[0])
			if err != nil {
				return err
			}
			was := job.Over()
			if job, err = s.Cancel(ctx, job.ID); err != nil {
				return err
			}
			said := job.State
			if was {
				said = "was over before: " + said
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %s\n", job.ID, job.Kind, said)
			return err
		})
	}
	return cmd
}

// findJob gives the one job with an ID that begins with typed, without its items.
func findJob(ctx context.Context, s *session, typed string) (admin.Job, error) {
	all, err := s.Jobs(ctx)
	if err != nil {
		return admin.Job{}, err
	}
	var found []admin.Job
	beginnings := make([]string, 0, len(all))
	for _, j := range all {
		if typed != "" && strings.HasPrefix(j.ID, strings.ToLower(typed)) {
			found = append(found, j)
		}
		beginnings = append(beginnings, j.ID[:min(len(j.ID), len(typed))])
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return admin.Job{}, failure.New(meaning.NotFound, "%s", table.Unknown("job", typed, beginnings))
	}
	return admin.Job{}, failure.New(meaning.NotFound, "the IDs of %d jobs begin with %q: type more of it", len(found), typed)
}

// jobsOf lists jobs for a shell that completes their IDs.
func jobsOf(want func(admin.Job) bool) func(context.Context, *session) ([]choice, error) {
	return func(ctx context.Context, s *session) ([]choice, error) {
		jobs, err := s.Jobs(ctx)
		var all []choice
		for _, j := range jobs {
			if want(j) {
				all = append(all, choice{j.ID, j.Kind + ", " + j.State})
			}
		}
		return all, err
	}
}

// jobTook is how long a job has been at work.
func jobTook(j admin.Job) time.Duration {
	end := j.Ended
	if end.IsZero() {
		end = time.Now()
	}
	return max(end.Sub(j.Started), 0)
}

// errorText is an error of the API in a table.
func errorText(e *admin.Error) string {
	if e == nil {
		return ""
	}
	return e.Message + " (" + cmp.Or(e.Code, failure.CodeInternal) + ")"
}

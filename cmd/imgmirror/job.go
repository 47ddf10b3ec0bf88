package main

import (
	"cmp"
	"context"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/proxy/admin"
)

// cancelLimit is how long a mirror may take to cancel a job.
const cancelLimit = 5 * time.Second

// following is a verb that starts a job and stays until it is over.
type following struct {
	session *session
	quiet   bool              // no bars, and only the lines of what failed
	json    bool              // the job at its end, and nothing else, on stdout
	done    map[string]string // item state -> what it is called; what is not in it is a failure

	cancelLimit time.Duration // 0 = cancelLimit
}

// follow shows job until it is over and tells how it ended. When ctx ends (the
// operator's Ctrl-C) the job is cancelled; what has arrived stays for the next
// try. An image that failed is reported on stderr, and makes the verb fail.
func (f following) follow(ctx context.Context, cmd *cobra.Command, job admin.Job) error {
	show := newProgress(cmd.ErrOrStderr(), f.quiet || f.json)
	told := make(map[string]bool) // uuids whose end has been told
	job, err := f.session.Follow(ctx, job.ID, func(j admin.Job) {
		f.tell(cmd, show, j, told)
		show.paint(j)
	})
	show.clear()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		limited, stop := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(f.cancelLimit, cancelLimit))
		defer stop()
		if _, err := f.session.Cancel(limited, job.ID); err != nil {
			return failure.New(failure.CodeInterrupted, "the job %s goes on, for it could not be cancelled: %w", job.ID, err)
		}
		return failure.New(failure.CodeInterrupted, "cancelled; what has arrived is kept, and the same command goes on from there")
	default:
		return err
	}
	f.tell(cmd, show, job, told)
	if f.json {
		if err := printJSON(cmd.OutOrStdout(), job); err != nil {
			return err
		}
	}
	return f.outcome(job)
}

// tell prints a line for each image that has come to its end since the last call.
func (f following) tell(cmd *cobra.Command, show *progress, j admin.Job, told map[string]bool) {
	for _, i := range j.Items {
		if i.State == admin.ItemWaiting || i.State == admin.JobRunning || told[i.UUID] {
			continue
		}
		told[i.UUID] = true
		called, good := f.done[i.State]
		switch {
		case !good && i.Error != nil:
			show.say(cmd.ErrOrStderr(), "%s: %s (%s): %s", who(i), i.State, i.Error.Code, i.Error.Message)
		case !good:
			show.say(cmd.ErrOrStderr(), "%s: %s", who(i), i.State)
		case f.quiet || f.json:
		case i.Total > 0:
			show.say(cmd.OutOrStdout(), "%s: %s, %s", who(i), called, humanize.Bytes(uint64(i.Total)))
		default:
			show.say(cmd.OutOrStdout(), "%s: %s", who(i), called)
		}
	}
}

// who is the image of i: its uuid, and its name where that is known.
func who(i admin.Item) string {
	if i.Name == "" {
		return i.UUID
	}
	return i.UUID + " " + label(i)
}

// tellAll is follow for work that was done at once.
func (f following) tellAll(cmd *cobra.Command, items []admin.Item) error {
	job := admin.Job{State: admin.JobDone, Items: items}
	f.tell(cmd, newProgress(cmd.ErrOrStderr(), true), job, make(map[string]bool))
	return f.outcome(job)
}

// outcome is the verb's error, nil when all went well.
func (f following) outcome(job admin.Job) error {
	bad := 0
	var first *admin.Error
	for _, i := range job.Items {
		if _, good := f.done[i.State]; good {
			continue
		}
		if bad++; first == nil {
			first = i.Error
		}
	}
	switch {
	case job.State == admin.JobCancelled:
		return failure.New("Cancelled", "job %s was cancelled", job.ID)
	case job.Error != nil && bad == 0:
		return job.Error
	case bad == 0 && job.State == admin.JobDone:
		return nil
	case first != nil && len(job.Items) == 1:
		return first
	case first != nil:
		return failure.New(first.Code, "%d of %d images failed", bad, len(job.Items))
	}
	return failure.New(failure.CodeInternal, "%d of %d images failed", bad, len(job.Items))
}

package progress

import (
	"cmp"
	"context"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

// cancelLimit is how long a mirror may take to cancel a job.
const cancelLimit = 5 * time.Second

// Following is a verb that starts a job and stays until the job is over.
type Following struct {
	Client      *admin.Client     // nil for a verb that does the work itself
	Quiet       bool              // no bars, and only the lines of what failed
	JSON        bool              // the job at its end, and nothing else, on stdout
	Done        map[string]string // item state -> what it is called; another state is a failure
	CancelLimit time.Duration     // for the mirror to cancel the job; 0 = 5 s
}

// Follow shows job until it is over and tells how it ended. When ctx ends (the operator's
// Ctrl-C) the job is cancelled; what has arrived stays for the next try. An image that failed
// is reported on the stderr of cmd, and makes the verb fail.
func (f Following) Follow(ctx context.Context, cmd *cobra.Command, job admin.Job) error {
	show := New(cmd.ErrOrStderr(), f.Quiet || f.JSON)
	job, err := f.Client.Follow(ctx, job.ID, func(j admin.Job) {
		f.Tell(cmd, show, j)
		show.Paint(j)
	})
	show.Clear()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		limited, stop := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(f.CancelLimit, cancelLimit))
		defer stop()
		if _, err := f.Client.Cancel(limited, job.ID); err != nil {
			return failure.New(failure.CodeInterrupted, "the job %s goes on, for it could not be cancelled: %w", job.ID, err)
		}
		return failure.New(failure.CodeInterrupted, "cancelled; what has arrived is kept, and the same command goes on from there")
	default:
		return err
	}
	return f.End(cmd, show, job)
}

// End tells of a job that is over, and is the verb's error, nil when all went well.
func (f Following) End(cmd *cobra.Command, show *Bars, job admin.Job) error {
	f.Tell(cmd, show, job)
	if f.JSON {
		if err := table.JSON(cmd.OutOrStdout(), job); err != nil {
			return err
		}
	}
	return f.outcome(job)
}

// Tell prints a line for each image that has come to its end since show told of it last.
func (f Following) Tell(cmd *cobra.Command, show *Bars, j admin.Job) {
	for _, i := range j.Items {
		if i.State == admin.ItemWaiting || i.State == admin.JobRunning || show.told[i.UUID] {
			continue
		}
		show.told[i.UUID] = true
		called, good := f.Done[i.State]
		switch {
		case !good && i.Error != nil:
			show.Say(cmd.ErrOrStderr(), "%s: %s (%s): %s", who(i), i.State, i.Error.Code, i.Error.Message)
		case !good:
			show.Say(cmd.ErrOrStderr(), "%s: %s", who(i), i.State)
		case f.Quiet || f.JSON:
		case i.Total > 0:
			show.Say(cmd.OutOrStdout(), "%s: %s, %s", who(i), called, humanize.Bytes(uint64(i.Total)))
		default:
			show.Say(cmd.OutOrStdout(), "%s: %s", who(i), called)
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

// TellAll is Follow for work that was done at once.
func (f Following) TellAll(cmd *cobra.Command, items []admin.Item) error {
	return f.End(cmd, New(cmd.ErrOrStderr(), true), admin.Job{State: admin.JobDone, Items: items})
}

// outcome is the verb's error, nil when all went well. Tell has told why each image failed.
func (f Following) outcome(job admin.Job) error {
	bad := 0
	var first *admin.Error
	for _, i := range job.Items {
		if _, good := f.Done[i.State]; good {
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
	case first != nil:
		return failure.New(first.Code, "%d of %d images failed", bad, len(job.Items))
	}
	return failure.New(failure.CodeInternal, "%d of %d images failed", bad, len(job.Items))
}

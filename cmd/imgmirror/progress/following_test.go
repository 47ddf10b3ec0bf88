package progress

import (
	"bytes"
	"testing"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/proxy/admin"
)

// TestOutcome: what a job's end prints, and what error it makes.
func TestOutcome(t *testing.T) {
	ok := admin.Item{UUID: "u1", Name: "one", Version: "1", State: admin.JobDone, Total: 1500}
	here := admin.Item{UUID: "u2", Name: "two", Version: "2", State: admin.ItemPresent}
	lost := admin.Item{UUID: "u3", State: admin.JobFailed, Error: &admin.Error{Code: "RemoteSourceError", Message: "gone\x1b[2J"}}
	bad := admin.Item{UUID: "u4", Name: "four", State: admin.ItemQuarantined}
	f := func(job admin.Job, quiet bool, stdout, stderr, code, message string) {
		t.Helper()
		var out, errs bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		verb := Following{Quiet: quiet, Done: map[string]string{admin.JobDone: "fetched", admin.ItemPresent: "is here already"}}
		verb.Tell(cmd, New(&errs, true), job)
		err := verb.outcome(job)
		if out.String() != stdout || errs.String() != stderr {
			t.Errorf("printed %q and %q, want %q and %q", out.String(), errs.String(), stdout, stderr)
		}
		switch {
		case err == nil && code != "", err != nil && (code != failure.Of(err).Code || message != err.Error()):
			t.Errorf("error %v, want (%s): %s", err, code, message)
		}
	}
	f(admin.Job{State: admin.JobDone, Items: []admin.Item{ok, here}}, false,
		"u1 one@1: fetched, 1.5 kB\nu2 two@2: is here already\n", "", "", "")
	f(admin.Job{State: admin.JobDone, Items: []admin.Item{ok, here}}, true, "", "", "", "")
	f(admin.Job{State: admin.JobFailed, Items: []admin.Item{ok, lost, bad}}, true,
		"", "u3: failed (RemoteSourceError): gone?[2J\nu4 four: quarantined\n", "RemoteSourceError", "2 of 3 images failed")
	f(admin.Job{State: admin.JobFailed, Items: []admin.Item{lost}}, true,
		"", "u3: failed (RemoteSourceError): gone?[2J\n", "RemoteSourceError", "1 of 1 images failed")
	f(admin.Job{State: admin.JobDone, Items: []admin.Item{bad}}, true,
		"", "u4 four: quarantined\n", failure.CodeInternal, "1 of 1 images failed")
	f(admin.Job{State: admin.JobFailed, Error: &admin.Error{Code: "StorageIsDown", Message: "disk"}}, false,
		"", "", "StorageIsDown", "disk")
	f(admin.Job{ID: "7", State: admin.JobCancelled, Items: []admin.Item{ok, {UUID: "u5", State: admin.JobCancelled}}}, true,
		"", "u5: cancelled\n", "Cancelled", "job 7 was cancelled")
	f(admin.Job{State: admin.JobDone}, false, "", "", "", "")
}

// TestTellOnce: an image's end is told once, however often the job is seen.
func TestTellOnce(t *testing.T) {
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	verb := Following{Done: map[string]string{admin.JobDone: "ok"}}
	show := New(&out, true)
	job := admin.Job{Items: []admin.Item{{UUID: "a", State: admin.JobRunning}, {UUID: "b", State: admin.ItemWaiting}}}
	for _, state := range []string{admin.JobRunning, admin.JobDone, admin.JobDone} {
		job.Items[0].State = state
		verb.Tell(cmd, show, job)
	}
	if out.String() != "a: ok\n" {
		t.Errorf("printed %q", out.String())
	}
}

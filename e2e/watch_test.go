package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgmirror/proxy/admin"
	"imgmirror/proxy/upstream/upstreamtest"
)

// TestFillsAndJobs: what the mirror is doing is seen and ended from the shell, here and from elsewhere.
func TestFillsAndJobs(t *testing.T) {
	t.Parallel()
	const half = 100_000
	img := newImage("slow", 2*half)
	src := newSource(t, img)
	m := startMirror(t, nil, from(src.URL(), settings{"name": "origin"}))
	m.awaitList(1)
	m.verb("fills", "-H").want(t)
	m.verb("jobs", "-j").want(t, "[]")

	src.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: half})
	client, err := admin.NewClient(admin.ClientOptions{URL: m.admin, Token: m.token()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	job, err := client.Fetch(t.Context(), admin.Wanted{UUIDs: []string{img.uuid}})
	if err != nil {
		t.Fatal(err)
	}
	m.until("half of the file has come", func() bool {
		fills, err := client.Fills(t.Context())
		return err == nil && len(fills) == 1 && fills[0].Have == half
	})

	if s := m.verb("list", "-H"); s.code != 0 || s.stdout != "" || s.stderr != "1 download is under way: see imgmirror fills\n" {
		t.Errorf("list during a download: %+v", s)
	}
	m.verb("list", "-q", "-H").want(t)

	for door, run := range map[string]func(...string) said{"socket": m.verb, "network": m.remote} {
		t.Run(door, func(t *testing.T) {
			run("fills").want(t, "UUID", "PERCENT", "STATE", img.uuid)
			run("fills", "-H", "-o", "name,size,have,percent,readers,source,state").want(t, "slow  200 kB  100 kB  50%  1  origin  filling\n")
			var fills []admin.Fill
			s := run("fills", "-j")
			if err := json.Unmarshal([]byte(s.stdout), &fills); err != nil || len(fills) != 1 || fills[0].Name != "slow" || fills[0].Have != half {
				t.Errorf("%v: %s", err, s.stdout)
			}
			run("jobs", "-H", "-o", "id,kind,state,done,total,percent").want(t, job.ID+"  fetch  running  ", "200 kB")
			run("jobs", job.ID[:8]).want(t, "job      "+job.ID, "kind     fetch", "state    running", "NAME", "slow")
			run("jobs", "-H", "-o", "name,state", job.ID).want(t, "slow  running\n")
			var shown admin.Job
			s = run("jobs", "-j", job.ID)
			if err := json.Unmarshal([]byte(s.stdout), &shown); err != nil || shown.ID != job.ID || len(shown.Items) != 1 {
				t.Errorf("%v: %s", err, s.stdout)
			}
			run("jobs", "cancel", "ffffffff").wantError(t, "jobs cancel", "ResourceNotFound")
		})
	}
	near := []byte(job.ID)
	near[2], near[3] = near[3], near[2]
	if near[2] == near[3] {
		near[2] = 'x'
	}
	if s := m.verb("jobs", string(near)); s.code != 1 || !strings.Contains(s.stderr, `did you mean "`+job.ID+`"?`) {
		t.Errorf("exit %d: %s", s.code, s.stderr)
	}

	// Two who look on: one until Ctrl-C, which is no failure, one until the job is over.
	fills, fillsOver := m.watch("fills", "-w", "-j")
	if line := <-fills; !strings.Contains(line, img.uuid) {
		t.Errorf("fills -w: %s", line)
	}
	jobs, jobsOver := m.watch("jobs", "-w", "-j", job.ID)
	if line := <-jobs; !strings.Contains(line, `"state":"running"`) {
		t.Errorf("jobs -w: %s", line)
	}
	m.remote("jobs", "cancel", job.ID[:8]).want(t, job.ID+" fetch: cancelled\n")
	m.verb("jobs", "cancel", job.ID).want(t, job.ID+" fetch: was over before: cancelled\n")
	last := ""
	for line := range jobs {
		last = line
	}
	if !strings.Contains(last, `"state":"cancelled"`) {
		t.Errorf("jobs -w ended with %s", last)
	}
	if got := jobsOver(nil); got.code != 1 || !strings.Contains(got.stderr, "error (JobFailed): the job is cancelled") {
		t.Errorf("jobs -w: exit %d: %s", got.code, got.stderr)
	}
	for line := range fills {
		if strings.HasPrefix(line, "[]") {
			break
		}
	}
	fillsOver(syscall.SIGINT).want(t)
	m.verb("fills", "-H").want(t)

	m.stop()
	m.verb("fills").wantError(t, "fills", "NotRunning")
	m.verb("jobs").wantError(t, "jobs", "NotRunning")
	m.verb("jobs", "cancel", job.ID).wantError(t, "jobs cancel", "NotRunning")
}

// watch starts a verb and gives the lines of its output. over sends the signal, if there is one, waits for
// the end, and tells the rest.
func (m *mirror) watch(args ...string) (lines <-chan string, over func(os.Signal) said) {
	m.t.Helper()
	cmd, out := m.command(append(args, "--config", m.configFile())...)
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := false
	m.t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	all := make(chan string, 1000)
	go func() {
		defer close(all)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			all <- s.Text()
		}
	}()
	return all, func(sig os.Signal) said {
		m.t.Helper()
		if sig != nil {
			if err := cmd.Process.Signal(sig); err != nil {
				m.t.Error(err)
			}
		}
		limit := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer limit.Stop()
		for range all { // Wait closes the pipe
		}
		ended = true
		return out(cmd.Wait())
	}
}

package mirror

import (
	"os"
	"path/filepath"
	"testing"
)

// A download that nobody waits for any more goes on where there is room for it,
// and takes nothing from anybody where there is none: it may be a prefetched one.
func TestResumeEvictsNothing(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o)
	fetchSample(t, m, sampleBase)
	size := m.store.Files()[0].Size
	sum := sumOf(t, m, samplePlain)
	stop()
	_, file := sampleFiles(t, samplePlain)
	have := len(file) / 2
	partial := filepath.Join(o.Cache.Dir, "partial", sum.String())
	if err := os.WriteFile(partial, file[:have], 0o600); err != nil {
		t.Fatal(err)
	}
	resume := func(m *Mirror) {
		t.Helper()
		for _, p := range m.store.Partials() {
			m.resumePartial(t.Context(), p)
		}
	}
	o.Rules.MaxSize = size + int64(have) + 10
	m, stop = runMirror(t, o)
	resume(m)
	stop()
	m, stop = runMirror(t, o)
	if !cached(t, m, sampleBase) {
		t.Error("a file has gone for a download that nobody waits for")
	}
	stop()
	if left, err := os.Stat(partial); err != nil || left.Size() != int64(have) {
		t.Errorf("what there was of it: %v, %v", left, err)
	}

	o.Rules.MaxSize = 0
	m, stop = runMirror(t, o)
	fetchSample(t, m, samplePlain) // joins, or goes on by itself
	if left := m.store.Partials(); len(left) != 0 {
		t.Errorf("left is %+v", left)
	}
	stop()
}

// TestResumeNotOffline: a mirror that is configured never to ask a source leaves unfinished downloads as they are.
func TestResumeNotOffline(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m, stop := runMirror(t, o) // saves the list
	sum := sumOf(t, m, samplePlain)
	stop()
	_, file := sampleFiles(t, samplePlain)
	partial := filepath.Join(o.Cache.Dir, "partial", sum.String())
	if err := os.WriteFile(partial, file[:len(file)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, offline := range []bool{true, false} { // the second completes the download
		want := !offline
		o.Sources.Offline = offline
		log := logged(&o)
		m, stop := runMirror(t, o)
		m.resumeDue <- struct{}{} // the second token goes in when the loop has been round since the first
		m.resumeDue <- struct{}{}
		stop()
		if got := log.lines("an unfinished download"); len(got) > 0 != want {
			t.Errorf("offline %v: the download was gone on with: %q", offline, got)
		}
	}
}

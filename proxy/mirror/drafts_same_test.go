package mirror

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// A file that several drafts have stays until the last of them ends, whatever comes of the others.
func TestDraftsOfOneFile(t *testing.T) {
	file := gzipped(t, 100_000)
	for name, leave := range map[string]func(t *testing.T, m *Mirror, id uuid.UUID){
		"dropped": func(t *testing.T, m *Mirror, id uuid.UUID) {
			if err := m.Drop(t.Context(), builder, id); err != nil {
				t.Error(err)
			}
		},
		"unpublished": func(t *testing.T, m *Mirror, id uuid.UUID) {
			if _, err := m.Activate(t.Context(), builder, id); err != nil {
				t.Error(err)
			}
			if err := m.Drop(t.Context(), trusted, id); err != nil {
				t.Error(err)
			}
		},
		"replaced by a file that breaks off": func(t *testing.T, m *Mirror, id uuid.UUID) {
			u := uploadOf(file)
			u.Body = func(context.Context) io.Reader { return strings.NewReader(string(file[:50_000])) }
			if _, err := m.AddFile(t.Context(), builder, id, u); err == nil {
				t.Error("half a file was taken")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			m, _ := runMirror(t, o)
			first, second := uuid.New(), uuid.New()
			begin(t, m, first, text(first, file))
			begin(t, m, second, text(second, file))
			addFile(t, m, first, file)
			addFile(t, m, second, file)
			leave(t, m, first)
			if _, err := m.Activate(t.Context(), builder, second); err != nil {
				t.Fatalf("activated after the first was %s: %v", name, err)
			}
			publishes(t, m, o, second)
			if !cached(t, m, second) {
				t.Error("the file is gone")
			}
			if err := m.Drop(t.Context(), trusted, second); err != nil {
				t.Error(err)
			}
			if left := filesOf(t, o); len(left) > 0 {
				t.Errorf("left on disk: %v", left)
			}
		})
	}
}

// A file that one draft brought goes with the last draft that has the file.
func TestDraftsLeaveNothing(t *testing.T) {
	file := gzipped(t, 100_000)
	o := testOptions(t)
	m, _ := runMirror(t, o)
	all := []uuid.UUID{uuid.New(), uuid.New()}
	for _, id := range all {
		begin(t, m, id, text(id, file))
		addFile(t, m, id, file)
	}
	for _, id := range all {
		if len(filesOf(t, o)) != 1 {
			t.Errorf("%v on disk before the end of %s", filesOf(t, o), id)
		}
		if err := m.Drop(t.Context(), builder, id); err != nil {
			t.Error(err)
		}
	}
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}

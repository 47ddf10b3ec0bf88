package ranges

import "testing"

// Each window is a quarter of the room, within what its streams can use, until there is no room.
func TestMemory(t *testing.T) {
	m := NewMemory(100)
	f := func(most, least, want int64) {
		t.Helper()
		if got := m.Take(most, least); got != want {
			t.Errorf("%d to %d bytes: got %d, want %d", least, most, got, want)
		}
	}
	f(80, 10, 25)
	f(10, 5, 10)
	f(80, 40, 40)
	f(80, 26, 0)
	f(80, 25, 25)
	f(1, 1, 0)
	if used, limit, refused := m.Usage(); used != 100 || limit != 100 || refused != 2 {
		t.Errorf("%d of %d bytes, %d refusals", used, limit, refused)
	}
	m.Give(40)
	f(10, 10, 10)
}

package ranges

import "sync"

// Memory is the account of the windows of all Bodies, and has the blocks that none needs now. Its
// methods may be called concurrently.
type Memory struct {
	limit int64
	spare sync.Pool // of *block

	mu      sync.Mutex // guards what follows
	used    int64
	refused uint64
}

// NewMemory makes an account of that many bytes.
func NewMemory(limit int64) *Memory {
	return &Memory{limit: limit, spare: sync.Pool{New: func() any { return new(block) }}}
}

// Window is the window that so many streams can use, and the smallest one that is of use to them.
func Window(streams int) (most, least int64) {
	n := int64(2*streams + 1)
	return n * mostPiece, n * leastPiece
}

// Take books a window of least to most bytes: a quarter of the room, so that others find room, too. 0:
// there is no room for least bytes, which counts as a refusal. New, or Give, has to follow.
func (m *Memory) Take(most, least int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	room := m.limit - m.used
	n := min(most, max(least, room/4))
	if n > room {
		m.refused++
		return 0
	}
	m.used += n
	return n
}

// Give gives n booked bytes back.
func (m *Memory) Give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= n
}

// Usage tells the bytes that are booked, the limit, and how often Take has refused.
func (m *Memory) Usage() (used, limit int64, refused uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used, m.limit, m.refused
}

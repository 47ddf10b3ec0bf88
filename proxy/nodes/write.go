package nodes

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// read takes the notes in. A note that cannot be read is removed with the next write.
func (j *Journal) read() {
	all, err := j.notes.All()
	if err != nil {
		j.log.Warn("the journal of nodes cannot be read, and begins anew", "error", err)
		return
	}
	known, broken := make([]*node, 0, len(all)), 0
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, value := range all {
		n, err := decode(key, value)
		if err != nil {
			broken++
			j.gone[key] = struct{}{}
			continue
		}
		known = append(known, n)
	}
	if broken > 0 {
		j.log.Warn("notes of nodes cannot be read, and are removed", "notes", broken)
	}
	slices.SortFunc(known, func(a, b *node) int { return cmp.Or(cmp.Compare(a.last, b.last), a.address.Compare(b.address)) })
	for _, n := range known {
		j.attach(n)
		j.nodes[n.address] = n
	}
	if j.limits.off() {
		j.limits.Max = 0
	}
	j.findCrowd()
	j.expire(time.Now())
	j.trim()
}

// flush lets go of old nodes, and writes about as many bytes of what has changed. Each write is
// small, so that requests are taken in between.
func (j *Journal) flush(bytes int) {
	j.writing.Lock()
	defer j.writing.Unlock()
	err := j.write(time.Now(), bytes)
	if err != nil && !j.ill {
		j.log.Warn("the journal of nodes cannot be written, and is kept in memory until it can be", "error", err)
	}
	if err == nil && j.ill {
		j.log.Info("the journal of nodes can be written again")
	}
	j.ill = err != nil
}

// write is flush. writing is held.
func (j *Journal) write(now time.Time, bytes int) error {
	j.mu.Lock()
	j.expire(now)
	gone := slices.Collect(maps.Keys(j.gone))
	var due []*node
	for n := j.seen.previous; n != &j.seen; n = n.previous {
		if !n.changed.IsZero() {
			due = append(due, n)
		}
	}
	slices.SortStableFunc(due, func(a, b *node) int { return a.changed.Compare(b.changed) })
	j.mu.Unlock()
	if err := j.remove(gone); err != nil {
		return err
	}
	for some := range slices.Chunk(due, batchNodes) {
		written, err := j.put(some)
		if err != nil {
			return err
		}
		if bytes -= written; bytes <= 0 {
			return nil
		}
	}
	return nil
}

// put writes the notes of some nodes, as far as these are still known, and tells their size.
// writing is held.
func (j *Journal) put(some []*node) (size int, err error) {
	notes := make(map[string][]byte, len(some))
	j.mu.Lock()
	for _, n := range some {
		if j.nodes[n.address] == n {
			note := n.encode()
			notes[n.key()] = note
			size += len(note)
			n.changed = time.Time{}
		}
	}
	j.mu.Unlock()
	err = j.notes.Write(notes, nil)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range some {
		key := n.key()
		switch _, written := notes[key]; {
		case err != nil:
			n.change(time.Now())
		case !written:
		case j.nodes[n.address] == nil: // dropped meanwhile
			j.gone[key] = struct{}{}
		default:
			j.nodes[n.address].stored = true
		}
	}
	return size, err
}

// remove removes notes. A node that is known again by then is written again. writing is held.
func (j *Journal) remove(keys []string) error {
	for some := range slices.Chunk(keys, batchNodes*8) {
		if err := j.notes.Write(nil, some); err != nil {
			return err
		}
		j.mu.Lock()
		for _, key := range some {
			if _, still := j.gone[key]; still {
				delete(j.gone, key)
				continue
			}
			if address, ok := netip.AddrFromSlice([]byte(key)); ok && j.nodes[address] != nil {
				j.nodes[address].change(time.Now()) // the note that is gone was its own
			}
		}
		j.mu.Unlock()
	}
	return nil
}

// Forget deletes what is known of an address, on disk as well; false: nothing was known. After an
// error the note may still be there, and is removed with the next write.
func (j *Journal) Forget(address netip.Addr) (known bool, err error) {
	n, err := j.forget(func(n *node) bool { return n.address == address })
	return n > 0, err
}

// ForgetAll deletes the journal, on disk as well, and tells how many nodes there were. After an
// error some notes may still be there, and are removed with the next write.
func (j *Journal) ForgetAll() (int, error) { return j.forget(func(*node) bool { return true }) }

func (j *Journal) forget(which func(*node) bool) (forgotten int, err error) {
	j.load()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	for n := j.seen.next; n != &j.seen; n = n.next {
		if which(n) {
			j.drop(n)
			forgotten++
		}
	}
	j.count.Store(int64(len(j.nodes)))
	gone := slices.Collect(maps.Keys(j.gone))
	j.mu.Unlock()
	return forgotten, j.remove(gone)
}

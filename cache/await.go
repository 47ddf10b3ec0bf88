package cache

import "context"

// Stored waits until the whole file is on disk under its final name, so that
// Peek knows it, and takes no bytes. The error is the fill's own, or ctx's.
func (r *Reader) Stored(ctx context.Context) error {
	f := r.fill
	if f == nil {
		return nil
	}
	for {
		f.mu.Lock()
		wake, over, err := f.wake, f.over, f.err
		f.mu.Unlock()
		if over {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

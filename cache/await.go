package cache

import "context"

// Stored waits until the whole file is on disk under its final name, so that
// Peek knows it, and takes no bytes. The error is the fill's own, or ctx's.
func (r *Reader) Stored(ctx context.Context) error {
	f := r.fill
	if f == nil {
		return nil
	}
	if err := f.ended(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// ended waits until the fill is over, well or not. The error is ctx's.
func (f *fill) ended(ctx context.Context) error {
	for {
		f.mu.Lock()
		wake, over := f.wake, f.over
		f.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

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

// Settle waits until the fills that have all their bytes by now are over: what
// clients have been given whole is then on disk, or known not to be. The error is
// ctx's.
func (s *Store) Settle(ctx context.Context) error {
	var ending []*fill
	s.mu.RLock()
	for _, f := range s.fills {
		if f.describe().State == FillVerifying {
			ending = append(ending, f)
		}
	}
	s.mu.RUnlock()
	for _, f := range ending {
		if err := f.ended(ctx); err != nil {
			return err
		}
	}
	return nil
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

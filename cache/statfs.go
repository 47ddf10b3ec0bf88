//go:build linux || darwin || freebsd

package cache

import "golang.org/x/sys/unix"

// roomOf tells what this process may still write on the file system of path.
func roomOf(path string) (diskRoom, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return diskRoom{}, err
	}
	return diskRoom{
		free:     int64(st.Bavail) * int64(st.Bsize), //nolint:unconvert // the types differ between systems
		total:    int64(st.Blocks) * int64(st.Bsize), //nolint:unconvert // likewise
		noNames:  st.Files > 0 && st.Ffree < 16,
		readOnly: st.Flags&readOnlyFlag != 0,
	}, nil
}

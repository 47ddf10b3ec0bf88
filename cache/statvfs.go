//go:build illumos || solaris

package cache

import "golang.org/x/sys/unix"

// roomOf tells what this process may still write on the file system of path.
func roomOf(path string) (diskRoom, error) {
	var st unix.Statvfs_t
	if err := unix.Statvfs(path, &st); err != nil {
		return diskRoom{}, err
	}
	return diskRoom{
		free:     int64(st.Bavail) * int64(st.Frsize),
		total:    int64(st.Blocks) * int64(st.Frsize),
		noNames:  st.Files > 0 && st.Favail < 16,
		readOnly: st.Flag&1 != 0, // ST_RDONLY
	}, nil
}

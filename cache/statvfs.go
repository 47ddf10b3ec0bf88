//go:build illumos || solaris

package cache

import "golang.org/x/sys/unix"

// freeBytes is what this process may still write on the file system of path.
func freeBytes(path string) (int64, error) {
	var st unix.Statvfs_t
	if err := unix.Statvfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Frsize), nil
}

//go:build illumos || solaris

package disk

import "golang.org/x/sys/unix"

// RoomOf tells what this process may still write on the file system of path, which must exist.
func RoomOf(path string) (Room, error) {
	var st unix.Statvfs_t
	if err := unix.Statvfs(path, &st); err != nil {
		return Room{}, err
	}
	return Room{
		Free:     int64(st.Bavail) * int64(st.Frsize),
		Total:    int64(st.Blocks) * int64(st.Frsize),
		NoNames:  st.Files > 0 && st.Favail < 16,
		ReadOnly: st.Flag&1 != 0, // ST_RDONLY
	}, nil
}

//go:build linux || darwin || freebsd

package disk

import "golang.org/x/sys/unix"

// RoomOf tells what this process may still write on the file system of path, which must exist.
func RoomOf(path string) (Room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Room{}, err
	}
	return Room{
		Free:     int64(st.Bavail) * int64(st.Bsize), //nolint:unconvert // the types differ between systems
		Total:    int64(st.Blocks) * int64(st.Bsize), //nolint:unconvert // likewise
		NoNames:  st.Files > 0 && st.Ffree < 16,
		ReadOnly: st.Flags&readOnlyFlag != 0,
	}, nil
}

package cache

// diskRoom is what a file system has left.
type diskRoom struct {
	free     int64 // bytes that this process may write
	total    int64 // bytes
	noNames  bool  // hardly any file can be made
	readOnly bool
}

// Free is what this process may still write on the file system of path, in
// bytes. path must exist.
func Free(path string) (int64, error) {
	room, err := roomOf(path)
	return room.free, err
}

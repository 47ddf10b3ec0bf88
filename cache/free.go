package cache

// Free is what this process may still write on the file system of path, in
// bytes. path must exist.
func Free(path string) (int64, error) { return freeBytes(path) }

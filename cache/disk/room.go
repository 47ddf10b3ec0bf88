package disk

// Room is what a file system has left.
type Room struct {
	Free     int64 // bytes that this process may write
	Total    int64 // bytes
	NoNames  bool  // hardly any file can be made
	ReadOnly bool
}

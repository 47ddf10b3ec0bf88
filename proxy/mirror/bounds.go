package mirror

// Bound is one thing that is bounded.
type Bound struct {
	Name    string
	Key     string // of the configuration; "" = fixed
	Used    int64
	Limit   int64 // 0 = none
	Refused int64 // since the start
}

// Bounds tells how far the bounds are used.
func (m *Mirror) Bounds() []Bound { return nil }

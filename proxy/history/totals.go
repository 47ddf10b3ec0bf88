package history

import (
	"maps"
	"time"
)

// The ways in which a request of a client is met: the keys of Counts.
const (
	Hit  = "hit"
	Miss = "miss"
	Join = "join" // by a download that another request began
)

// Counts are sums since some moment.
type Counts struct {
	Requests map[string]int64 `json:"requests"` // of clients for files, by how they were met
	Served   map[string]int64 `json:"served"`   // bytes given to clients, likewise
	Fetched  int64            `json:"fetched"`  // bytes that sources sent
	// Of the downloads that are complete: their bytes, and the time that the bytes took to come.
	Brought int64         `json:"brought"`
	Took    time.Duration `json:"took"`
}

// Totals are the counts since the mirror began to remember.
type Totals struct {
	Since time.Time `json:"since"`
	Counts
}

func (c Counts) plus(d Counts) Counts {
	return Counts{
		Requests: added(c.Requests, d.Requests), Served: added(c.Served, d.Served),
		Fetched: c.Fetched + d.Fetched, Brought: c.Brought + d.Brought, Took: c.Took + d.Took,
	}
}

func added(a, b map[string]int64) map[string]int64 {
	sum := map[string]int64{Hit: 0, Miss: 0, Join: 0}
	maps.Copy(sum, a)
	for result, n := range b {
		sum[result] += n
	}
	return sum
}

// served is what clients were given in all.
func (c Counts) served() (n int64) {
	for _, bytes := range c.Served {
		n += bytes
	}
	return n
}

// Saved is what clients were given and no source had to send for them.
func (c Counts) Saved() int64 { return c.Served[Hit] + c.Served[Join] }

// SavedTime is the time that Saved bytes would have taken at the mean rate of the mirror's complete
// downloads: Saved * Took / Brought. It is 0 before the first download.
func (c Counts) SavedTime() time.Duration {
	if c.Brought <= 0 {
		return 0
	}
	return time.Duration(float64(c.Saved()) * c.Took.Seconds() / float64(c.Brought) * float64(time.Second))
}

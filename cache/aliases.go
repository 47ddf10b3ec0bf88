package cache

import (
	"slices"

	"imgmirror/verify"
)

// aliases are the sums of files that their manifests tell no sha1 of, by Blob.Key. They are guarded by Store.mu.
type aliases struct {
	sums map[string]verify.Sum
	keys map[verify.Sum][]string // the keys of each sum: a removal looks at those of its file alone
}

func newAliases() aliases {
	return aliases{make(map[string]verify.Sum), make(map[verify.Sum][]string)}
}

// put notes that the bytes of key have turned out to have that sum.
func (a *aliases) put(key string, sum verify.Sum) {
	old, known := a.sums[key]
	if known && old == sum {
		return
	}
	if known {
		a.keys[old] = slices.DeleteFunc(a.keys[old], func(k string) bool { return k == key })
		if len(a.keys[old]) == 0 {
			delete(a.keys, old)
		}
	}
	a.sums[key] = sum
	a.keys[sum] = append(a.keys[sum], key)
}

// drop forgets the keys of a sum, and gives them.
func (a *aliases) drop(sum verify.Sum) []string {
	keys := a.keys[sum]
	for _, key := range keys {
		delete(a.sums, key)
	}
	delete(a.keys, sum)
	return keys
}

// clear forgets all.
func (a *aliases) clear() {
	clear(a.sums)
	clear(a.keys)
}

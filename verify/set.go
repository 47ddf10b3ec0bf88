package verify

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"hash"
)

// Set is a set of digests.
type Set uint8

// The digests, and all of them.
const (
	SHA1 Set = 1 << iota
	SHA256
	MD5
	All = SHA1 | SHA256 | MD5
)

// Deciding are the digests without which there is no verdict on bytes that are wanted so: sha1, and what
// else w has. Without a sha1 they are all of them, for a claim of the sender may have to decide.
func (w Want) Deciding() Set {
	if w.SHA1.IsZero() {
		return All
	}
	set := SHA1
	if len(w.SHA256) > 0 {
		set |= SHA256
	}
	if len(w.MD5) > 0 {
		set |= MD5
	}
	return set
}

// sums are the hashes of a set; nil: the set is without the digest.
type sums struct{ sha1, sha256, md5 hash.Hash }

func newSums(set Set) (s sums) {
	if set&SHA1 != 0 {
		s.sha1 = sha1.New()
	}
	if set&SHA256 != 0 {
		s.sha256 = sha256.New()
	}
	if set&MD5 != 0 {
		s.md5 = md5.New()
	}
	return s
}

// of lists the hashes of a set.
func (s *sums) of(set Set) (all []hash.Hash) {
	for i, h := range []hash.Hash{s.sha1, s.sha256, s.md5} {
		if set&(1<<i) != 0 && h != nil {
			all = append(all, h)
		}
	}
	return all
}

func (s *sums) write(p []byte) {
	for _, h := range [...]hash.Hash{s.sha1, s.sha256, s.md5} {
		if h != nil {
			h.Write(p)
		}
	}
}

// fill puts the digests that s has into d.
func (s *sums) fill(d *Digests) {
	if s.sha1 != nil {
		s.sha1.Sum(d.SHA1[:0])
	}
	if s.sha256 != nil {
		s.sha256.Sum(d.SHA256[:0])
	}
	if s.md5 != nil {
		s.md5.Sum(d.MD5[:0])
	}
}

// Follower takes the digests that a Writer of another set left out, when the same bytes are read again. It hashes
// in the caller's goroutine.
type Follower struct{ sums sums }

// NewFollower makes a Follower of the digests of that set that has seen no bytes.
func NewFollower(set Set) *Follower { return &Follower{newSums(set)} }

// Write adds p; it never fails and does not keep p.
func (f *Follower) Write(p []byte) (int, error) {
	f.sums.write(p)
	return len(p), nil
}

// Complete gives d with the Follower's digests.
func (f *Follower) Complete(d Digests) Digests {
	f.sums.fill(&d)
	return d
}

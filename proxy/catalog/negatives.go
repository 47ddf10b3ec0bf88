package catalog

import (
	"container/list"
	"time"
)

// maxNegatives bounds the searches in vain that are remembered at the same time.
const maxNegatives = 10_000

// negatives are the memory of searches in vain. When the memory is full, the account with the most
// entries loses its oldest: who asks for random uuids forgets them alone.
type negatives struct {
	entries map[wanted]*list.Element
	of      map[account]*list.List // of negative, the oldest first; none is empty
}

// negative is the outcome of a search in vain.
type negative struct {
	wanted
	payer account
	err   error
	until time.Time // of the memory
}

func newNegatives() negatives {
	return negatives{entries: make(map[wanted]*list.Element), of: make(map[account]*list.List)}
}

// get is the error that the search for w has ended with; nil without memory of one.
func (n negatives) get(w wanted, now time.Time) error {
	e := n.entries[w]
	if e == nil {
		return nil
	}
	if was := e.Value.(negative); now.Before(was.until) {
		return was.err
	}
	n.drop(e)
	return nil
}

// put remembers a search that payer paid for.
func (n negatives) put(payer account, was negative) {
	was.payer = payer
	if e := n.entries[was.wanted]; e != nil {
		n.drop(e)
	}
	if len(n.entries) >= maxNegatives {
		n.drop(n.longest().Front())
	}
	l := n.of[payer]
	if l == nil {
		l = list.New()
		n.of[payer] = l
	}
	n.entries[was.wanted] = l.PushBack(was)
}

// longest is the memory of the account with the most entries; there is one.
func (n negatives) longest() (most *list.List) {
	for _, l := range n.of {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	return most
}

func (n negatives) drop(e *list.Element) {
	was := e.Value.(negative)
	delete(n.entries, was.wanted)
	l := n.of[was.payer]
	if l.Remove(e); l.Len() == 0 {
		delete(n.of, was.payer)
	}
}

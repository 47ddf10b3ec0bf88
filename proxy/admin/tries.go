package admin

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds of tries with a token. A token of the mirror's own making cannot be guessed at any rate, so that the
// right one lets in an operator whom the tries of strangers have left none. The bounds are for short
// tokens that operators have made, and for the time that wrong tries take.
const (
	triesEvery   = 250 * time.Millisecond // of all callers together, after triesBurst
	triesBurst   = 20
	addressEvery = 3 * time.Second // of one address, after addressBurst
	addressBurst = 5
	maxAddresses = 1024                   // that are remembered
	wrongPause   = 300 * time.Millisecond // before the reply to a wrong token
	maxPausing   = 16                     // replies that pause at the same time
)

// Tries counts the tries of callers with a token: 4 a second of all callers, a third of a try a second of
// one address, each after a burst. The methods may be called concurrently.
type Tries struct {
	all     *rate.Limiter
	waiting chan struct{}

	mu    sync.Mutex
	known map[netip.Prefix]*rate.Limiter
}

// NewTries makes a count at zero.
func NewTries() *Tries {
	return &Tries{
		all:     rate.NewLimiter(rate.Every(triesEvery), triesBurst),
		waiting: make(chan struct{}, maxPausing),
		known:   make(map[netip.Prefix]*rate.Limiter),
	}
}

// Spend takes one try of the caller with that address and port; false = there is none left now. An address that
// has used up its tries costs the other addresses nothing.
func (t *Tries) Spend(remote string) bool {
	now := time.Now()
	return t.of(network(remote), now).AllowN(now, 1) && t.all.AllowN(now, 1)
}

// Left tells whether Spend would take a try, and takes none.
func (t *Tries) Left(remote string) bool {
	now := time.Now()
	return t.of(network(remote), now).TokensAt(now) >= 1 && t.all.TokensAt(now) >= 1
}

// of is the limit of one address. Where too many are remembered, those with all their tries are
// forgotten, and then any.
func (t *Tries) of(who netip.Prefix, now time.Time) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.known[who]
	if l == nil {
		if len(t.known) >= maxAddresses {
			for other, l := range t.known {
				if l.TokensAt(now) >= addressBurst {
					delete(t.known, other)
				}
			}
		}
		for other := range t.known {
			if len(t.known) < maxAddresses {
				break
			}
			delete(t.known, other)
		}
		l = rate.NewLimiter(rate.Every(addressEvery), addressBurst)
		t.known[who] = l
	}
	return l
}

// network is the address of a caller; of IPv6 its /64, all of which one machine may use.
func network(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // the number of bits fits
	return prefix
}

// Pause makes a caller with a wrong token wait, unless many wait already.
func (t *Tries) Pause(r *http.Request) {
	select {
	case t.waiting <- struct{}{}:
	default:
		return
	}
	defer func() { <-t.waiting }()
	wait := time.NewTimer(wrongPause)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-r.Context().Done():
	}
}

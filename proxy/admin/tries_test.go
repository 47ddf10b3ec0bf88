package admin

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Tries remember a bounded number of addresses, and bound the tries of all of them.
func TestTriesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, taken := NewTries(), 0
		for n := range 3 * maxAddresses {
			addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
			if tries.Spend(netip.AddrPortFrom(addr, 9).String()) {
				taken++
			}
		}
		if taken != triesBurst || len(tries.known) > maxAddresses {
			t.Errorf("%d tries of %d remembered addresses", taken, len(tries.known))
		}
	})
}

// A short token cannot be guessed at the rate of the network: an address without tries gets in with no
// token, for some seconds. A long token is not shut out by the tries of others, and right requests take no tries.
func TestShortTokenHasTries(t *testing.T) {
	for token, want := range map[string]int{"short": http.StatusUnauthorized, strings.Repeat("long", 8): http.StatusOK} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Options{Token: token})
			ask := func(remote, with string) int {
				r := httptest.NewRequest("GET", "/debug/pprof/cmdline", nil)
				r.Header.Set("Authorization", "Bearer "+with)
				r.RemoteAddr = remote
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, r)
				return w.Code
			}
			for range 3 * addressBurst {
				if code := ask("192.0.2.1:9", token); code != http.StatusOK {
					t.Fatalf("right requests take tries: %d", code)
				}
			}
			for range 2 * addressBurst {
				if code := ask("192.0.2.1:9", "wrong"); code != http.StatusUnauthorized {
					t.Fatalf("a wrong token: %d", code)
				}
			}
			if code := ask("192.0.2.1:9", token); code != want {
				t.Errorf("%q after wrong tries of its address: %d, want %d", token, code, want)
			}
			if code := ask("192.0.2.2:9", token); code != http.StatusOK {
				t.Errorf("%q of another address: %d", token, code)
			}
			time.Sleep(2 * addressEvery)
			if code := ask("192.0.2.1:9", token); code != http.StatusOK {
				t.Errorf("%q after a pause: %d", token, code)
			}
		})
	}
}

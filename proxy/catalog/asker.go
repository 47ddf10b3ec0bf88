package catalog

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// account is the address that a question to sources counts for: an IPv4 address, or the /64 of an
// IPv6 address. The zero account is the operator's.
type account struct{ addr netip.Addr }

// accountBits is the part of an IPv6 address that one client cannot choose.
const accountBits = 64

type clientKey struct{}

// ForClient notes in ctx the address of the client for whom sources are asked. Questions of one
// address take turns with those of all others, see SourceOptions.LookupRate.
func ForClient(ctx context.Context, client netip.Addr) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// Client gives the address that ForClient has noted; ok is false without one.
func Client(ctx context.Context) (client netip.Addr, ok bool) {
	client, ok = ctx.Value(clientKey{}).(netip.Addr)
	return client, ok
}

// accountOf is the account of the client of ctx; the operator's without a client.
func accountOf(ctx context.Context) account {
	client, _ := Client(ctx)
	client = client.Unmap().WithZone("")
	if client.Is6() {
		prefix, _ := client.Prefix(accountBits) // fails for wrong lengths only
		client = prefix.Addr()
	}
	return account{client}
}

// maxBackers bounds the accounts that stand behind one search.
const maxBackers = 16

// asker is the accounts that want one thing from the sources. A question of the asker waits in the
// line of each account, and the first turn counts: who joins a search does not wait behind the
// other questions of the account that began the search.
type asker struct {
	mu       sync.Mutex // guards what follows; taken before door.mu
	accounts []account
	waiting  map[*ticket]*door
}

func newAsker(a account) *asker {
	return &asker{accounts: []account{a}, waiting: make(map[*ticket]*door)}
}

// join adds an account to those that want the thing.
func (k *asker) join(a account) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.accounts) >= maxBackers || slices.Contains(k.accounts, a) {
		return
	}
	k.accounts = append(k.accounts, a)
	for t, d := range k.waiting {
		d.also(t, a)
	}
}

type askerKey struct{}

// askedBy notes in ctx who asks. A question without an asker is the catalogue's own.
func askedBy(ctx context.Context, k *asker) context.Context {
	return context.WithValue(ctx, askerKey{}, k)
}

func askerOf(ctx context.Context) *asker {
	k, _ := ctx.Value(askerKey{}).(*asker)
	return k
}

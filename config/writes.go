package config

import (
	"fmt"
	"net/netip"
)

// Writes says who may bring images to the client listener, by the requests of image servers.
type Writes struct {
	Enabled   bool     `yaml:"enabled" help:"true: those who may bring images to the client listener, as imgadm publish does; false: nobody may"`
	Allow     []string `yaml:"allow" help:"addresses and networks, like 10.0.0.0/24, that may bring images without a token"`
	TokenFile string   `yaml:"token_file" help:"file of the token of those with other addresses, and of those who take published images back; empty: the token of admin.token_file"`
}

// Prefixes are the networks of Allow, an address as the network of one.
func (w Writes) Prefixes() []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(w.Allow))
	for _, text := range w.Allow {
		if p, err := prefix(text); err == nil { // else ruled out by Validate
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

func prefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// writes checks who may write.
func (k *checker) writes(c *Config) {
	for i, text := range c.Writes.Allow {
		if p, err := prefix(text); err != nil || p.Addr().Is4In6() {
			k.fault(fmt.Sprintf("writes.allow[%d]", i), text, "must be an address or a network, like 10.0.0.0/24")
		}
	}
	if w := c.Writes; w.Enabled && len(w.Allow) == 0 && w.TokenFile == "" && c.Admin.Listen == "" {
		k.fault("writes.enabled", true, "needs writes.allow, writes.token_file or admin.listen, or nobody can ever write")
	}
}

// openWrites warns of writes that every client may make.
func openWrites(c Config) (warnings []string) {
	for i, p := range c.Writes.Prefixes() {
		if c.Writes.Enabled && p.Bits() == 0 {
			warnings = append(warnings, fmt.Sprintf("writes.allow[%d]: %s has every address: everyone who reaches the mirror can publish images", i, p))
		}
	}
	return warnings
}

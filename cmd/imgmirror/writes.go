package main

import (
	"errors"
	"fmt"
	"io/fs"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/proxy"
	"imgmirror/proxy/admin"
)

// shortToken is the length below which the token of writers can be guessed.
const shortToken = 16

// writeRules are who may bring images to the client listener. The file of the token is read.
func (p *process) writeRules(cfg *config.Config) (proxy.WriteRules, error) {
	rules := proxy.WriteRules{Enabled: cfg.Writes.Enabled, Allow: cfg.Writes.Prefixes()}
	if !rules.Enabled || cfg.Listen == "" {
		return proxy.WriteRules{}, nil
	}
	var err error
	switch {
	case cfg.Writes.TokenFile != "":
		rules.Token, err = config.ReadSecret(cfg.Writes.TokenFile)
		if err == nil && len(rules.Token) < shortToken {
			p.log.Warn("the token of writes.token_file is so short that it can be guessed")
		}
	case p.token != "":
		rules.Token = p.token
	default: // there is no admin listener, and perhaps no token either
		rules.Token, _, err = admin.FindToken(cfg.AdminTokenFile())
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return proxy.WriteRules{}, &failure.Error{Code: failure.CodeConfig, Err: fmt.Errorf("writes.token_file: %w", err)}
	}
	return rules, nil
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// revision builds the mirror of a revision, unless the name is that of a binary.
func (l *lab) revision(ctx context.Context, name string) (binary string, err error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		return filepath.Abs(name)
	}
	tree := filepath.Join(l.dir, "revision")
	git := func(args ...string) error {
		if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := git("worktree", "add", "--detach", tree, name); err != nil {
		return "", err
	}
	defer func() {
		ctx = context.WithoutCancel(ctx) // the tree goes also after a Ctrl-C
		err = errors.Join(err, git("worktree", "remove", "--force", tree))
	}()
	binary = filepath.Join(l.dir, "imgmirror-old")
	return binary, buildMirror(ctx, tree, binary)
}

// pairs are the scenarios of the mirror alone, with another binary beside the lab's own: a scenario for
// each contender that is the mirror, in which each round has the two one after the other.
func (l *lab) pairs(all []group, name, binary string) (pairs []group) {
	old := *l // with the same servers, each under its binary's name
	old.mirror = binary
	for _, g := range all {
		pair := group{title: g.title, text: g.text}
		for _, s := range g.scenarios {
			for _, c := range s.contenders {
				if !c.isOurs() {
					continue
				}
				before := contender{ours + " of " + name, func(ctx context.Context, _ *lab, round int) (sample, error) { return c.run(ctx, &old, round) }}
				one := scenario{name: s.name + strings.TrimPrefix(c.name, ours), fresh: s.fresh, rounds: s.rounds, base: before.name, measures: s.measures}
				one.contenders = []contender{{ours, c.run}, before}
				pair.scenarios = append(pair.scenarios, one)
			}
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

package admin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"imgmirror/cache/disk"
)

const (
	maxTokenFile = 64 << 10
	minToken     = 16 // characters, below which a token can be guessed
)

// ReadToken gives the token that a file holds, as FindToken does. An absent file is made,
// readable by its owner alone, with a new random token. On a disk that is full or read-only the new
// token is in memory alone, and the mirror starts all the same.
func ReadToken(path string) (token string, warnings []string, err error) {
	token, warnings, err = FindToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, warnings, err
	}
	token, err = makeToken(path)
	if disk.TakesNothing(err) {
		return newToken(), []string{fmt.Sprintf("the token of this run is in memory alone, where no operator can read it: %v", err)}, nil
	}
	return token, nil, err
}

// FindToken gives the token that a file holds, without the white space around; it writes nothing. The
// error of an absent file matches fs.ErrNotExist. warnings say what weakens the token. Warnings and
// errors tell nothing of the text in the file.
func FindToken(path string) (token string, warnings []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, fmt.Errorf("admin token: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxTokenFile {
		return "", nil, fmt.Errorf("admin token: %s is no file with a token", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", nil, fmt.Errorf("admin token: %w", err)
	}
	token = strings.TrimSpace(string(data))
	switch {
	case token == "":
		return "", nil, fmt.Errorf("admin token: %s is empty (remove it, and a new one is made)", path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", nil, fmt.Errorf("admin token: %s holds more than one word of ASCII", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		warnings = append(warnings, fmt.Sprintf("others than its owner may use %s (mode %04o): chmod 600 it", path, perm))
	}
	if len(token) < minToken {
		warnings = append(warnings, fmt.Sprintf("the token in %s is so short that it can be guessed", path))
	}
	return token, warnings, nil
}

func newToken() string { return rand.Text() + rand.Text() }

// makeToken writes a new token to path, whole or not at all, for its owner alone.
func makeToken(path string) (token string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("admin token: %w", err)
		}
	}()
	token = newToken()
	return token, disk.Write(path, []byte(token+"\n"), 0o600)
}

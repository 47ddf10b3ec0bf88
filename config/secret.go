package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret is far above any password, token or key.
const maxSecret = 64 << 10

// ReadSecret reads a file that is one secret, with or without a line end. An empty file is an
// error, and so is one above maxSecret. Errors name the file and never its content.
func ReadSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("secret file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("secret file: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxSecret:
		return "", fmt.Errorf("secret file %s: too large", path)
	case secret == "":
		return "", fmt.Errorf("secret file %s: is empty", path)
	}
	return secret, nil
}

// readableSecrets warns of secret files that everyone on this machine can read.
// It is no fault: a container often has such files, and no other users.
func readableSecrets(c Config) (warnings []string) {
	type secret struct{ key, path string }
	secrets := []secret{
		{"tls.key_file", c.TLS.KeyFile},
		{"admin.token_file", c.Admin.TokenFile},
		{"writes.token_file", c.Writes.TokenFile},
		{"s3.secret_key_file", c.S3.SecretKeyFile},
	}
	for i, s := range c.Sources {
		secrets = append(secrets,
			secret{fmt.Sprintf("sources[%d].password_file", i), s.PasswordFile},
			secret{fmt.Sprintf("sources[%d].token_file", i), s.TokenFile})
	}
	for _, s := range secrets {
		if s.path == "" {
			continue
		}
		if info, err := os.Stat(s.path); err == nil && info.Mode().Perm()&0o004 != 0 {
			warnings = append(warnings, fmt.Sprintf("%s: everyone on this machine can read %s", s.key, s.path))
		}
	}
	return warnings
}

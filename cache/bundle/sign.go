package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"aead.dev/minisign"
)

// GenerateKey makes a key pair in minisign's format: the text of the secret key
// and of the public one. With a password the secret key is encrypted, which takes
// a second and 1 GiB of memory, here and at each use.
func GenerateKey(password string) (secret, public []byte, err error) {
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	if password == "" {
		secret, err = key.MarshalText()
	} else {
		secret, err = minisign.EncryptKey(password, key)
	}
	if err != nil {
		return nil, nil, err
	}
	public, err = pub.MarshalText()
	return append(secret, '\n'), append(public, '\n'), err
}

// KeyEncrypted tells that Sign needs a password for this secret key.
func KeyEncrypted(secret []byte) bool { return minisign.IsEncrypted(bytes.TrimSpace(secret)) }

// Sign signs the index with a secret key, and gives the signature's text.
func Sign(secret []byte, password string, x Index) ([]byte, error) {
	key, err := readKey(bytes.TrimSpace(secret), password)
	if err != nil {
		return nil, err
	}
	message := minisign.NewReader(bytes.NewReader(x.raw))
	if _, err := io.Copy(io.Discard, message); err != nil {
		return nil, err
	}
	trusted := fmt.Sprintf("timestamp:%d\tfile:%s\tbundle:%s", x.Created.Unix(), IndexName, x.ID)
	return message.SignWithComments(key, trusted, fmt.Sprintf("signature from imgmirror key %016X", key.ID())), nil
}

func readKey(secret []byte, password string) (minisign.PrivateKey, error) {
	if minisign.IsEncrypted(secret) {
		key, err := minisign.DecryptKey(password, secret)
		if err != nil {
			return key, errors.New("the secret key cannot be decrypted: is the password right?")
		}
		return key, nil
	}
	var key minisign.PrivateKey
	err := key.UnmarshalText(secret)
	return key, err
}

// Trusted are the public keys of those whose bundles are believed.
type Trusted []minisign.PublicKey

// ParseTrusted reads public keys, each as minisign writes it: the line that
// begins with RW, with or without the comment line before it.
func ParseTrusted(keys []string) (Trusted, error) {
	t := make(Trusted, 0, len(keys))
	for i, text := range keys {
		var key minisign.PublicKey
		if err := key.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			return nil, fmt.Errorf("public key %d: %w", i+1, err)
		}
		t = append(t, key)
	}
	return t, nil
}

// Verify tells which of the keys has signed the index, by its name as minisign
// prints it. Errors match ErrSignature; sig nil means unsigned, which is one.
func (t Trusted) Verify(x Index, sig []byte) (key string, err error) {
	if sig == nil {
		return "", fmt.Errorf("%w: bundle %s is not signed", ErrSignature, x.ID)
	}
	var s minisign.Signature
	if err := s.UnmarshalText(sig); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrSignature, SignatureName, err)
	}
	by := fmt.Sprintf("%016X", s.KeyID)
	for _, k := range t {
		if k.ID() != s.KeyID {
			continue
		}
		if !minisign.Verify(k, x.raw, sig) {
			return "", fmt.Errorf("%w: %s is not what key %s has signed", ErrSignature, IndexName, by)
		}
		return by, nil
	}
	return "", fmt.Errorf("%w: signed with key %s, which is not trusted here", ErrSignature, by)
}

// Policy decides which bundles are taken by their signatures. The zero Policy takes all.
type Policy struct {
	Keys     Trusted // none: signatures are not checked
	Required bool    // a bundle without a signature is refused
}

// Check gives the key that signed x and is trusted, "" when the signature was not checked. sig is the
// signature's text, nil without one. The error matches ErrSignature.
func (p Policy) Check(x Index, sig []byte) (key string, err error) {
	switch {
	case sig == nil && p.Required:
		return "", fmt.Errorf("%w: bundle %s is not signed, and bundle.require_signature is set", ErrSignature, x.ID)
	case sig == nil, len(p.Keys) == 0:
		return "", nil
	}
	return p.Keys.Verify(x, sig)
}

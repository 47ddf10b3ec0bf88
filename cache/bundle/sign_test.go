package bundle

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
)

// A key and signatures that minisign 0.11 made: of the message, prehashed and in
// the older way. And a key with a password, which minisign takes too; it asks less
// of memory than those of GenerateKey do.
const (
	password  = "pass word"
	encrypted = `untrusted comment: minisign encrypted secret key
RWRTY0IygoOyeBmfP7voUc9d/lOWNOXVLqhwJcZhGnRTxa6IKXQAgAAAAAAAAAAAAAEAAAAAck7W1ACLyzQZDZOltUhAJn2xs9LtzRQAND7ZidCTy/RGIAGicMcoEGUYTQO4eUFfWs7JaUQLGn+AiPf43LvInyFbSWSnJwLBsZXepPHXP6u3ZvKenF81nySd91UwpOtXgv1xDuAqM9k=
`
	encryptedPublic = "RWTrrM78rS6VmNCSqBwdUhuUJQiIDt5BUeBiixOHr028iqk3loZSN1yC"
	message         = "hello bundle\n"
	theirs          = `untrusted comment: minisign public key D3C7D6C8929BBA76
RWR2upuSyNbH0yp0YHAOweRWWM+X60jCFtq9sDpK94dfqCyBVHHHQLXp
`
	hashed = `untrusted comment: untrusted words
RUR2upuSyNbH04hw/mq+B3C80F7cgvirvUaLnibre00l/ZlonE0KJrj5nMAw0FHJAzQ9Hrx9+hjvjDR1fJoe3B8OAGaRXjN4RgM=
trusted comment: trusted words
w71GSxca5eEjdwtD4pJmc4FkbS3QISFKhjU+AoQsh1qWlvNjYRp4e6oRcxredYWGyYssgB6jEPu0bH72tLx4Aw==
`
	legacy = `untrusted comment: signature from minisign secret key
RWR2upuSyNbH02Aqtd+Bs9qiQSjvOVfpAmq2UkXNkYRSXePjtJA17GYM+UJ2WiVs7Owv3aYYIDjz6IP6aBCYmUPERQmzq2WUcQ4=
trusted comment: trusted words
WB/Ln133cg5CN3PMKaZmjek/GUAVvvN5B6lwFpj8SnOQ7o9kfrxjifYgwgIwUoBn79AXmSj2U21CsyrlQR9sBw==
`
)

func TestVerify(t *testing.T) {
	x := Index{raw: []byte(message)}
	trust := func(keys ...string) Trusted {
		t.Helper()
		k, err := ParseTrusted(keys)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, other, err := GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(theirs, "\n")[1]
	f := func(k Trusted, x Index, sig, says string) {
		t.Helper()
		var b []byte
		if sig != "" {
			b = []byte(sig)
		}
		by, err := k.Verify(x, b)
		if says == "" {
			if err != nil || by != "D3C7D6C8929BBA76" {
				t.Errorf("%q, %v", by, err)
			}
			return
		}
		if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), says) || by != "" {
			t.Errorf("%q, %v; want %q", by, err, says)
		}
	}
	f(trust(theirs), x, hashed, "")
	f(trust(theirs), x, legacy, "")
	f(trust(line), x, hashed, "")
	f(trust("\n"+theirs+"\n"), x, hashed, "")
	f(trust(strings.ReplaceAll(theirs, "\n", "\r\n")), x, strings.ReplaceAll(hashed, "\n", "\r\n"), "")
	f(trust(string(other), theirs), x, hashed, "")
	f(trust(theirs), x, strings.Replace(hashed, "untrusted words", "other words", 1), "") // whose name says so
	f(trust(theirs), x, strings.Replace(hashed, "trusted comment: trusted words", "trusted comment: other words", 1), "is not what key")
	f(trust(theirs), x, "", "is not signed")
	f(trust(), x, hashed, "not trusted")
	f(trust(string(other)), x, hashed, "D3C7D6C8929BBA76, which is not trusted")
	f(trust(theirs), Index{raw: []byte("hello, bundle\n")}, hashed, "is not what key D3C7D6C8929BBA76 has signed")
	f(trust(theirs), x, "nonsense", SignatureName)
	f(trust(theirs), x, strings.Replace(hashed, "\n", "\n\n", 1), SignatureName)

	for _, bad := range []string{"", "RW", "key", line + "x", hashed} {
		if _, err := ParseTrusted([]string{theirs, bad}); err == nil || !strings.Contains(err.Error(), "public key 2") {
			t.Errorf("public key %q: %v", bad, err)
		}
	}

	// A flipped bit is found, or means the same signature.
	var is minisign.Signature
	if err := is.UnmarshalText([]byte(hashed)); err != nil {
		t.Fatal(err)
	}
	for at := range 8 * len(hashed) {
		b := []byte(hashed)
		b[at/8] ^= 1 << (at % 8)
		if _, err := trust(theirs).Verify(x, b); err == nil {
			var s minisign.Signature
			if err := s.UnmarshalText(b); err != nil || !s.Equal(is) {
				t.Errorf("bit %d: another signature is taken", at)
			}
		}
	}
}

func TestSign(t *testing.T) {
	_, x := small(t)
	f := func(secret, public, password string) {
		t.Helper()
		if KeyEncrypted([]byte(secret)) != (password != "") {
			t.Errorf("encrypted: %v", KeyEncrypted([]byte(secret)))
		}
		sig, err := Sign([]byte(secret), password, x)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(sig)) > maxSigned-blockSize {
			t.Errorf("the signature has %d bytes", len(sig))
		}
		trusted, err := ParseTrusted([]string{public})
		if err != nil {
			t.Fatal(err)
		}
		if by, err := trusted.Verify(x, sig); err != nil || !strings.Contains(string(sig), by) {
			t.Errorf("by %q, %v", by, err)
		}
		if !strings.Contains(string(sig), "bundle:"+x.ID.String()) {
			t.Errorf("signature %s", sig)
		}
	}
	secret, public, err := GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	f(string(secret), string(public), "")
	f(encrypted, encryptedPublic, password)
	for _, wrong := range []string{"", "word"} {
		if _, err := Sign([]byte(encrypted), wrong, x); err == nil || !strings.Contains(err.Error(), "password") {
			t.Errorf("password %q: %v", wrong, err)
		}
	}
	for _, bad := range []string{"", "x", theirs} {
		if _, err := Sign([]byte(bad), "", x); err == nil {
			t.Errorf("secret key %q: no error", bad)
		}
	}
	if testing.Short() || underRace() {
		return // the next takes seconds, and minutes
	}
	if secret, public, err = GenerateKey(password); err != nil {
		t.Fatal(err)
	}
	f(string(secret), string(public), password)
}

// underRace tells that the race detector is at work.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// What is signed here minisign takes, with our keys; what it signs, with its keys
// or ours, is taken here.
func TestMinisign(t *testing.T) {
	program := need(t, "minisign")
	dir := t.TempDir()
	_, x := small(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("minisign %v: %v: %s", args, err, out)
		}
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	secret, public, err := GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := Sign(secret, "", x)
	if err != nil {
		t.Fatal(err)
	}
	write(IndexName, x.Bytes())
	write(SignatureName, sig)
	write("our.pub", public)
	write("our.key", secret)
	run("-V", "-p", "our.pub", "-m", IndexName)

	run("-G", "-W", "-f", "-p", "their.pub", "-s", "their.key")
	for _, key := range []string{"our", "their"} {
		run("-S", "-s", key+".key", "-m", IndexName)
		trusted, err := ParseTrusted([]string{string(read(key + ".pub"))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trusted.Verify(x, read(SignatureName)); err != nil {
			t.Errorf("%s key: %v", key, err)
		}
	}
	sig, err = Sign(read("their.key"), "", x)
	if err != nil {
		t.Fatal(err)
	}
	write(SignatureName, sig)
	run("-V", "-p", "their.pub", "-m", IndexName)
}

// An index that was signed by hand, in a folder that was unsigned, counts as signed.
func TestSignedByHand(t *testing.T) {
	s, x := small(t)
	dir := unpack(t, s, x, nil, 1)
	if err := os.WriteFile(filepath.Join(dir, SignatureName), []byte(hashed), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil || string(m.Sig) != hashed {
		t.Fatalf("%q, %v", m.Sig, err)
	}
	r, err := m.Volume(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	k, head, err := read(b.Bytes())
	if err != nil || string(head.Sig) != hashed {
		t.Errorf("signature %q, %v", head.Sig, err)
	}
	k.check(t, s)
	if again := s.tar(head); !bytes.Equal(again, b.Bytes()) {
		t.Error("the tar of the head that was read is another")
	}
}

package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/config"
)

// Who may write follows the configuration at a reload: no client, the token of the admin listener, a
// token of its own, an address.
func TestReloadWrites(t *testing.T) {
	cfg := testConfig(t)
	cfg.Admin.Listen = "127.0.0.1:0"
	m, _ := runProcess(t, cfg)
	adminToken, err := config.ReadSecret(cfg.AdminTokenFile())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	const own = "a token of writers alone"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(own + "\n")
	manifest := func(id uuid.UUID) string {
		return `{"v":2,"uuid":"` + id.String() + `","name":"mine","version":"1","type":"zone-dataset","os":"smartos"}`
	}
	f := func(when, token string, want int) {
		t.Helper()
		id := uuid.New()
		url := "http://" + m.server.Addr().String() + "/images/" + id.String()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"?action=import", strings.NewReader(manifest(id)))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s, with the token %q: %d, want %d", when, token, resp.StatusCode, want)
		}
		if resp.StatusCode == http.StatusOK {
			req.Method, req.URL.RawQuery, req.Body, req.ContentLength = http.MethodDelete, "", http.NoBody, 0
			if resp, err = http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusNoContent {
				t.Errorf("%s: not deleted: %v, %v", when, resp, err)
			}
		}
	}
	reload := func(w config.Writes) {
		t.Helper()
		next := *cfg
		next.Writes = w
		if err := m.reload(t.Context(), &next); err != nil {
			t.Fatal(err)
		}
	}
	f("off", adminToken, 405)
	reload(config.Writes{Enabled: true})
	f("with the admin token", "", 403)
	f("with the admin token", adminToken, 200)
	f("with the admin token", own, 401)
	reload(config.Writes{Enabled: true, TokenFile: file})
	f("with a token of its own", adminToken, 401)
	f("with a token of its own", own, 200)
	write("another token of writers")
	reload(config.Writes{Enabled: true, TokenFile: file})
	f("with another token", own, 401)
	reload(config.Writes{Enabled: true, Allow: []string{"127.0.0.0/8"}})
	f("with an address", "", 200)
	reload(config.Writes{Enabled: true, Allow: []string{"192.0.2.0/24"}})
	f("with another address", "", 403)
	reload(config.Writes{})
	f("off again", adminToken, 405)

	next := *cfg
	next.Writes = config.Writes{Enabled: true, TokenFile: filepath.Join(t.TempDir(), "none")}
	if err := m.reload(t.Context(), &next); err == nil || !strings.Contains(err.Error(), "writes.token_file") {
		t.Errorf("a token file that is not there: %v", err)
	}
	if token, err := os.ReadFile(cfg.AdminTokenFile()); err != nil || !bytes.Contains(token, []byte(adminToken)) {
		t.Errorf("the admin token has changed: %v", err)
	}
}

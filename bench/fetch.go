//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // what image manifests have
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// client asks for nothing by itself: no compression, no proxy.
var client = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: time.Minute}

// answer is a whole answer.
type answer struct {
	status int
	header http.Header
	length int64
	sha1   string
}

// fetch asks once. header is "Name: value", or "". keep gets the body's bytes, unless it is nil.
func fetch(ctx context.Context, url, header string, keep io.Writer) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	sum := sha1.New() //nolint:gosec // as above
	to := io.Writer(sum)
	if keep != nil {
		to = io.MultiWriter(sum, keep)
	}
	n, err := io.Copy(to, resp.Body)
	return answer{resp.StatusCode, resp.Header, n, hex.EncodeToString(sum.Sum(nil))}, err
}

// check wants these very bytes of a server.
func check(ctx context.Context, url, header string, length int64, sha1 string) error {
	got, err := fetch(ctx, url, header, nil)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK || got.length != length || got.sha1 != sha1 {
		return fmt.Errorf("%s: status %d, %d bytes with sha1 %s; want %d with %s", url, got.status, got.length, got.sha1, length, sha1)
	}
	return nil
}

// metric is the sum of the mirror's samples of that name; 0 if there is none.
func (s *server) metric(ctx context.Context, name string) (sum float64) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+"/metrics", nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			sum += v
		}
	}
	return sum
}

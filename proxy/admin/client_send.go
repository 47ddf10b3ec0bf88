package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// send sends one request. The reply is one of success, and the caller closes its body.
func (c *Client) send(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if _, form := body.(*io.PipeReader); form {
		// A mirror that refuses says so before gigabytes are on their way.
		req.Header.Set("Expect", "100-continue")
	}
	return c.roundTrip(req)
}

// request makes a request, which says who asks.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err == nil && c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, err
}

// roundTrip makes an error of a reply that is one.
func (c *Client) roundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	if err := c.wrongListener(req.Context(), resp.StatusCode); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %s: %w", req.Method, req.URL, resp.Status, err)
	}
	told := &Error{}
	if json.Unmarshal(data, told) != nil || told.Code == "" {
		return nil, fmt.Errorf("%s %s: %s: not the answer of a mirror", req.Method, req.URL, resp.Status)
	}
	return nil, &answered{told, resp.StatusCode}
}

// wrongListener is an error when a refusal came from an image server: the listener for nodes, by the look of
// its answer to a ping, which an admin listener does not have.
func (c *Client) wrongListener(ctx context.Context, status int) error {
	if c.named == "" || status/100 != 4 {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.named+"/ping", nil)
	if err != nil {
		return nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var pong struct {
		Ping   string `json:"ping"`
		IMGAPI bool   `json:"imgapi"`
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil || json.Unmarshal(data, &pong) != nil || pong.Ping != "pong" && !pong.IMGAPI {
		return nil
	}
	return &Error{codeWrongListener, fmt.Sprintf("%s is the listener that nodes ask (listen); the admin API is on the admin listener (admin.listen, port 8081 by default)", req.URL.Scheme+"://"+req.URL.Host)}
}

// NotForImages is the error of a base URL that is the admin listener of a mirror, where --from wants the
// listener for nodes; nil when it is none, or cannot be asked.
func NotForImages(ctx context.Context, base string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+apiPrefix+"/openapi.json", nil)
	if err != nil {
		return nil
	}
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != realm {
		return nil
	}
	return &Error{codeWrongListener, fmt.Sprintf("%s://%s is the admin listener (admin.listen); --from wants the listener that nodes ask (listen, port 8080 by default)", req.URL.Scheme, req.URL.Host)}
}

// answered is an error of a reply with the reply's status.
type answered struct {
	error
	status int
}

func (a *answered) Unwrap() error { return a.error }

// StatusOf is the status of the reply that a Client made err of; 0 = err is of another kind.
func StatusOf(err error) int {
	var a *answered
	if errors.As(err, &a) {
		return a.status
	}
	return 0
}

package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"imgmirror/verify"
)

const (
	// smallDocument is how many bytes of an answer, decoded, are read whatever else is being read: more
	// than any usual manifest has.
	smallDocument = 64 << 10
	// largeDocuments is how many larger answers of one source are read at the same time.
	largeDocuments = 4
)

// fetch asks once and reads the whole answer, decoded, of at most limit bytes.
// After a 304 the body is nil. Answers of more than smallDocument take turns, see enterLarge.
func (c *Client) fetch(ctx context.Context, r request, limit int64) (*http.Response, []byte, error) {
	resp, decoded, err := c.open(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	where := resp.Request.URL
	if resp.StatusCode == http.StatusNotModified {
		return resp, nil, nil
	}
	tooLong := func() error {
		err := nonsense("GET %s: %w", where, bounded(reasonDocument, "more than %d bytes", limit))
		c.count(err)
		return err
	}
	if resp.ContentLength > limit && resp.Header.Get("Content-Encoding") == "" {
		return nil, nil, tooLong()
	}
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(min(n, smallDocument)) + bytes.MinRead)
	}
	text := &squeezed{src: io.LimitReader(decoded, limit+1)}
	_, err = buf.ReadFrom(io.LimitReader(text, smallDocument))
	if err == nil && buf.Len() == smallDocument {
		leave, busy := c.enterLarge(ctx)
		if busy != nil {
			return nil, nil, fmt.Errorf("GET %s: %w", where, busy)
		}
		defer leave()
		_, err = buf.ReadFrom(text)
	}
	if err != nil {
		return nil, nil, readError(where, err)
	} else if text.read > limit {
		return nil, nil, tooLong()
	}
	return resp, buf.Bytes(), nil
}

// enterLarge waits for the turn of a large answer, until ctx ends. The caller must call leave after the
// answer was read. The error matches verify.ErrUnavailable and ctx's.
func (c *Client) enterLarge(ctx context.Context) (leave func(), err error) {
	select {
	case c.large <- struct{}{}:
		return func() { <-c.large }, nil
	case <-ctx.Done():
		c.count(bounded(reasonTurn, ""))
		return nil, fmt.Errorf("%w: %d large answers are being read already: %w", verify.ErrUnavailable, largeDocuments, ctx.Err())
	}
}

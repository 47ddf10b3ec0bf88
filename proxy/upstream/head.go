package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"imgmirror/manifest"
)

// headLen is how many first bytes Head asks for.
const headLen = 2 << 10

// Head gives the first 2 KiB of file index of m, a manifest of this source, or all bytes of a
// shorter file, and the file's size; -1 when the source does not tell the size. Head asks for a
// range, in one try. A source without ranges is left after as many bytes. A size that the answer
// lacks is asked for by HEAD. Errors as with File.
func (c *Client) Head(ctx context.Context, m manifest.Manifest, index int) (head []byte, size int64, err error) {
	err = c.health.ask(ctx, &c.health.files, part{m.UUID, index}, func() (err error) {
		head, size, err = c.head(ctx, m, index)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("first bytes of file %d of %s: %w", index, m.UUID, err)
	}
	return head, size, nil
}

func (c *Client) head(ctx context.Context, m manifest.Manifest, index int) (head []byte, size int64, err error) {
	s, err := c.file(ctx, m, index, span{head: true})
	if err != nil {
		return nil, 0, err
	}
	defer s.Close()
	head, err = io.ReadAll(io.LimitReader(s, headLen))
	if err != nil {
		return nil, 0, err
	}
	if s.Size < int64(len(head)) { // some servers answer HEAD with a size of 0
		return head, -1, nil
	}
	return head, s.Size, nil
}

// sizeByHead asks for the size of one address; -1 when the source does not tell it.
func (c *Client) sizeByHead(ctx context.Context, r request) int64 {
	r.method, r.header = http.MethodHead, nil
	resp, err := c.ask(ctx, r)
	if err != nil {
		return -1 // the file is there: it is the HEAD that the source does not know
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return -1
	}
	return resp.ContentLength
}

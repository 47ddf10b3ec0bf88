package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/uuid"
)

// Nodes gives a page of the journal of nodes.
func (c *Client) Nodes(ctx context.Context, q NodeQuery) (NodePage, error) {
	return ask[NodePage](ctx, c, http.MethodGet, "/nodes?"+q.Query().Encode(), nil)
}

// Node gives what the journal knows of one address, with the images that the node has had.
func (c *Client) Node(ctx context.Context, address string) (Node, error) {
	return ask[Node](ctx, c, http.MethodGet, "/nodes/"+url.PathEscape(address), nil)
}

// ImageNodes tells which nodes have had an image, and which nodes of the journal have not. limit is
// the length of both lists; 0 = 50.
func (c *Client) ImageNodes(ctx context.Context, id uuid.UUID, offset, limit int) (ImageNodes, error) {
	v := url.Values{}
	if offset > 0 {
		v.Set("offset", strconv.Itoa(offset))
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return ask[ImageNodes](ctx, c, http.MethodGet, "/images/"+id.String()+"/nodes?"+v.Encode(), nil)
}

// ForgetNode deletes what the journal knows of one address; removed is 0 if the journal knew
// nothing.
func (c *Client) ForgetNode(ctx context.Context, address string) (Forgotten, error) {
	return ask[Forgotten](ctx, c, http.MethodDelete, "/nodes?"+url.Values{"address": {address}}.Encode(), nil)
}

// ForgetNodes deletes the journal of nodes.
func (c *Client) ForgetNodes(ctx context.Context) (Forgotten, error) {
	return ask[Forgotten](ctx, c, http.MethodDelete, "/nodes", nil)
}

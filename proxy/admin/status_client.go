package admin

import (
	"context"
	"net/http"
	"net/url"

	"github.com/google/uuid"
)

// Status tells what the mirror does and saves, at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/status", nil)
}

// Traffic gives what went over the wire in the last hour, day or week: span is that word.
func (c *Client) Traffic(ctx context.Context, span string) (Series, error) {
	return ask[Series](ctx, c, http.MethodGet, "/traffic?span="+url.QueryEscape(span), nil)
}

// History gives the events of an image that the mirror remembers, newest first.
func (c *Client) History(ctx context.Context, id uuid.UUID) ([]Event, error) {
	return ask[[]Event](ctx, c, http.MethodGet, "/history?uuid="+id.String(), nil)
}

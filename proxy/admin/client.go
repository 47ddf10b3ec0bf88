package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	fastjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// ClientOptions of NewClient. One of URL and Dial is required.
type ClientOptions struct {
	URL   string // "http://mirror:8081"; "" = any, with Dial
	Token string // sent as bearer token; "" = none
	// Dial, when set, makes all connections, whatever URL says: to a socket, to a
	// listener in memory. Without it the proxies of the environment are minded.
	Dial func(ctx context.Context) (net.Conn, error)
	// OneRequest: a connection serves one request only. fasthttputil's connections need that: their
	// timeouts are no net.Error, so that net/http takes the end of a request for a client that has left.
	OneRequest bool
}

// Client asks a mirror's admin API. Its methods may be called concurrently. An
// error that the mirror itself answered with is an *Error; any other one means
// that it could not be asked. Replies are waited for as long as ctx allows.
type Client struct {
	named string // the URL that the client was given; "" = Dial says where the mirror is
	base  string
	token string
	http  *http.Client
}

// maxReply bounds the replies that are read whole: a catalogue of 100,000 images is some 200 MB.
const maxReply = 2 << 30

// NewClient builds a client; it connects to nothing.
func NewClient(o ClientOptions) (*Client, error) {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		// One that has no opinion gets the body all the same.
		ExpectContinueTimeout: 2 * time.Second,
	}
	dial := (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	named := strings.TrimSuffix(o.URL, "/")
	if o.Dial != nil {
		named = ""
		transport.Proxy = nil
		transport.DisableKeepAlives = o.OneRequest
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) }
		if o.URL == "" {
			o.URL = "http://localhost"
		}
	}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wideConn{conn}, nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a mirror's admin listener (http://host:port)", o.URL)
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q must be http://host:port, with a path if a proxy in front needs one: no user, no ? and no # in it", u.Redacted())
	}
	return &Client{
		named: named,
		base:  strings.TrimSuffix(o.URL, "/") + "/api/v1",
		token: o.Token,
		http: &http.Client{
			Transport: transport,
			// The token is for the mirror that was named, and not for the target of a redirect.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections. Its error is always nil.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Sources lists the sources, in order of priority.
func (c *Client) Sources(ctx context.Context) ([]Source, error) {
	return ask[[]Source](ctx, c, http.MethodGet, "/sources", nil)
}

// CheckSources asks every source for its list just now, has what they say taken
// over, and lists them with the outcome.
func (c *Client) CheckSources(ctx context.Context) ([]Source, error) { return c.Check(ctx, Which{}) }

// Check is CheckSources for some sources.
func (c *Client) Check(ctx context.Context, w Which) ([]Source, error) {
	return ask[[]Source](ctx, c, http.MethodPost, "/sources/check", w)
}

// Refresh starts a job that asks every source for its list.
func (c *Client) Refresh(ctx context.Context) (Job, error) {
	return ask[Job](ctx, c, http.MethodPost, "/sources/refresh", struct{}{})
}

// Catalog gives a page of the catalogue.
func (c *Client) Catalog(ctx context.Context, l Look) (Page, error) {
	path := "/catalog"
	if q := l.Query(); len(q) > 0 {
		path += "?" + q.Encode()
	}
	return ask[Page](ctx, c, http.MethodGet, path, nil)
}

// Images lists the images that match all filters, ordered as clients see them.
func (c *Client) Images(ctx context.Context, filters ...string) ([]Image, error) {
	return ask[[]Image](ctx, c, http.MethodGet, "/images"+filterQuery(filters), nil)
}

// Image gives one image, listed or not.
func (c *Client) Image(ctx context.Context, id uuid.UUID) (Image, error) {
	return ask[Image](ctx, c, http.MethodGet, "/images/"+id.String(), nil)
}

// KnownImage is Image for an image that the catalogue has: no source is asked.
func (c *Client) KnownImage(ctx context.Context, id uuid.UUID) (Image, error) {
	return ask[Image](ctx, c, http.MethodGet, "/images/"+id.String()+"?ask=false", nil)
}

// Ancestry gives an image and its origins, the image first, the root last.
func (c *Client) Ancestry(ctx context.Context, id uuid.UUID) ([]Image, error) {
	return ask[[]Image](ctx, c, http.MethodGet, "/images/"+id.String()+"/ancestry", nil)
}

// Cached lists the images with a file on disk that match all filters.
func (c *Client) Cached(ctx context.Context, filters ...string) ([]Cached, error) {
	return ask[[]Cached](ctx, c, http.MethodGet, "/cached"+filterQuery(filters), nil)
}

// Fills lists the downloads under way.
func (c *Client) Fills(ctx context.Context) ([]Fill, error) {
	return ask[[]Fill](ctx, c, http.MethodGet, "/fills", nil)
}

// Fetch starts a job that brings images and their origins into the cache.
func (c *Client) Fetch(ctx context.Context, w Wanted) (Job, error) {
	w.DryRun = false
	return ask[Job](ctx, c, http.MethodPost, "/fetch", w)
}

// FetchDry tells what Fetch would bring, in its order.
func (c *Client) FetchDry(ctx context.Context, w Wanted) ([]Item, error) {
	w.DryRun = true
	return ask[[]Item](ctx, c, http.MethodPost, "/fetch", w)
}

// Pin keeps images from eviction. Items are done, or present when they were pinned before.
func (c *Client) Pin(ctx context.Context, w Wanted) ([]Item, error) {
	return ask[[]Item](ctx, c, http.MethodPost, "/pin", w)
}

// Unpin takes pins back. Items are done, or present when there was no pin.
func (c *Client) Unpin(ctx context.Context, w Wanted) ([]Item, error) {
	return ask[[]Item](ctx, c, http.MethodPost, "/unpin", w)
}

// Delete removes the files of images; with w.DryRun it tells which ones it would.
func (c *Client) Delete(ctx context.Context, w Wanted) ([]Removed, error) {
	return ask[[]Removed](ctx, c, http.MethodPost, "/delete", w)
}

// Vacuum removes what eviction would remove; dry only tells.
func (c *Client) Vacuum(ctx context.Context, dry bool) ([]Removed, error) {
	return ask[[]Removed](ctx, c, http.MethodPost, "/vacuum", Dry{DryRun: dry})
}

// Verify starts a job that hashes the files of images again; nothing wanted
// stands for all that are cached.
func (c *Client) Verify(ctx context.Context, w Wanted) (Job, error) {
	return ask[Job](ctx, c, http.MethodPost, "/verify", w)
}

// Publish makes an image of the mirror's own of a manifest and its file, which
// is read to its end, and not after Publish has returned.
func (c *Client) Publish(ctx context.Context, manifest []byte, file io.Reader) (Image, error) {
	var image Image
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(writeForm(form, manifest, file)) //nolint:errcheck // always nil
	}()
	defer func() {
		r.Close() //nolint:errcheck // always nil
		<-written
	}()
	err := c.do(ctx, http.MethodPost, "/publish", form.FormDataContentType(), r, &image)
	return image, err
}

func writeForm(form *multipart.Writer, manifest []byte, file io.Reader) error {
	part, err := form.CreateFormFile("manifest", "manifest.json")
	if err != nil {
		return err
	}
	if _, err := part.Write(manifest); err != nil {
		return err
	}
	if part, err = form.CreateFormFile("file", "file"); err != nil {
		return err
	}
	if _, err := io.Copy(part, file); err != nil {
		return err
	}
	return form.Close()
}

// Unpublish takes back an image of the mirror's own, with its files.
func (c *Client) Unpublish(ctx context.Context, id uuid.UUID) ([]Removed, error) {
	return ask[[]Removed](ctx, c, http.MethodDelete, "/published/"+id.String(), nil)
}

// Install starts a job that puts images, their origins first, into the zpool of
// the mirror's machine.
func (c *Client) Install(ctx context.Context, i Install) (Job, error) {
	i.DryRun = false
	return ask[Job](ctx, c, http.MethodPost, "/install", i)
}

// InstallDry tells what Install would put there, in its order.
func (c *Client) InstallDry(ctx context.Context, i Install) ([]Item, error) {
	i.DryRun = true
	return ask[[]Item](ctx, c, http.MethodPost, "/install", i)
}

// Installed lists the images in a pool of the mirror's machine, "" standing for the configured one.
func (c *Client) Installed(ctx context.Context, pool string) ([]Installed, error) {
	query := ""
	if pool != "" {
		query = "?" + url.Values{"pool": {pool}}.Encode()
	}
	return ask[[]Installed](ctx, c, http.MethodGet, "/installed"+query, nil)
}

// Config gives the effective configuration, with secrets masked.
func (c *Client) Config(ctx context.Context) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, c, http.MethodGet, "/config", nil)
}

// Doctor has the mirror check its own set-up.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	return ask[[]Finding](ctx, c, http.MethodGet, "/doctor", nil)
}

// Jobs lists the jobs under way and the last ones that are over, oldest first, without their items.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	return ask[[]Job](ctx, c, http.MethodGet, "/jobs", nil)
}

// Job gives one job.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return ask[Job](ctx, c, http.MethodGet, "/jobs/"+url.PathEscape(id), nil)
}

// Cancel ends a job and gives it as it then is; one that is over stays as it is.
func (c *Client) Cancel(ctx context.Context, id string) (Job, error) {
	return ask[Job](ctx, c, http.MethodDelete, "/jobs/"+url.PathEscape(id), nil)
}

// filterQuery is the query string of a list of filters.
func filterQuery(filters []string) string {
	if len(filters) == 0 {
		return ""
	}
	return "?" + url.Values{"filter": filters}.Encode()
}

// ask sends body, when it is not nil, as JSON and reads the reply.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var reply T
	if body == nil {
		err := c.do(ctx, method, path, "", nil, &reply)
		return reply, err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return reply, err
	}
	err = c.do(ctx, method, path, typeJSON, bytes.NewReader(data), &reply)
	return reply, err
}

// do sends one request and decodes its reply into reply, a pointer.
func (c *Client) do(ctx context.Context, method, path, contentType string, body io.Reader, reply any) error {
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return decodeReply(resp, reply)
}

// decodeReply reads a reply of JSON into reply, a pointer.
func decodeReply(resp *http.Response, reply any) error {
	// What the catalogue's manifests hold is for who parses them to judge.
	lenient := jsontext.AllowDuplicateNames(true)
	if err := fastjson.UnmarshalRead(io.LimitReader(resp.Body, maxReply), reply, lenient, jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("%s %s: %w", resp.Request.Method, resp.Request.URL, err)
	}
	return nil
}

// Package upstream talks to one image server: it finds out what kind of server it is, lists its
// images page by page and conditionally, fetches single manifests, and opens files and icons at any
// offset (spec 4 and 5). It keeps nothing on disk and judges no bytes: a Stream says what its
// sender claims, and the receiver checks it.
//
// # Kinds
//
// A source is of kind imgapi, dsapi (smartos-image-server included), static or
// directory; "auto" asks the server (spec 5.2). The kind directory is a folder
// on this machine, given as a path or a file: URL. Its rules are:
//
//   - An image without a date has that of its manifest's file.
//   - Manifests are looked for in the folder and in its direct sub-folders:
//     every manifest.json, manifest (as Danube keeps it), *.imgmanifest, *.dsmanifest and
//     *.json; a record of imgadm's own counts as the manifest in it. Hidden entries, copies
//     that editors keep (NAME~, *.swp, *.swo, #NAME), and what does not parse as a manifest,
//     are left out. Of two with the same uuid the first in the order of their names counts.
//   - The file of a manifest lies in the same folder. These names are tried, for
//     a manifest called NAME.imgmanifest, and file number N of it: the manifest's
//     own files[N].path; fileN, and "file" when N is 0; NAME.zfs, NAME.zvol,
//     NAME.tar and NAME, each with .gz, .bz2, .xz, .zst or nothing (NAME-N when N is
//     not 0), and the same with the uuid for NAME; the path that spec 1.6 derives,
//     NAME-VERSION.zfs.gz as a rule; UUID.file, UUID/fileN and UUID/file. Beside a manifest.json
//     or a manifest, which has its folder for itself: path, fileN, file, the derived path, and any
//     other name but icon.*. The first that has the size the manifest states is
//     taken, else the first that exists. Beside a manifest that is a link the
//     names are tried in the link's folder, then in that of its target.
//   - An icon is icon.png, icon.jpg, icon.jpeg or icon.gif in the same folder.
//   - Nothing outside the folder is ever opened. Links, relative or absolute, work as long as they
//     end in the folder, by whatever path they name the folder; links that lead out are refused.
//     Pipes, sockets and devices are not opened.
//   - What cannot be read (a sub-folder, a manifest, a file, a link to nothing) is told in
//     Listing.Trouble. Which images lie there is not known: those of the list before stay on it,
//     unless they were last seen elsewhere. A folder lost+found holds none but those seen there.
//   - The list counts as not modified while no name, size, mode or time of modification in the
//     folder and its sub-folders has changed.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// The kinds of source.
const (
	kindAuto      = "auto"
	kindIMGAPI    = "imgapi"
	kindDSAPI     = "dsapi"
	kindStatic    = "static"
	kindDirectory = "directory"
)

// Bounds of spec 5.3 and 5.5, and what follows from them.
const (
	connectTimeout      = 5 * time.Second
	hurriedConnect      = 2 * time.Second // for files, and when the caller's deadline is near
	hurry               = 10 * time.Second
	defaultStallTimeout = 20 * time.Second
	idleConns           = 4 // connections that stay open for the next requests
	listDeadline        = 120 * time.Second
	listPatience        = 3 // stall timeouts until a list begins: a long one may take its server a while
	listTries           = 4
	listRetryInterval   = time.Second
	pageSize            = 1000
	maxPages            = 1000
	maxManifestBody     = 4 << 20  // bytes, decoded
	maxPingBody         = 64 << 10 // bytes, decoded
	maxRedirects        = 5
	protocolFailures    = 3 // in a row: ask the server anew what it is
)

// Options of New. Required: Name and URL.
type Options struct {
	// Name is the configured name of the source: the metric label.
	Name string
	// URL is the address of the source (spec 5.1), or the path of a folder. A ?channel= in the URL
	// counts when Channel is empty; a user and password in the URL count when Username is empty.
	URL string
	// Kind is auto, imgapi, dsapi, static or directory; "" means auto.
	// With auto, an absolute path or a file: URL is a directory.
	Kind string
	// Channel asked for on servers with channels; "" is the server's default, "*" is all.
	Channel string
	// Insecure skips the verification of certificates and allows redirects from https to http.
	Insecure bool
	// CAFile names a PEM file with certificates that are trusted besides the system's.
	CAFile string
	// Token is sent as a bearer token; else Username and Password as basic authentication. No other
	// host ever gets either.
	Username, Password, Token string
	// Proxy is the URL of a proxy for everything; "" means HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in
	// upper or lower case.
	Proxy string
	// RateLimit is in bytes per second, for all files of this source together; 0 means no limit.
	RateLimit int64
	// StallTimeout ends a transfer that brings no byte for so long; 0 means 20 s.
	StallTimeout time.Duration
	// Streams is how many Parts of a file are asked for at the same time: as many connections stay open between two
	// Parts; 0 means 1.
	Streams int
	// ServePrivate is passed on to manifest.Parse.
	ServePrivate bool
	// ID is the mirror's own (see via). Every question has the ID, so that mirrors which are each
	// other's sources find that out. "" sends none, and meets no mirrors.
	ID string
	// UserAgent is sent as it is; "" means "imgmirror".
	UserAgent string
	// Lists is the memory for the lists of several sources; nil means DefaultListMemory for this one.
	Lists *ListMemory
	// Metrics are shared by all sources; nil means unregistered metrics.
	Metrics *Metrics
	// Logger gets what the errors that are returned don't say; nil means none.
	Logger *slog.Logger

	// dial replaces the dialer, and with it the refusal of reserved addresses, in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	// retryInterval, maxList and maxElements replace the constants in tests.
	retryInterval time.Duration
	maxList       int64
	maxElements   int
}

// Client is one source. All methods may be called concurrently. It runs no
// goroutines of its own between calls; only idle connections stay, see Close.
type Client struct {
	opts    Options
	addr    address
	dir     *directory // of kind directory, else nil
	http    *http.Client
	reach   *reach        // what the source may name
	limiter *rate.Limiter // nil: no limit
	lists   *account
	large   chan struct{} // one token for each large answer that is being read
	metrics sourceMetrics
	log     *slog.Logger

	health      *health
	state       state
	certificate certificate
}

// New checks the options (syntax of the URLs, a readable CA file); it asks nothing.
func New(o Options) (*Client, error) {
	if o.Name == "" {
		return nil, errors.New("upstream: a source needs a name")
	}
	o.Kind = cmp.Or(o.Kind, kindAuto)
	o.StallTimeout = cmp.Or(o.StallTimeout, defaultStallTimeout)
	o.retryInterval = cmp.Or(o.retryInterval, listRetryInterval)
	o.maxList, o.maxElements = cmp.Or(o.maxList, maxList), cmp.Or(o.maxElements, maxElements)
	o.UserAgent = cmp.Or(o.UserAgent, "imgmirror")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil, nil)
	}
	c := &Client{
		opts:    o,
		large:   make(chan struct{}, largeDocuments),
		metrics: o.Metrics.source(o.Name),
		log:     o.Logger.With("component", "upstream", "source", o.Name),
	}
	if o.Lists == nil {
		o.Lists = NewListMemory(DefaultListMemory, 1)
	}
	c.lists = o.Lists.open(c.metrics)
	c.health = newHealth(c.metrics, c.log)
	c.certificate.shown = c.metrics.certificate
	if o.RateLimit > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(o.RateLimit), limiterChunk(o.RateLimit))
	}
	if err := c.connect(); err != nil {
		return nil, fmt.Errorf("upstream: source %s: %w", o.Name, err)
	}
	return c, nil
}

// connect sets up what the kind of address needs: a folder, or a transport.
func (c *Client) connect() error {
	if !slices.Contains([]string{kindAuto, kindIMGAPI, kindDSAPI, kindStatic, kindDirectory}, c.opts.Kind) {
		return fmt.Errorf("kind %q is not one of auto, imgapi, dsapi, static, directory", c.opts.Kind)
	}
	if folder, ok := folderPath(c.opts.URL, c.opts.Kind); ok {
		c.opts.Kind = kindDirectory
		c.dir = &directory{
			path: folder, options: manifest.ParseOptions{ServePrivate: c.opts.ServePrivate}, report: c.report,
			lists: c.lists, maxNames: c.opts.maxElements, maxText: c.opts.maxList,
			seen: make(map[uuid.UUID]place),
		}
		c.state.verdict = verdict{kind: kindDirectory}
		return nil
	}
	addr, err := parseAddress(c.opts.URL, c.opts.Kind, c.opts.Channel)
	if err != nil {
		return err
	}
	c.addr = addr
	if c.opts.Username == "" && c.opts.Token == "" {
		c.opts.Username, c.opts.Password = addr.username, addr.password
	}
	c.reach = &reach{host: addr.base.Hostname()}
	transport, err := newTransport(c.opts, c.reach)
	if err != nil {
		return err
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: c.checkRedirect}
	if c.opts.Kind != kindAuto {
		c.state.verdict = verdict{kind: c.opts.Kind}
	}
	return nil
}

// Name is the configured name.
func (c *Client) Name() string { return c.opts.Name }

// Kind is what the source was found to be: imgapi, dsapi, static or directory;
// "auto" as long as that is not known.
func (c *Client) Kind() string {
	return cmp.Or(c.state.current().kind, kindAuto)
}

// Channel is the channel of the options or of the URL; "" leaves the choice to the server.
func (c *Client) Channel() string { return c.addr.channel }

// Close drops idle connections. Open Streams live on, and the Client can still be used.
func (c *Client) Close() error {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	return nil
}

// Get asks for one manifest by uuid, in one try. Errors: fs.ErrNotExist when the source does not
// have the manifest, or has one that ingestion refuses (spec 1.8); fs.ErrPermission;
// verify.ErrUnavailable when the answer is not known, or when the source rests.
func (c *Client) Get(ctx context.Context, id uuid.UUID) (m manifest.Manifest, err error) {
	err = c.health.ask(ctx, &c.health.lookups, part{id, manifestOf}, func() (err error) {
		m, err = c.get(ctx, id)
		return err
	})
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("manifest %s: %w", id, err)
	}
	return m, nil
}

// File opens file index of m, a manifest of this source, at offset, in one try (two addresses where
// spec 4.1 and 5.4 name two). Stream.Size is the size of the whole file as claimed, -1 without a
// claim. The Stream gives io.EOF only there. The size may differ from the manifest's, and be less
// than offset: the receiver judges. The first Reads of a source without ranges skip up to the
// offset; a Read that takes longer than a second returns no byte and no error, as a sign of life. A
// Stream that brings no byte for StallTimeout, or breaks, returns an error that matches
// verify.ErrUnavailable. ctx bounds the Stream too. A source without a connection within 2 s is
// given up. A file that failed again and again while the source gives others is not asked for until
// its rest is over; the error matches verify.ErrResting then.
//
// Errors: fs.ErrNotExist; fs.ErrPermission, also when the only address is one that the source may
// not name; verify.ErrUnavailable; anything else is an answer that makes no sense for this offset.
func (c *Client) File(ctx context.Context, m manifest.Manifest, index int, offset int64) (s *verify.Stream, err error) {
	return c.openFile(ctx, m, index, span{offset: offset})
}

// Part is File for length bytes, at least 1. Stream.Part is the number of bytes that the source says
// it sends; 0: it ignores the range, or is a mirror that still fetches the file, and the Stream is
// that of File.
func (c *Client) Part(ctx context.Context, m manifest.Manifest, index int, offset, length int64) (*verify.Stream, error) {
	return c.openFile(ctx, m, index, span{offset: offset, length: length})
}

// openFile opens a file in one try.
func (c *Client) openFile(ctx context.Context, m manifest.Manifest, index int, wanted span) (s *verify.Stream, err error) {
	w := fetches
	if wanted.offset > 0 {
		w = goesOn
	}
	asked, err := c.health.put(ctx, &c.health.files, part{m.UUID, index}, w, func() (err error) {
		s, err = c.file(ctx, m, index, wanted)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("file %d of %s from %d: %w", index, m.UUID, wanted.offset, err)
	}
	s.ReadCloser = &judged{ReadCloser: s.ReadCloser, asked: asked}
	return s, nil
}

// Icon opens the image's icon; fs.ErrNotExist when it has none. Errors and Stream as with File.
func (c *Client) Icon(ctx context.Context, m manifest.Manifest) (s *verify.Stream, err error) {
	err = c.health.ask(ctx, &c.health.files, part{m.UUID, iconOf}, func() (err error) {
		s, err = c.icon(ctx, m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("icon of %s: %w", m.UUID, err)
	}
	return s, nil
}

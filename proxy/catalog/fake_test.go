package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

var (
	errSame = fmt.Errorf("same as before: %w", manifest.ErrNotModified)
	errDown = errors.New("connection refused")
)

// id makes the uuid number n.
func id(n int) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("00000000-0000-4000-8000-%012x", n))
}

// spec describes a test image; what is not set has a sensible value.
type spec struct {
	n       int // its uuid, and its date
	origin  int
	name    string
	sum     string // sha1 of its file; "-" = not stated
	size    int    // 0 = 1000 + n; -1 = not stated
	state   string
	private bool
	noFiles bool
	undated bool
	acl     string
	in      []string // channels
	packed  string   // compression; "" = gzip, "-" = not stated
}

// JSON of the image, IMGAPI v2.
func (s spec) JSON() []byte {
	if s.name == "" {
		s.name = fmt.Sprintf("image%d", s.n)
	}
	if s.sum == "" {
		s.sum = fmt.Sprintf("%040x", s.n)
	}
	if s.state == "" {
		s.state = "active"
	}
	if s.size == 0 {
		s.size = 1000 + s.n
	}
	published := time.Date(2024, 1, 1, 0, 0, s.n, 0, time.UTC).Format(time.RFC3339)
	var b strings.Builder
	fmt.Fprintf(&b, `{"v":2,"uuid":%q,"name":%q,"version":"1.0","type":"zone-dataset","os":"smartos","state":%q,`+
		`"disabled":%v,"public":%v,"owner":%q,`,
		id(s.n), s.name, s.state, s.state == "disabled", !s.private, uuid.Nil)
	if !s.undated {
		fmt.Fprintf(&b, `"published_at":%q,`, published)
	}
	if s.acl != "" {
		fmt.Fprintf(&b, `"acl":[%q],`, s.acl)
	}
	if s.in != nil {
		fmt.Fprintf(&b, `"channels":["%s"],`, strings.Join(s.in, `","`))
	}
	if s.origin != 0 {
		fmt.Fprintf(&b, `"origin":%q,`, id(s.origin))
	}
	if s.noFiles {
		b.WriteString(`"files":[]}`)
		return []byte(b.String())
	}
	b.WriteString(`"files":[{`)
	if s.sum != "-" {
		fmt.Fprintf(&b, `"sha1":%q,`, s.sum)
	}
	if s.size > 0 {
		fmt.Fprintf(&b, `"size":%d,`, s.size)
	}
	switch s.packed {
	case "":
		b.WriteString(`"compression":"gzip"}]}`)
	case "-":
		b.WriteString(`"name":"x"}]}`)
	default:
		fmt.Fprintf(&b, `"compression":%q}]}`, s.packed)
	}
	return []byte(b.String())
}

func parse(t testing.TB, s spec, o manifest.ParseOptions) manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse(s.JSON(), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fake is a source. Its list is listed; by uuid it gives hidden, too.
type fake struct {
	t       testing.TB
	name    string
	private bool // the options with which it parses

	mu       sync.Mutex
	listed   []spec
	refused  []error // what the list has beside them
	hidden   []spec
	told     []spec                          // by uuid, in the place of those that are listed
	mirror   string                          // its id, if it is a mirror
	ways     map[int][]string                // of its images
	etag     string                          // with one it knows "not modified"
	answered time.Time                       // Last-Modified of its answers
	ill      string                          // what it cannot read
	err      error                           // of List and Get
	getErr   error                           // of Get
	hang     bool                            // neither answers before its ctx ends
	silent   bool                            // Get does not either, for what it does not have
	gate     func(ctx context.Context) error // before a Get is answered
	lists    []time.Time                     // calls
	prevs    []manifest.Listing
	gets     []uuid.UUID
	head     func(ctx context.Context, m manifest.Manifest) ([]byte, int64, error) // answers Head; nil: nothing is there
	heads    []uuid.UUID

	askedFrom time.Time
	resting   int
	suspect   chan struct{}
	reachable func(ctx context.Context) bool // nil: it is
}

func (f *fake) Peer() string { return "" }

func (f *fake) CertificateEnd() time.Time { return time.Time{} }

func (f *fake) Suspect() <-chan struct{} { return f.suspect }

func (f *fake) AskedFrom() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.askedFrom
}

func (f *fake) Resting() (int, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.resting == 0 {
		return 0, ""
	}
	return f.resting, "they fail"
}

func (f *fake) Reachable(ctx context.Context, _ manifest.Manifest) bool {
	f.mu.Lock()
	reachable := f.reachable
	f.mu.Unlock()
	return reachable == nil || reachable(ctx)
}

func (f *fake) Name() string { return f.name }

func (f *fake) set(change func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) List(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	f.mu.Lock()
	f.lists = append(f.lists, time.Now())
	f.prevs = append(f.prevs, prev)
	hang, err, listed, refused, etag, ill, answered, mirror, ways := f.hang, f.err, f.listed, f.refused, f.etag, f.ill, f.answered, f.mirror, f.ways
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return manifest.Listing{}, ctx.Err()
	}
	if err != nil {
		return manifest.Listing{}, err
	}
	if etag != "" && prev.ETag == etag {
		return manifest.Listing{}, errSame
	}
	l := manifest.Listing{Source: f.name, Kind: "imgapi", ETag: etag, Fetched: time.Now(), Trouble: ill, Refusals: manifest.Refusals{}.Add(refused...)}
	l.Mirror = mirror
	for n, way := range ways {
		if l.Ways == nil {
			l.Ways = make(map[uuid.UUID][]string)
		}
		l.Ways[id(n)] = way
	}
	for _, s := range listed {
		l.Images = append(l.Images, parse(f.t, s, manifest.ParseOptions{ServePrivate: f.private, Date: answered}))
	}
	return l, nil
}

func (f *fake) Get(ctx context.Context, want uuid.UUID) (manifest.Manifest, error) {
	f.mu.Lock()
	f.gets = append(f.gets, want)
	hang, silent, err, gate, answered := f.hang, f.silent, errors.Join(f.err, f.getErr), f.gate, f.answered
	all := slices.Concat(f.told, f.listed, f.hidden)
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return manifest.Manifest{}, ctx.Err()
	}
	if gate != nil {
		if err := gate(ctx); err != nil {
			return manifest.Manifest{}, err
		}
	}
	if err != nil {
		return manifest.Manifest{}, err
	}
	for _, s := range all {
		if id(s.n) == want {
			return parse(f.t, s, manifest.ParseOptions{ServePrivate: f.private, Date: answered}), nil
		}
	}
	if silent {
		<-ctx.Done()
		return manifest.Manifest{}, ctx.Err()
	}
	return manifest.Manifest{}, fmt.Errorf("GET %s: %w", want, fs.ErrNotExist)
}

func (f *fake) File(context.Context, manifest.Manifest, int, int64) (*verify.Stream, error) {
	return nil, errors.New("the catalogue asks for no files")
}

func (f *fake) Part(context.Context, manifest.Manifest, int, int64, int64) (*verify.Stream, error) {
	panic("no range is asked for")
}

func (f *fake) Head(ctx context.Context, m manifest.Manifest, index int) ([]byte, int64, error) {
	f.mu.Lock()
	f.heads = append(f.heads, m.UUID)
	head := f.head
	f.mu.Unlock()
	if head == nil {
		return nil, 0, fmt.Errorf("first bytes of %s: %w", m.UUID, fs.ErrNotExist)
	}
	return head(ctx, m)
}

func (f *fake) Icon(context.Context, manifest.Manifest) (*verify.Stream, error) {
	return nil, errors.New("the catalogue asks for no icons")
}

// asked is how often id(n) was asked for by uuid.
func (f *fake) asked(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := 0
	for _, g := range f.gets {
		if g == id(n) {
			count++
		}
	}
	return count
}

// memory is an index that keeps raw manifests only, as one on disk does.
type memory struct {
	mu       sync.Mutex
	listings map[string]manifest.Listing
	facts    map[manifest.FileID]manifest.Facts
	saves    int   // of listings
	full     error // what saves of listings end with; nil: they work
	busy     bool
	overlaps int // calls that came while another was under way
}

func (x *memory) enter() func() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy {
		x.overlaps++
	}
	x.busy = true
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.busy = false
	}
}

func again(all []manifest.Manifest) []manifest.Manifest {
	var out []manifest.Manifest
	for _, m := range all {
		n, err := manifest.Parse(m.Raw(), manifest.ParseOptions{})
		if err != nil {
			panic(err)
		}
		out = append(out, n)
	}
	return out
}

func (x *memory) Listings() ([]manifest.Listing, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []manifest.Listing
	for _, name := range slices.Sorted(maps.Keys(x.listings)) {
		l := x.listings[name]
		l.Images, l.Unlisted, l.Retired, l.Details = again(l.Images), again(l.Unlisted), again(l.Retired), again(l.Details)
		out = append(out, l)
	}
	return out, nil
}

// saved is what is kept of a source.
func (x *memory) saved(source string) manifest.Listing {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.listings[source]
}

// set loses what is saved, and has saves end with full.
func (x *memory) set(full error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.listings, x.full = nil, full
}

func (x *memory) SaveListing(l manifest.Listing) error {
	defer x.enter()()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.full != nil {
		return x.full
	}
	if x.listings == nil {
		x.listings = make(map[string]manifest.Listing)
	}
	x.listings[l.Source] = l
	x.saves++
	return nil
}

func (x *memory) SaveUnlisted(source string, m manifest.Manifest) error {
	defer x.enter()()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.listings == nil {
		x.listings = make(map[string]manifest.Listing)
	}
	l := x.listings[source]
	l.Source = source
	l.Unlisted = slices.DeleteFunc(slices.Clone(l.Unlisted), func(u manifest.Manifest) bool { return u.UUID == m.UUID })
	l.Unlisted = append(l.Unlisted, m)
	x.listings[source] = l
	return nil
}

func (x *memory) Facts() (map[manifest.FileID]manifest.Facts, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.facts), nil
}

func (x *memory) SaveFacts(id manifest.FileID, f manifest.Facts) error {
	defer x.enter()()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.facts == nil {
		x.facts = make(map[manifest.FileID]manifest.Facts)
	}
	x.facts[id] = f
	return nil
}

// lines is a log that can be searched.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// count is how many lines contain all of the texts.
func (l *lines) count(texts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		has := true
		for _, text := range texts {
			has = has && strings.Contains(line, text)
		}
		if has {
			n++
		}
	}
	return n
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// sourcesOf gives the fakes in order of priority with default options.
func sourcesOf(fakes ...*fake) []SourceOptions {
	var out []SourceOptions
	for _, f := range fakes {
		out = append(out, SourceOptions{Source: f, ServePrivate: f.private})
	}
	return out
}

func newCatalog(t testing.TB, o Options) *Catalog {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// restarted is the catalogue after c: with o, once c has saved what c has found.
func restarted(t testing.TB, c *Catalog, o Options) *Catalog {
	t.Helper()
	c.stop()
	return newCatalog(t, o)
}

// refresh all sources, which must succeed.
func refresh(t testing.TB, c *Catalog) {
	t.Helper()
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// shown are the numbers of the listed images, in order.
func shown(c *Catalog) []int {
	out := []int{}
	for _, m := range c.Current().Images() {
		out = append(out, number(m.UUID))
	}
	return out
}

// number is the inverse of id.
func number(u uuid.UUID) int { return int(u[14])<<8 | int(u[15]) }

// whole is the view of all images.
func whole(l *List) *View {
	v, ok := l.View(manifest.AllChannels)
	if !ok {
		panic("a list without its whole")
	}
	return v
}

func wantShown(t testing.TB, c *Catalog, want ...int) {
	t.Helper()
	if got := shown(c); !slices.Equal(got, want) {
		t.Errorf("listed: %v, want %v", got, want)
	}
}

// entry of id(n), which must be there.
func entry(t testing.TB, c *Catalog, n int) Entry {
	t.Helper()
	e, ok := c.Current().Entry(id(n))
	if !ok {
		t.Fatalf("image %d is not stored", n)
	}
	return e
}

func wantAbsent(t testing.TB, c *Catalog, n int) {
	t.Helper()
	if e, ok := c.Current().Entry(id(n)); ok {
		t.Errorf("image %d is stored, from %s", n, e.Source)
	}
}

// holders are the names of an entry's holders.
func holders(e Entry) string {
	var names []string
	for _, h := range e.Holders {
		names = append(names, h.Source.Name())
	}
	return strings.Join(names, " ")
}

// heapMB is what is alive on the heap.
func heapMB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

package upstreamtest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// chunk is how many bytes are written at once.
const chunk = 32 << 10

// answer is one request being answered.
type answer struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	rec    *Request
	path   string // without the prefix
	fault  Fault
}

// begin does what a fault does before anything is answered; false when there is nothing left to do.
func (a *answer) begin() bool {
	if a.fault.Delay > 0 {
		select {
		case <-time.After(a.fault.Delay):
		case <-a.r.Context().Done():
			return false
		case <-a.server.stopped():
			return false
		}
	}
	if a.fault.Drop {
		panic(http.ErrAbortHandler)
	}
	if a.fault.Status != 0 {
		a.w.Header().Set("Content-Type", "text/html")
		a.whole(a.fault.Status, []byte(a.fault.Body))
		return false
	}
	return true
}

// route finds the answer in the dialect of the server.
func (a *answer) route() {
	first, rest, _ := strings.Cut(strings.Trim(a.path, "/"), "/")
	d := a.server.options.Dialect
	imgapi := d == IMGAPI || d == DSAPID
	dsapi := d == DSAPI || d == DSAPID || d == SmartOSImageServer
	if d == SmartOSImageServer {
		a.w.Header().Set("Server", "restify")
	}
	if a.r.Method != http.MethodGet && a.r.Method != http.MethodHead {
		a.fail(http.StatusMethodNotAllowed, "MethodNotAllowedError", a.r.Method+" is not allowed")
		return
	}
	switch {
	case d == Static && first == "":
		a.list()
	case d == Static:
		a.fileByPath(first, rest)
	case first == "ping" && rest == "":
		a.ping()
	case first == "images" && imgapi && rest == "", first == "datasets" && dsapi && rest == "":
		a.list()
	case first == "images" && imgapi:
		a.image(rest)
	case first == "datasets" && dsapi:
		id, name, isFile := strings.Cut(rest, "/")
		if isFile {
			a.fileByPath(id, name)
		} else {
			a.image(id)
		}
	default:
		a.fail(http.StatusNotFound, "ResourceNotFound", a.path+" does not exist")
	}
}

func (a *answer) ping() {
	reply := map[Dialect]string{
		IMGAPI:             `{"ping":"pong","version":"4.13.0","imgapi":true}`,
		DSAPI:              `{"ping":"pong","version":"1.0.0","dsapi":true}`,
		DSAPID:             `{"ping":"pong","version":"0.7.0","imgapi":true,"dsapi":true}`,
		SmartOSImageServer: `{"ping":"pong"}`,
	}[a.server.options.Dialect]
	a.json(http.StatusOK, []byte(reply))
}

// list answers with the active images: all, or a page.
func (a *answer) list() {
	var images []*image
	for _, m := range a.server.snapshotImages() {
		if m.listed() && a.inChannel(m) {
			images = append(images, m)
		}
	}
	if a.server.options.Dialect == IMGAPI {
		q := a.r.URL.Query()
		if marker := q.Get("marker"); marker != "" {
			from := slices.IndexFunc(images, func(m *image) bool { return m.id == marker })
			if from < 0 {
				a.fail(http.StatusNotFound, "ResourceNotFound", "marker image not found")
				return
			}
			images = images[from:]
		}
		limit, _ := strconv.Atoi(q.Get("limit"))
		if limit = cmp.Or(limit, a.server.options.PageCap); limit > 0 && len(images) > limit {
			images = images[:limit]
		}
	}
	docs := make([][]byte, len(images))
	for i, m := range images {
		docs[i] = m.served(a.r.Host)
	}
	a.json(http.StatusOK, fmt.Appendf(nil, "[%s]", bytes.Join(docs, []byte(","))))
}

// inChannel tells whether the image is in the channel asked for.
func (a *answer) inChannel(m *image) bool {
	want := cmp.Or(a.r.URL.Query().Get("channel"), a.server.options.Channel)
	return a.server.options.Channel == "" || want == "*" || slices.Contains(m.channels, want)
}

// image answers what follows /images/ or, for a manifest, /datasets/.
func (a *answer) image(rest string) {
	id, what, _ := strings.Cut(rest, "/")
	m := a.find(id)
	number, isFile := strings.CutPrefix(what, "file")
	index, _ := strconv.Atoi(number)
	if isFile && number == "" && a.server.options.Dialect != DSAPID {
		index, _ = strconv.Atoi(a.r.URL.Query().Get("index"))
	}
	switch {
	case m == nil || !a.inChannel(m):
		a.fail(http.StatusNotFound, "ResourceNotFound", "image "+id+" not found")
	case what == "":
		a.json(http.StatusOK, m.served(a.r.Host))
	case what == "icon" && m.icon != nil:
		a.file(m.icon, m.iconType, m.added)
	case isFile && index < len(m.files) && (number == "" || a.server.options.Dialect == DSAPID):
		a.file(m.files[index], "application/octet-stream", m.added)
	default:
		a.fail(http.StatusNotFound, "ResourceNotFound", a.path+" does not exist")
	}
}

func (a *answer) find(id string) *image {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	if i := a.server.at(id); i >= 0 {
		return a.server.images[i]
	}
	return nil
}

func (a *answer) fileByPath(id, name string) {
	if m := a.find(id); m != nil {
		for i, data := range m.files {
			if m.path(i) == name {
				a.file(data, "application/octet-stream", m.added)
				return
			}
		}
	}
	a.fail(http.StatusNotFound, "ResourceNotFound", a.path+" does not exist")
}

// fail answers with an error in the manner of the dialect.
func (a *answer) fail(status int, code, message string) {
	var doc []byte
	switch a.server.options.Dialect {
	case SmartOSImageServer:
		doc, _ = json.Marshal(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	case DSAPID:
		doc = []byte(http.StatusText(status)) // labelled as JSON, which it is not
	case Static:
		doc = []byte("<html><body><h1>" + http.StatusText(status) + "</h1></body></html>\n")
	default:
		doc, _ = json.Marshal(map[string]string{"code": code, "message": message})
	}
	a.json(status, doc)
}

// json answers with a document, with a validator when it is a good one.
func (a *answer) json(status int, doc []byte) {
	h := a.w.Header()
	h.Set("Content-Type", "application/json")
	if status == http.StatusOK && a.server.options.Dialect != SmartOSImageServer {
		sum := sha1.Sum(doc)
		tag := strconv.Quote(hex.EncodeToString(sum[:]))
		h.Set("ETag", tag)
		if a.r.Header.Get("If-None-Match") == tag {
			a.head(http.StatusNotModified, -1)
			return
		}
	}
	if a.server.options.Gzip && strings.Contains(a.r.Header.Get("Accept-Encoding"), "gzip") {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write(doc)
		z.Close()
		h.Set("Content-Encoding", "gzip")
		doc = packed.Bytes()
	}
	a.whole(status, doc)
}

// whole sends a body from its start to its end, but for faults.
func (a *answer) whole(status int, body []byte) {
	a.head(status, len(body))
	a.send(body)
}

// file sends a file or a range of it.
func (a *answer) file(data []byte, contentType string, modified time.Time) {
	h := a.w.Header()
	h.Set("Content-Type", contentType)
	ranges := a.server.options.Dialect != SmartOSImageServer && !a.fault.IgnoreRange
	if a.server.options.Dialect != SmartOSImageServer {
		sum := sha1.Sum(data)
		tag := strconv.Quote(hex.EncodeToString(sum[:]))
		h.Set("ETag", tag)
		h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
		if v := a.r.Header.Get("If-Range"); v != "" && v != tag {
			ranges = false
		}
	}
	data = a.fault.spoil(data)
	first, last, ok := parseRange(a.r.Header.Get("Range"), int64(len(data)))
	switch {
	case !ranges || a.r.Header.Get("Range") == "":
		if a.server.options.Dialect != SmartOSImageServer {
			sum := md5.Sum(data)
			h.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum[:]))
		}
		a.head(http.StatusOK, len(data))
	case !ok:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
		a.fail(http.StatusRequestedRangeNotSatisfiable, "InvalidHeader", "range not satisfiable")
		return
	default:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		data = data[first : last+1]
		a.head(http.StatusPartialContent, len(data))
	}
	a.send(data)
}

// parseRange reads "bytes=N-" and "bytes=N-M".
func parseRange(s string, size int64) (first, last int64, ok bool) {
	spec, isBytes := strings.CutPrefix(s, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	if !isBytes || !dash || err != nil || first < 0 || first >= size {
		return 0, 0, false
	}
	last = size - 1
	if n, err := strconv.ParseInt(to, 10, 64); err == nil && n < last {
		last = n
	}
	return first, last, first <= last
}

// spoil gives the file that a faulty server has.
func (f Fault) spoil(data []byte) []byte {
	if f.Grow < 0 {
		data = data[:max(0, len(data)+f.Grow)]
	}
	if f.Grow > 0 {
		data = append(data[:len(data):len(data)], make([]byte, f.Grow)...)
	}
	if f.Corrupt && f.At < int64(len(data)) {
		data = bytes.Clone(data)
		data[f.At] ^= 1
	}
	return data
}

// head sends the head of an answer with a body of that many bytes; -1: without a body.
func (a *answer) head(status, size int) {
	if size >= 0 && !a.fault.Chunked {
		a.w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	a.server.record(a.rec, func(r *Request) { r.Status = status })
	a.w.WriteHeader(status)
}

// send writes a body piece by piece, within a fault's limit, up to where a fault ends it.
func (a *answer) send(body []byte) {
	if a.r.Method == http.MethodHead {
		return
	}
	cut := a.fault.Cut || a.fault.Stall
	if cut {
		body = body[:min(int64(len(body)), a.fault.After)]
	}
	var limit *rate.Limiter
	if r := a.fault.Rate; r > 0 {
		limit = rate.NewLimiter(rate.Limit(r), int(min(max(r/50, 256), chunk)))
	}
	flush := http.NewResponseController(a.w).Flush
	for len(body) > 0 {
		n := min(len(body), chunk)
		if limit != nil {
			n = min(n, limit.Burst())
			if limit.WaitN(a.r.Context(), n) != nil {
				return // the client has left
			}
		}
		n, err := a.w.Write(body[:n])
		a.server.record(a.rec, func(r *Request) {
			if r.Bytes == 0 {
				r.FirstByte = time.Now()
			}
			r.Bytes += int64(n)
		})
		if err != nil {
			return
		}
		body = body[n:]
		if limit != nil || a.fault.Chunked {
			flush()
		}
	}
	if !cut {
		return
	}
	flush()
	if a.fault.Stall {
		select {
		case <-a.r.Context().Done():
		case <-a.server.stopped():
		}
	}
	panic(http.ErrAbortHandler)
}

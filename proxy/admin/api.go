package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"mime"
	"net/http"
	"time"

	"imgmirror/proxy/meaning"
)

const replyBuffer = 64 << 10 // of a reply that is written piece by piece

const (
	apiPrefix = "/api/v1"
	typeJSON  = "application/json"
	typeForm  = "multipart/form-data"
	typeBytes = "application/octet-stream"

	retryAfter = "5" // seconds, of each 429 and 503

	maxBody      = 1 << 20          // of JSON
	bodyTimeout  = 30 * time.Second // that a body of JSON may bring nothing
	replyTimeout = 5 * time.Minute  // in which a reply has to be taken; a list of 100,000 images has 200 MB
)

// route is one operation of the API, with the statuses of its replies; openapi.json has the same
// statuses.
type route struct {
	method, path string
	accepts      string // the type of the request's body; "" = it has none
	most         int64  // bytes of a body of JSON
	statuses     []int
	do           func(w http.ResponseWriter, r *http.Request) error
}

// routes is the API. Each operation can be answered with 401, 403 and 500 as well.
func (s *Server) routes() []route {
	const (
		ok       = http.StatusOK
		accepted = http.StatusAccepted
		bad      = http.StatusBadRequest
		absent   = http.StatusNotFound
		conflict = http.StatusConflict
		large    = http.StatusRequestEntityTooLarge
		media    = http.StatusUnsupportedMediaType
		invalid  = http.StatusUnprocessableEntity
		many     = http.StatusTooManyRequests
		down     = http.StatusServiceUnavailable
	)
	get := func(path string, do func(http.ResponseWriter, *http.Request) error, statuses ...int) route {
		return route{method: http.MethodGet, path: path, statuses: append(statuses, ok), do: do}
	}
	post := func(path string, do func(http.ResponseWriter, *http.Request) error, statuses ...int) route {
		return route{
			method: http.MethodPost, path: path, accepts: typeJSON, most: maxBody, do: do,
			statuses: append(statuses, bad, large, media),
		}
	}
	remove := func(path string, do func(http.ResponseWriter, *http.Request) error, statuses ...int) route {
		return route{method: http.MethodDelete, path: path, statuses: append(statuses, ok), do: do}
	}
	publish := post("/publish", s.publish, ok, conflict, invalid, down)
	publish.accepts = typeForm
	begin := post("/bundle", s.beginImport, ok, conflict, invalid, many, down)
	begin.most = s.heads.limit
	take := route{
		method: http.MethodPut, path: "/bundle/{id}/files/{sha1}", accepts: typeBytes, do: s.takeFile,
		statuses: []int{ok, bad, absent, conflict, media, invalid, down},
	}
	return []route{
		get("/sources", answer(s.sources)),
		post("/sources/check", answer(s.checkSources), ok, absent, invalid),
		post("/sources/refresh", answer(s.refreshSources), accepted, many, down),
		get("/catalog", answer(s.catalog), invalid),
		get("/images", s.images, invalid),
		get("/images/{uuid}", answer(s.image), absent, invalid, down),
		get("/images/{uuid}/nodes", answer(s.imageNodes), invalid),
		get("/nodes", answer(s.listNodes), invalid),
		get("/nodes/{address}", answer(s.getNode), absent, invalid),
		remove("/nodes", answer(s.forgetNodes), invalid, down),
		get("/images/{uuid}/ancestry", answer(s.ancestry), absent, invalid, down),
		get("/cached", s.cached, invalid),
		get("/fills", answer(s.fills)),
		post("/fetch", answer(s.fetch), ok, accepted, absent, invalid, many, down),
		post("/pin", answer(s.pin), ok, absent, invalid, down),
		post("/unpin", answer(s.unpin), ok, absent, invalid, down),
		post("/delete", answer(s.remove), ok, absent, conflict, invalid, down),
		post("/vacuum", answer(s.vacuum), ok, down),
		post("/verify", answer(s.verify), accepted, absent, invalid, many, down),
		publish,
		remove("/published/{uuid}", answer(s.unpublish), absent, conflict, invalid, down),
		post("/install", answer(s.install), ok, accepted, absent, invalid, many, down),
		get("/installed", answer(s.installed), invalid, down),
		post("/bundle/plan", s.planBundle, ok, absent, invalid, down),
		begin,
		take,
		get("/bundle/{id}", answer(s.importing), absent),
		remove("/bundle/{id}", s.endImport, absent),
		get("/files/{sha1}", s.file, http.StatusPartialContent, absent, invalid, down),
		get("/config", answer(s.config)),
		get("/doctor", answer(s.doctor)),
		get("/jobs", answer(s.listJobs)),
		get("/jobs/{id}", answer(s.getJob), absent),
		remove("/jobs/{id}", answer(s.cancelJob), absent),
		get("/events", s.events, absent, invalid, many),
		get("/status", answer(s.status)),
		get("/traffic", answer(s.traffic), invalid),
		get("/history", answer(s.history), invalid),
		get("/openapi.json", s.describe),
	}
}

// route finds the operation, and answers in the API's own form when there is none.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	h, pattern := s.inner.Handler(r)
	if pattern != "" {
		s.inner.ServeHTTP(w, r)
		return
	}
	none := headOnly{header: http.Header{}}
	h.ServeHTTP(&none, r)
	if none.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", none.header.Get("Allow"))
		s.refuse(w, r, refuse(none.status, codeMethodNotAllowed, "%s is not allowed here", shorten(r.Method)))
		return
	}
	s.refuse(w, r, refuse(http.StatusNotFound, meaning.NotFound, "%s does not exist", shorten(r.URL.Path)))
}

// headOnly keeps the head of a reply.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) WriteHeader(status int)      { h.status = status }
func (h *headOnly) Write(p []byte) (int, error) { return len(p), nil }

// handle is what all operations have in common.
func (s *Server) handle(op route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if op.accepts != "" {
			if err := admit(w, r, op); err != nil {
				s.refuse(w, r, err)
				return
			}
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.log.Info("operator's request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
		}
		if err := op.do(w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}

// admit checks a request that has a body, before it is read, and bounds it.
func admit(w http.ResponseWriter, r *http.Request, op route) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != op.accepts {
		return refuse(http.StatusUnsupportedMediaType, codeUnsupportedType, "the body must be %s", op.accepts)
	}
	if op.accepts != typeJSON {
		return nil // bounded where it is read
	}
	if r.ContentLength > op.most {
		return &http.MaxBytesError{Limit: op.most}
	}
	r.Body = &arriving{ReadCloser: http.MaxBytesReader(w, r.Body, op.most), conn: http.NewResponseController(w), within: bodyTimeout}
	return nil
}

// arriving is a body with a time limit for each Read. The use of the bytes may take as long as need be.
type arriving struct {
	io.ReadCloser
	conn   *http.ResponseController
	within time.Duration
	life   context.Context // ends the body, by the caller of cut; nil: the body lasts as long as the request
	begun  bool            // some bytes have come
	until  time.Time       // the body has come by then; zero: no such limit
}

// cut ends a Read that is under way, once life has ended.
func (b *arriving) cut() { _ = b.conn.SetReadDeadline(time.Now()) }

// Read sets deadlines where the listener has them.
func (b *arriving) Read(p []byte) (int, error) {
	deadline := time.Now().Add(b.within)
	if !b.until.IsZero() && b.until.Before(deadline) {
		deadline = b.until
	}
	_ = b.conn.SetReadDeadline(deadline)
	if b.life != nil && b.life.Err() != nil { // cut may have come before the deadline
		return 0, context.Cause(b.life)
	}
	n, err := b.ReadCloser.Read(p)
	b.begun = b.begun || n > 0
	// After the end of the body the server watches for a client that leaves, and would take a deadline
	// for one.
	_ = b.conn.SetReadDeadline(time.Time{})
	return n, err
}

// readJSON reads a body of JSON into v: one value, whose fields v has all. An empty body leaves v
// unchanged.
func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("more than one value")
		}
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return refuse(http.StatusBadRequest, meaning.BadRequest, "the body is not what is expected here: %v", err)
}

// answer makes a route's do of an operation that gives what is told: a *job which has begun, or what
// is told as JSON.
func answer(operation func(*http.Request) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := operation(r)
		if err != nil {
			return err
		}
		if j, ok := v.(*job); ok {
			state := j.snapshot()
			w.Header().Set("Location", apiPrefix+"/jobs/"+state.ID)
			return reply(w, http.StatusAccepted, state)
		}
		return reply(w, http.StatusOK, v)
	}
}

// reply answers with v as JSON.
func reply(w http.ResponseWriter, status int, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head(w, status)
	_, _ = w.Write(append(data, '\n')) // a client that has left needs no answer
	return nil
}

// replyAll answers with a JSON array, an element at a time: there may be 100,000 elements.
func replyAll[T any](w http.ResponseWriter, all iter.Seq[T], encode func(T) ([]byte, error)) error {
	head(w, http.StatusOK)
	out := bufio.NewWriterSize(w, replyBuffer)
	begin := "["
	for v := range all {
		data, err := encode(v)
		if err != nil {
			panic(http.ErrAbortHandler) // half of the reply is on its way: cut it short
		}
		_, _ = out.WriteString(begin) // errors last until Flush
		if _, err := out.Write(data); err != nil {
			return nil // the client has left
		}
		begin = ",\n"
	}
	if begin == "[" {
		_, _ = out.WriteString(begin)
	}
	_, _ = out.WriteString("]\n")
	_ = out.Flush() // a client that has left needs no answer
	return nil
}

// head begins a reply of JSON. Where the listener has deadlines, the client has replyTimeout to take
// the reply.
func head(w http.ResponseWriter, status int) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// refuse answers with an error, and ends the connection if a part of the request's body is unread.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, told := judge(err)
	if r.Body != nil && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter)
	}
	if err := reply(w, status, told); err != nil {
		s.log.Error("an error could not be told", "error", err)
	}
	if status >= http.StatusInternalServerError {
		s.log.Warn("operator's request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
}

// config is GET /config.
func (s *Server) config(*http.Request) (any, error) { return s.o.Config() }

// doctor is GET /doctor.
func (s *Server) doctor(r *http.Request) (any, error) { return s.o.Doctor(r.Context()), nil }

// listJobs is GET /jobs.
func (s *Server) listJobs(*http.Request) (any, error) { return s.jobs.list(), nil }

// getJob is GET /jobs/ID.
func (s *Server) getJob(r *http.Request) (any, error) {
	j, err := s.jobs.get(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return j.snapshot(), nil
}

// cancelJob is DELETE /jobs/ID, which is answered once the job has ended.
func (s *Server) cancelJob(r *http.Request) (any, error) {
	j, err := s.jobs.get(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	j.cancel()
	select {
	case <-j.done:
	case <-r.Context().Done():
	}
	return j.snapshot(), nil
}

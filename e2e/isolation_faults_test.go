package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/upstream/upstreamtest"
)

// askers is how many clients of the ill source there are: twice the slots.
const askers = 16

// pause is between two requests of a client that asks again and again.
const pause = 20 * time.Millisecond

var isolationFaults = []isolationFault{
	{
		name: "files drip", images: illImages("drip", askers, 1<<20),
		begin: func(s *scene) {
			s.ill.Inject(upstreamtest.Fault{Path: "/file", Rate: 1})
			s.askAll()
			s.awaitAsked("/file")
		},
	},
	{
		name: "hangs at connect", images: illImages("connect", askers, 1<<20),
		begin: func(s *scene) {
			s.ill.deaf()
			s.askAll()
		},
	},
	{
		name: "hangs at TLS", images: illImages("tls", askers, 1<<20), tls: true,
		begin: func(s *scene) {
			s.ill.silent()
			s.askAll()
		},
	},
	{
		name: "hangs at the header", images: illImages("header", askers, 1<<20),
		begin: func(s *scene) {
			s.ill.Inject(upstreamtest.Fault{Path: "/file", Delay: time.Hour})
			s.askAll()
			s.awaitAsked("/file")
		},
	},
	{
		name: "hangs in mid-body", images: illImages("body", askers, 1<<20),
		begin: func(s *scene) {
			s.ill.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 1 << 19})
			s.askAll()
			s.awaitAsked("/file")
		},
	},
	{
		name: "endless list",
		begin: func(s *scene) {
			s.ill.answer(endlessList(s.ctx))
			s.refreshAgain()
		},
	},
	{
		name: "JSON bomb",
		begin: func(s *scene) {
			s.ill.answer(bomb())
			s.refreshAgain()
		},
	},
	{
		name: "slow readers", images: illImages("slow", 2000, 10, map[string]any{"description": strings.Repeat("long ", 250)}),
		begin: func(s *scene) {
			for i := range 200 {
				path := "/images?os=smartos"
				if i%2 == 1 {
					path = "/datasets?os=smartos&limit=" + strconv.Itoa(2000+i)
				}
				if conn := s.connect(path); conn != nil {
					s.work.Go(func() {
						<-s.ctx.Done()
						conn.Close()
					})
				}
			}
		},
	},
	{
		name: "quitters", images: illImages("quit", askers, 1<<20),
		begin: func(s *scene) {
			s.ill.Inject(upstreamtest.Fault{Path: "/file", Delay: time.Hour})
			for _, img := range s.ill.images {
				s.again(pause, func(context.Context) {
					if conn := s.connect(filePath(img)); conn != nil {
						conn.Close()
					}
				})
			}
			s.awaitAsked("/file")
		},
	},
	{
		name: "random uuids", images: illImages("random", 1, 10),
		begin: func(s *scene) {
			s.ill.answer(func(_ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/images/") {
					return false
				}
				select {
				case <-r.Context().Done():
				case <-s.ctx.Done():
				}
				return true
			})
			for range 100 {
				s.again(pause, func(ctx context.Context) { s.ask(ctx, "/images/"+uuid.NewString()) })
			}
			s.m.until("the ill source is asked", func() bool { return s.ill.asked.Load() > 0 })
		},
	},
	{
		name: "broken images", images: illImages("broken", 3+coldImages, 16<<10),
		begin: func(s *scene) {
			for _, img := range s.ill.images[:3] {
				s.ill.Inject(upstreamtest.Fault{Path: filePath(img), Status: http.StatusInternalServerError})
				s.again(pause, func(ctx context.Context) { s.ask(ctx, filePath(img)) })
			}
			s.awaitAsked("/file")
		},
		more: []bystander{coldOfIll(3)},
	},
	{
		name: "full quarantine", images: illImages("rotten", 20, 64<<10),
		begin: func(s *scene) {
			for _, img := range s.ill.images {
				get(s.t, s.m.url+filePath(img)).wantFile(s.t, img)
			}
			s.m.awaitStored(1 + isolationSamples + len(s.ill.images))
			s.again(100*time.Millisecond, func(context.Context) {
				for _, img := range s.ill.images {
					sum := img.sha1()
					rot(s.m.data("files", sum[:2], sum))
				}
				s.operate("/verify", "{}")
			})
			s.m.until("the quarantine is full", func() bool { return len(s.m.walk("quarantine")) >= 16 })
		},
	},
}

// illImages are images of the ill source.
func illImages(name string, n, size int, more ...map[string]any) []image {
	images := make([]image, n)
	for i := range images {
		images[i] = newImage(fmt.Sprintf("%s-%04d", name, i), size, more...)
	}
	return images
}

// coldOfIll asks for the good images of the ill source, one after the other.
func coldOfIll(skip int) bystander {
	var next atomic.Int32
	return bystander{"cold image of the same source", func(s *scene, c *http.Client) error {
		img := s.ill.images[skip+int(next.Add(1)-1)]
		return wantBody(c, s.m.url+filePath(img), len(img.file), "")
	}}
}

// askAll has a client for each image of the ill source, which asks again whatever comes.
func (s *scene) askAll() {
	for _, img := range s.ill.images {
		s.again(pause, func(ctx context.Context) { s.ask(ctx, filePath(img)) })
	}
}

// awaitAsked waits until the ill source has been asked for a path that ends so.
func (s *scene) awaitAsked(path string) {
	s.m.until("the ill source is asked", func() bool { return s.ill.Count(path) > 0 })
}

// operate has the mirror do something, as an operator does; a refusal is as good.
func (s *scene) operate(path, body string) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.m.admin+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		panic(err) // a test gave a bad path
	}
	req.Header.Set("Authorization", "Bearer "+s.m.token())
	req.Header.Set("Content-Type", "application/json")
	if resp, err := probe.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// refreshAgain has the mirror ask for all lists again and again, and waits for the first question.
func (s *scene) refreshAgain() {
	s.again(200*time.Millisecond, func(context.Context) { s.operate("/sources/refresh", "{}") })
	s.m.until("a list is asked for", func() bool { return s.ill.asked.Load() > 0 })
}

// endlessList answers each question for the list with images of ever new uuids, at 20 MB/s.
func endlessList(ctx context.Context) func(http.ResponseWriter, *http.Request) bool {
	img := newImage("endless", 10)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/images" {
			return false
		}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		_, err := io.WriteString(w, "[")
		for n := 0; err == nil && ctx.Err() == nil; <-tick.C {
			var piece bytes.Buffer
			for piece.Len() < 100<<10 {
				n++
				piece.Write(bytes.ReplaceAll(img.manifest, []byte(img.uuid), fmt.Appendf(nil, "00000000-0000-4000-8000-%012x", n)))
				piece.WriteByte(',')
			}
			_, err = w.Write(piece.Bytes())
		}
		return true
	}
}

// bomb answers each question for the list with some KB that decompress to 16 MiB of tiny elements.
func bomb() func(http.ResponseWriter, *http.Request) bool {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = io.WriteString(z, "["+strings.Repeat("0,", 8<<20)+"0]") // a buffer takes all
	_ = z.Close()
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/images" {
			return false
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(body.Bytes()) // the mirror may have left
		return true
	}
}

// rot changes a byte of a file.
func rot(path string) {
	file, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if err != nil {
		return // in the quarantine
	}
	defer file.Close()
	_, _ = file.WriteAt([]byte{byte(time.Now().UnixNano())}, 100)
}

// deaf has the port take no connection, and refuse none.
func (s *illSource) deaf() {
	s.t.Helper()
	s.http.Close()
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { syscall.Close(fd) })
	to := &syscall.SockaddrInet4{Port: number}
	copy(to.Addr[:], net.ParseIP(host).To4())
	for _, err := range []error{syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Bind(fd, to), syscall.Listen(fd, 0)} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for { // the queue of connections fills up
		conn, err := net.DialTimeout("tcp", s.addr, 200*time.Millisecond)
		if err != nil {
			return
		}
		s.t.Cleanup(func() { conn.Close() })
	}
}

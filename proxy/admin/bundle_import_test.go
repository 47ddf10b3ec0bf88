package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"imgmirror/cache"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream/upstreamtest"
)

// manifests are the texts of a bundle's manifests.
func (m made) manifests() (all [][]byte) {
	for _, e := range m.Entries() {
		if e.Image >= 0 && e.File < 0 {
			all = append(all, m.volumes[0][e.Data:e.Data+e.Size])
		}
	}
	return all
}

// head is what a client tells of the bundle before the files.
func (m made) head() BundleHead {
	return BundleHead{Index: m.Index.Bytes(), Signature: m.Sig, Manifests: m.manifests(), Volume: 1}
}

// begin begins an import.
func (f *fixture) begin(m made) (report BundleImport) {
	f.t.Helper()
	if f.want(200, "POST", "/bundle", m.head(), &report); report.ID == "" {
		f.t.Fatalf("%+v", report)
	}
	return report
}

// puts is the request that brings bytes of a file.
func puts(id, sum, query string, body io.Reader) *http.Request {
	r := httptest.NewRequest("PUT", apiPrefix+"/bundle/"+id+"/files/"+sum+query, body)
	r.Header.Set("Content-Type", typeBytes)
	return r
}

// sumOf is the sha1 of image n's file.
func sumOf(n int) string { return fmt.Sprintf("%x", sha1.Sum(sampleFile(n))) }

// taken wants that bytes of a file are taken, and that so many of them are here then.
func (f *fixture) taken(id string, n, offset int, body []byte, have int) {
	f.t.Helper()
	var file ImportedFile
	r := puts(id, sumOf(n), fmt.Sprintf("?offset=%d", offset), bytes.NewReader(body))
	if got := f.send(r, &file); got != 200 || file.SHA1 != sumOf(n) || file.Have != int64(have) {
		f.t.Fatalf("file of %d from %d on: status %d: %+v, want %d bytes", n, offset, got, file, have)
	}
}

// notTaken wants a refusal.
func (f *fixture) notTaken(status int, code string, r *http.Request) {
	f.t.Helper()
	var told Error
	if got := f.send(r, &told); got != status || told.Code != code || told.Message == "" {
		f.t.Errorf("%s %s: status %d: %+v; want %d, %s", r.Method, r.URL, got, told, status, code)
	}
}

// ended ends an import.
func (f *fixture) ended(id string) (report BundleImport) {
	f.t.Helper()
	f.want(200, "DELETE", "/bundle/"+id, nil, &report)
	return report
}

// TestImportFiles: a file may come in pieces, and twice; its image is there with its last byte.
func TestImportFiles(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11}.bundle(t, nil, 0)
	begun := f.begin(b)
	f.came(begun, "11 waiting, 12 waiting")
	first, second := sampleFile(11), sampleFile(12)
	f.taken(begun.ID, 11, 0, first[:70_000], 70_000)
	f.taken(begun.ID, 11, 50_000, first[50_000:90_000], 90_000)
	f.taken(begun.ID, 11, 0, first, len(first))
	f.want(200, "GET", "/images/"+id(11), nil, nil)
	f.taken(begun.ID, 11, 0, first, len(first))
	f.taken(begun.ID, 12, 0, second[:10], 10)
	var now BundleImport
	f.want(200, "GET", "/bundle/"+begun.ID, nil, &now)
	f.came(now, "11 added, 12 waiting")
	f.came(f.ended(begun.ID), "11 added, 12 waiting NotComplete")
	f.refused(404, meaning.NotFound, "GET", "/bundle/"+begun.ID, nil)

	begun = f.begin(b)
	f.came(begun, "11 present, 12 waiting")
	if have := begun.Images[1].Have; !slices.Equal(have, []int64{10}) {
		t.Errorf("have %d", have)
	}
	f.taken(begun.ID, 12, 10, second[10:], len(second))
	f.came(f.ended(begun.ID), "11 present, 12 added")
}

// TestImportStrangeFiles: what is wrong with a request for a file changes nothing, and what is
// wrong with the bytes refuses one image.
func TestImportStrangeFiles(t *testing.T) {
	f := newFixture(t)
	other := upstreamtest.Manifest(upstreamtest.ID(14), "image14", "1.0", nil, sampleFile(12))
	if err := f.source.Add(other, sampleFile(12)); err != nil {
		t.Fatal(err)
	}
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	begun := f.begin(shelf{11: 0, 13: 0, 14: 0}.bundle(t, nil, 0))
	f.came(begun, "11 waiting, 13 waiting, 14 refused "+codeImageExists)
	whole := sampleFile(11)
	bytesOf := func(b []byte) io.Reader { return bytes.NewReader(b) }

	f.notTaken(404, meaning.NotFound, puts("x", sumOf(11), "", bytesOf(whole)))
	f.notTaken(404, meaning.NotFound, httptest.NewRequest("DELETE", apiPrefix+"/bundle/x", nil))
	f.notTaken(404, meaning.NotFound, puts(begun.ID, sumOf(12), "", bytesOf(sampleFile(12))))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, "zz", "", bytesOf(whole)))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "?offset=x", bytesOf(whole)))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "?offset=-1", bytesOf(whole)))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "?offset=9223372036854775807", bytesOf(whole)))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "", bytesOf(append(whole, 0))))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "?offset=1", bytesOf(whole)))
	f.notTaken(422, meaning.InvalidParameter, puts(begun.ID, sumOf(11), "?offset=10", bytesOf(whole[10:20]))) // a gap
	f.notTaken(400, meaning.BadRequest, puts(begun.ID, sumOf(11), "", struct{ io.Reader }{bytesOf(whole)}))   // of no length
	f.notTaken(409, codeImageExists, puts(begun.ID, sumOf(14), "", bytesOf(sampleFile(14))))
	r := puts(begun.ID, sumOf(11), "", bytesOf(whole))
	r.Header.Set("Content-Type", "application/x-tar")
	f.notTaken(415, codeUnsupportedType, r)
	short := puts(begun.ID, sumOf(11), "", io.MultiReader(bytesOf(whole[:500])))
	short.ContentLength = int64(len(whole))
	f.notTaken(400, meaning.BadRequest, short)
	f.taken(begun.ID, 11, 500, nil, 500)
	f.taken(begun.ID, 11, 500, whole[500:], len(whole))

	wrong := bytes.Clone(sampleFile(13))
	wrong[7] ^= 1
	for range 2 { // the image stays refused
		f.notTaken(422, codeChecksum, puts(begun.ID, sumOf(13), "", bytesOf(wrong)))
	}
	f.notTaken(422, codeChecksum, puts(begun.ID, sumOf(13), "", bytesOf(sampleFile(13))))
	f.came(f.ended(begun.ID), "11 added, 13 refused "+codeChecksum+", 14 refused "+codeImageExists)
	f.notTaken(404, meaning.NotFound, puts(begun.ID, sumOf(13), "", bytesOf(sampleFile(13))))
	f.notTaken(404, meaning.NotFound, httptest.NewRequest("DELETE", apiPrefix+"/bundle/"+begun.ID, nil))
	if partials := f.store.Partials(); len(partials) != 0 {
		t.Errorf("wrong bytes are kept: %+v", partials)
	}
}

// TestImportStrangeHeads: what does not tell of a bundle takes nothing.
func TestImportStrangeHeads(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11}.bundle(t, nil, 0)
	m := b.manifests()
	post := func(status int, code string, change func(*BundleHead)) {
		t.Helper()
		head := b.head()
		change(&head)
		f.refused(status, code, "POST", "/bundle", head)
		if n := len(f.store.Files()) + len(f.fromBundles()); n != 0 || f.mirror.Kept(upstreamtest.ID(11)) {
			t.Errorf("%d files and images were taken", n)
		}
	}
	manifests := func(texts ...[]byte) func(*BundleHead) { return func(h *BundleHead) { h.Manifests = texts } }
	post(422, codeBundle, func(h *BundleHead) { h.Index = nil })
	post(422, codeBundle, func(h *BundleHead) { h.Index = []byte("{}") })
	post(422, codeBundle, manifests())
	post(422, codeBundle, manifests(m[0]))
	post(422, codeBundle, manifests(m[1], m[0]))
	post(422, codeBundle, manifests(m[0], m[1], m[1]))
	post(422, codeBundle, manifests(m[0], bytes.Replace(m[1], []byte("image12"), []byte("image13"), 1)))
	post(422, meaning.InvalidParameter, func(h *BundleHead) { h.Volume = 2 })
	post(422, meaning.InvalidParameter, func(h *BundleHead) { h.Volume = 0 })
	f.refused(422, codeBundle, "POST", "/bundle", nil)
	f.refused(400, meaning.BadRequest, "POST", "/bundle", []string{"index"})
	r := httptest.NewRequest("POST", apiPrefix+"/bundle", strings.NewReader("{}"))
	r.Header.Set("Content-Type", typeJSON)
	r.ContentLength = maxHead + 1
	f.notTaken(413, codeTooLarge, r)
}

// TestImportStalls: a file that brings nothing for a while is given up, and a mirror that stops
// does not wait for one. What came of the file is kept.
func TestImportStalls(t *testing.T) {
	for _, stops := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m, err := mirror.New(t.Context(), mirror.Options{
				Cache: cache.Options{Dir: t.TempDir(), StallTimeout: time.Hour}, Pools: &fakePools{},
			})
			if err != nil {
				t.Fatal(err)
			}
			b := shelf{11: 0}.bundle(t, nil, 0)
			head := mirror.Bundle{Index: b.Index, Volume: 1, Manifests: b.manifests()}
			in, err := m.BeginImport(t.Context(), head, false)
			if err != nil {
				t.Fatal(err)
			}
			ln := fasthttputil.NewInmemoryListener()
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- New(Options{Mirror: m}).Run(ctx, nil, ln) }()
			conn, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			file := sampleFile(11)
			request := fmt.Sprintf("PUT %s/bundle/%s/files/%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
				apiPrefix, in.Report().ID, sumOf(11), typeBytes, len(file))
			if _, err := conn.Write(append([]byte(request), file[:100_000]...)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			began := time.Now()
			if !stops {
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); resp.StatusCode != 400 || took != uploadStall {
					t.Errorf("status %d after %s, want 400 after %s", resp.StatusCode, took, uploadStall)
				}
				began = time.Now()
			}
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took >= stopTimeout {
				t.Errorf("the stop took %s", took)
			}
			if in, err = m.BeginImport(t.Context(), head, true); err != nil || !slices.Equal(in.Report().Images[0].Have, []int64{100_000}) {
				t.Errorf("%+v, %v", in, err)
			}
			if err := errors.Join(conn.Close(), m.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestImportSignsOfLife: a client asks after its import as long as the import goes on.
func TestImportSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(asking, 10)
		s := &sending{c: &Client{http: &http.Client{Transport: asked}}, told: BundleImport{ID: "some"}}
		stop := s.keepAlive(t.Context())
		time.Sleep(3*aliveEvery + time.Second)
		stop()
		time.Sleep(aliveEvery)
		if len(asked) != 3 {
			t.Errorf("%d signs of life", len(asked))
		}
		if first := <-asked; first != "GET /bundle/some" {
			t.Errorf("a sign of life is %s", first)
		}
	})
}

// asking is requests, which are answered with nothing.
type asking chan string

func (a asking) RoundTrip(r *http.Request) (*http.Response, error) {
	a <- r.Method + " " + r.URL.Path
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
}

package upstreamtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func get(t *testing.T, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestRoutes(t *testing.T) {
	data := Bytes(1, 1000)
	id := ID(1).String()
	for dialect, want := range map[Dialect]map[string]int{
		IMGAPI: {
			"/ping": 200, "/images": 200, "/images/" + id: 200, "/images/" + id + "/file": 200, "/images/" + id + "/file?index=1": 404,
			"/images/" + ID(2).String(): 404, "/datasets": 404, "/images/" + id + "/file0": 404, "/images/" + id + "/icon": 404,
		},
		DSAPI:              {"/ping": 200, "/datasets": 200, "/datasets/" + id: 200, "/datasets/" + id + "/n-1.zfs": 200, "/datasets/" + id + "/file": 404, "/images": 404},
		DSAPID:             {"/ping": 200, "/datasets": 200, "/images": 200, "/images/" + id + "/file0": 200, "/images/" + id + "/file1": 404},
		SmartOSImageServer: {"/ping": 200, "/datasets": 200, "/datasets/" + id + "/n-1.zfs": 200, "/images": 404},
		Static:             {"/": 200, "/" + id + "/n-1.zfs": 200, "/ping": 404, "/images": 404},
	} {
		s := start(t, Options{Dialect: dialect, Prefix: "/p"})
		if err := s.Add(ManifestV1(ID(1), "n", "1", nil, data), data); err != nil {
			t.Fatal(err)
		}
		for path, status := range want {
			resp, _, err := get(t, s.URL()+path)
			if err != nil || resp.StatusCode != status {
				t.Errorf("%s %s: %v, %v, want %d", dialect, path, resp.Status, err, status)
			}
		}
		if s.Count("") != len(want) {
			t.Errorf("%d requests recorded", s.Count(""))
		}
	}
}

func TestAutomaticURL(t *testing.T) {
	s := start(t, Options{Dialect: SmartOSImageServer})
	doc := ManifestV1(ID(1), "n", "1", map[string]any{"files": []any{map[string]any{"path": "f.gz", "url": "-automatic-"}}})
	if err := s.Add(doc, []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, body, err := get(t, s.URL()+"/datasets")
	if want := `"url":"` + s.URL() + "/datasets/" + ID(1).String() + `/f.gz"`; err != nil || !strings.Contains(string(body), want) {
		t.Errorf("%s, %v", body, err)
	}
}

func TestFaults(t *testing.T) {
	data := Bytes(1, 100_000)
	s := start(t, Options{})
	if err := s.Add(Manifest(ID(1), "n", "1", nil, data), data); err != nil {
		t.Fatal(err)
	}
	file := s.URL() + "/images/" + ID(1).String() + "/file"
	s.Inject(Fault{Path: "/file", Skip: 1, Times: 2, Status: 500, Body: "no"})
	for i, want := range []int{200, 500, 500, 200} {
		get(t, s.URL()+"/images") // does not count
		if resp, _, err := get(t, file); err != nil || resp.StatusCode != want {
			t.Errorf("request %d: %v, want %d", i, err, want)
		}
	}
	s.Heal()
	s.Inject(Fault{Path: "/file", Cut: true, After: 10_000, Times: 1})
	if _, body, err := get(t, file); err == nil || !bytes.Equal(body, data[:10_000]) {
		t.Errorf("cut: %d bytes, %v", len(body), err)
	}
	s.Inject(Fault{Drop: true, Times: 1})
	if _, _, err := get(t, file); err == nil {
		t.Error("dropped, and there is an answer")
	}
	resp, body, err := get(t, file, "Range", "bytes=99000-")
	if err != nil || resp.StatusCode != 206 || !bytes.Equal(body, data[99_000:]) || resp.Header.Get("Content-Range") != "bytes 99000-99999/100000" {
		t.Errorf("range: %v, %d bytes", resp, len(body))
	}
	if resp, _, _ := get(t, file, "Range", "bytes=100000-"); resp.StatusCode != 416 {
		t.Errorf("range at the end: %s", resp.Status)
	}
	if resp, _, _ := get(t, file, "Range", "bytes=5-", "If-Range", `"other"`); resp.StatusCode != 200 {
		t.Errorf("If-Range of another file: %s", resp.Status)
	}
	s.Inject(Fault{Chunked: true, Times: 1})
	if resp, body, err := get(t, file); err != nil || resp.ContentLength != -1 || !bytes.Equal(body, data) {
		t.Errorf("chunked: %v, %v", resp, err)
	}
	s.Inject(Fault{Corrupt: true, At: 7, Times: 1})
	if _, body, _ := get(t, file); len(body) != len(data) || body[7] != data[7]^1 {
		t.Error("not corrupt")
	}
	if _, body, _ := get(t, file); !bytes.Equal(body, data) {
		t.Error("the corrupt answer has changed the file")
	}
}

func TestStopEndsStalledAnswers(t *testing.T) {
	data := Bytes(1, 100_000)
	s := start(t, Options{})
	if err := s.Add(Manifest(ID(1), "n", "1", nil, data), data); err != nil {
		t.Fatal(err)
	}
	address := s.URL()
	s.Inject(Fault{Path: "/file", Stall: true, After: 10_000})
	done := make(chan error)
	go func() {
		_, body, err := get(t, address+"/images/"+ID(1).String()+"/file")
		if len(body) != 10_000 {
			err = errors.Join(err, errors.New("another number of bytes"))
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Await(ctx, func(r []Request) bool { return len(r) == 1 && r[0].Bytes == 10_000 }); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if err := <-done; err == nil || strings.Contains(err.Error(), "another") {
		t.Errorf("the client sees %v", err)
	}
	if r := s.Requests()[0]; !r.Done || r.Status != 200 || r.FirstByte.IsZero() {
		t.Errorf("record %+v", r)
	}
	if _, _, err := get(t, address+"/ping"); err == nil {
		t.Error("a stopped server answers")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if resp, _, err := get(t, address+"/ping"); err != nil || resp.StatusCode != 200 {
		t.Errorf("started again at the same address: %v", err)
	}
}

func TestRate(t *testing.T) {
	data := Bytes(1, 200_000)
	s := start(t, Options{})
	s.Inject(Fault{Path: "/file", Rate: 1_000_000})
	if err := s.Add(Manifest(ID(1), "n", "1", nil, data), data); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, body, err := get(t, s.URL()+"/images/"+ID(1).String()+"/file"); err != nil || !bytes.Equal(body, data) {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 170*time.Millisecond {
		t.Errorf("200 kB at 1 MB/s took %s", took)
	}
}

func TestBytesAreTheSameEachTime(t *testing.T) {
	if !bytes.Equal(Bytes(3, 100), Bytes(3, 1000)[:100]) || bytes.Equal(Bytes(3, 100), Bytes(4, 100)) {
		t.Error("they are not, or do not depend on the seed")
	}
	if ID(1) == ID(257) || ID(5) == ID(6) {
		t.Error("uuids")
	}
}

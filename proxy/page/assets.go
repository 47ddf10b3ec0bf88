package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed static
var staticFiles embed.FS

// asset is a file of the folder static. The name that pages use for the asset has a part of the sum of
// its bytes, so that browsers may keep the asset for good.
type asset struct {
	name string // page.0a1b2c3d.css
	kind string
	data []byte
}

// assets are all assets, by their names in the folder and by the names that pages use.
var assets = sync.OnceValue(func() (all struct{ plain, served map[string]*asset }) {
	all.plain, all.served = make(map[string]*asset), make(map[string]*asset)
	files, err := fs.Glob(staticFiles, "static/*")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	for _, file := range files {
		data, err := staticFiles.ReadFile(file)
		if err != nil {
			panic(err) // it is in the binary
		}
		sum := sha256.Sum256(data)
		plain := path.Base(file)
		ext := path.Ext(plain)
		a := &asset{
			name: strings.TrimSuffix(plain, ext) + "." + hex.EncodeToString(sum[:4]) + ext,
			kind: kinds[ext], data: data,
		}
		if a.kind == "" {
			a.kind = mime.TypeByExtension(ext)
		}
		all.plain[plain], all.served[a.name] = a, a
	}
	return all
})

// kinds are the types of assets, whatever the machine's tables say.
var kinds = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// assetPath is the path by which a page names the file plain of the folder static.
func assetPath(plain string) (string, error) {
	a := assets().plain[plain]
	if a == nil {
		return "", fmt.Errorf("there is no file %q in static", plain)
	}
	return root + "static/" + a.name, nil
}

// serveAsset is GET /ui/static/{file}.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	a := assets().served[r.PathValue("file")]
	if a == nil {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+a.name+`"`)
	if r.Header.Get("If-None-Match") == h.Get("ETag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(a.data)))
	deadline(w)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.data) // a client that has left needs no answer
	}
}

package proxy

import (
	"context"
	"fmt"
	"strings"

	"imgmirror/cache"
	"imgmirror/proxy/via"
)

// getIcon answers GET /images/:uuid/icon. Icons are small, and clients insist on an icon's md5
// (spec 6.1): the reply begins when the whole icon is on disk and verified.
func (s *Server) getIcon(req *request) error {
	e, err := s.visibleImage(req)
	if err != nil {
		return err
	}
	m := e.Manifest
	absent := fmt.Sprintf("image %s has no icon", m.UUID)
	if !m.Icon {
		return notFound("%s", absent)
	}
	info, stored := s.files.StoredIcon(e)
	if req.ctx.IsHead() && !stored {
		// The reply goes without size and sums, which need the icon's bytes.
		req.fileHeaders(validators{modified: m.Published}, cache.Miss)
		return nil
	}
	result := cache.Hit
	var reader *cache.Reader
	if !req.ctx.IsHead() {
		reader, err = s.open(via.With(s.base, req.via), req, true, absent, func(ctx context.Context) (*cache.Reader, error) {
			return s.files.OpenIcon(ctx, e, req.reader())
		})
		if err != nil {
			return err
		}
		result, info = reader.Result(), reader.Info()
	}
	v := validators{etag: info.Digests.SHA1.String(), modified: modified(info, m)}
	if done, err := req.condition(v); done {
		if reader != nil {
			reader.Close()
		}
		return err
	}
	req.fileHeaders(v, result)
	req.setKey(hdrContentType, iconType(info.ContentType))
	req.setMD5(info.Digests.MD5[:])
	if req.ctx.IsHead() {
		req.ctx.Response.Header.SetContentLength(int(info.Digests.Size))
		return nil
	}
	size := reader.Size()
	req.ctx.Response.SetBodyStream(&fileBody{server: s, conn: req.ctx.Conn(), reader: reader, left: size, record: req.record}, int(size))
	return nil
}

// iconType is the source's type for an icon if the type is a picture's, else typeOctetStream
// (spec 0): a page or a script would run in the mirror's name.
func iconType(claimed string) []byte {
	kind, _, _ := strings.Cut(claimed, ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
	case "image/png", "image/jpeg", "image/gif":
		return []byte(kind)
	}
	return typeOctetStream
}

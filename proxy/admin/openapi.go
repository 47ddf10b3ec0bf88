package admin

import (
	_ "embed"
	"net/http"
)

// description is the API in OpenAPI 3. A test holds it against the routes and
// against the Go types of wire.go.
//
//go:embed openapi.json
var description []byte

// describe is GET /openapi.json.
func (s *Server) describe(w http.ResponseWriter, _ *http.Request) error {
	head(w, http.StatusOK)
	_, _ = w.Write(description) // a client that is gone needs no answer
	return nil
}

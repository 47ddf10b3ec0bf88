package proxy

import (
	"strings"

	"imgmirror/proxy/meaning"
)

// pong is the body of GET /ping. imgadm refuses a source without "imgapi".
func pong(version string) []byte {
	return encode(struct {
		Ping    string `json:"ping"`
		Version string `json:"version"`
		IMGAPI  bool   `json:"imgapi"`
		DSAPI   bool   `json:"dsapi"`
	}{"pong", version, true, true})
}

// samples are the errors that GET /ping?error=NAME simulates (spec 2.3).
var samples = map[string]apiError{
	"ValidationFailedError":       {status: 422, code: codeValidationFailed, message: "boom", fields: []fieldError{}},
	"InvalidParameterError":       {status: 422, code: meaning.InvalidParameter, message: "boom", fields: []fieldError{}},
	"ImageFilesImmutableError":    {status: 422, code: "ImageFilesImmutable", message: "boom"},
	"ImageAlreadyActivatedError":  {status: 422, code: "ImageAlreadyActivated", message: "boom"},
	"NoActivationNoFileError":     {status: 422, code: "NoActivationNoFile", message: "boom"},
	"OperatorOnlyError":           {status: 403, code: "OperatorOnly", message: "boom"},
	"ImageUuidAlreadyExistsError": {status: 409, code: "ImageUuidAlreadyExists", message: "boom"},
	"StorageIsDownError":          {status: 503, code: meaning.StorageIsDown, message: "boom"},
	"StorageUnsupportedError":     {status: 503, code: "StorageUnsupported", message: "boom"},
	"RemoteSourceError":           {status: 503, code: meaning.RemoteSource, message: "boom"},
	"InternalError":               {status: 500, code: meaning.Internal, message: "boom"},
}

// unsampled are the codes of spec 2.8 without a sample.
var unsampled = map[string]bool{
	"InvalidVersionError": true, "BadRequestError": true, "InvalidHeaderError": true,
	"UploadError": true, "DownloadError": true, "NotImplementedError": true, "ImageFileTooBigError": true,
	"UnauthorizedError": true, "ResourceNotFoundError": true, "MethodNotAllowedError": true,
	"PreconditionFailedError": true, "OwnerDoesNotExistError": true, "AccountDoesNotExistError": true,
	"NotImageOwnerError": true, "ImageNotSharedError": true, "NotMantaPathOwnerError": true,
	"OriginDoesNotExistError": true, "OriginIsNotActiveError": true, "InsufficientServerVersionError": true,
	"ImageHasDependentImagesError": true, "NotAvailableError": true, "ServiceUnavailableError": true,
}

// ping answers GET /ping for this server alone: the sources play no part.
func (s *Server) ping(req *request) error {
	if req.query != "" {
		if name, ok := param(parseParams(req.query), "error"); ok {
			return sampleError(name)
		}
	}
	s.json(req, s.pong)
	return nil
}

// sampleError is the error reply that a client asks for by name.
func sampleError(name string) error {
	full := name
	switch {
	case name == "":
		full = meaning.Internal
	case !strings.HasSuffix(name, "Error"):
		full += "Error"
	}
	if e, ok := samples[full]; ok {
		return &e
	}
	if unsampled[full] {
		return &apiError{status: 500, code: meaning.Internal, message: "there is no sample of " + full}
	}
	return &apiError{
		status: 422, code: meaning.InvalidParameter, message: "there is no error " + full,
		fields: []fieldError{{Field: "error", Code: "Missing"}},
	}
}

// state answers GET /state, an operator's call on the reference server (spec A16).
func (s *Server) state(*request) error {
	return unauthorized("this needs an operator's credentials")
}

// readyz answers GET /readyz, for load balancers.
func (s *Server) readyz(req *request) error {
	req.setKey(hdrContentType, typeText)
	if !s.Ready() {
		req.ctx.SetStatusCode(503)
		req.ctx.Response.SetBodyRaw(textNotReady)
		return nil
	}
	req.ctx.Response.SetBodyRaw(textReady)
	return nil
}

// The bodies of /readyz.
var (
	textReady    = []byte("ready\n")
	textNotReady = []byte("not ready\n")
)

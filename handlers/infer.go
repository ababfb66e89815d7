package handlers

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/providers"
	"sluice/streaming"
)

// inferHeaderLength is how a caller of the KServe v2 protocol says how much of its body
// is JSON (the binary tensor data extension). It goes on as a parameter of the body's
// type, since it describes how the body is made.
const inferHeaderLength = "Inference-Header-Content-Length"

// inferTypes are the bodies that the infer path takes: tensors in three forms, and
// images.
var inferTypes = map[string]bool{
	"application/json": true, "application/octet-stream": true,
	"application/x-protobuf": true, "application/protobuf": true, "application/vnd.google.protobuf": true,
	"image/jpeg": true, "image/jpg": true, "image/png": true, "image/webp": true,
}

// infer serves POST /models/{model}/infer. The id of a model may hold slashes, escaped
// or not. The upstream reads the body; nothing of it is looked at here.
func (s *Server) infer(c echo.Context) error {
	start := time.Now()
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err != nil {
		return err
	}
	if !s.opt.Drain.Enter() {
		return streaming.ErrDraining
	}
	defer s.opt.Drain.Leave()
	req, err := s.parseInfer(c)
	if err != nil {
		return err
	}
	if err := s.permitted(&who, req, transport(req)); err != nil {
		return err
	}
	if err := s.route(c, req, &who); err != nil {
		return err
	}
	out := s.sink(c, req)
	defer func() { c.Response().Committed = c.Response().Committed || out.Started() }()
	err = s.answer(c.Request().Context(), &call{req: req, who: who, remote: c.RealIP(), transport: transport(req), header: c.Response().Header()}, out, streaming.NewProgress(start))
	switch {
	case !out.Started():
		c.Set(toldKey, true)
		return err
	case err != nil: // a body that cannot be finished must not look finished
		s.logPanic(req.ID, err)
		panic(http.ErrAbortHandler)
	default:
		return nil
	}
}

// parseInfer reads the body whole, within its bounds.
func (s *Server) parseInfer(c echo.Context) (*providers.Request, error) {
	path := c.Request().URL.EscapedPath()
	escaped, ok := strings.CutSuffix(path[strings.Index(path, "/models/")+len("/models/"):], "/infer")
	if !ok {
		return nil, echo.ErrMethodNotAllowed
	}
	model, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, providers.Invalid("model", "The model id in the path is not well escaped.")
	}
	if model == "" || len(model) > maxInferModel {
		return nil, providers.Invalid("model", "The path must name a model: POST /v1/models/{model}/infer. GET /v1/models lists the models that can be used.")
	}
	kind, err := inferType(c.Request().Header)
	if err != nil {
		return nil, err
	}
	body, err := s.readBody(c, s.bodyLimit(providers.Passthrough))
	if err != nil {
		return nil, err
	}
	return &providers.Request{
		ID: requestID(c), Op: providers.Passthrough, Path: "/models/" + url.PathEscape(model) + "/infer",
		ContentType: kind, Body: body, Model: model, Choices: 1,
	}, nil
}

// maxInferModel bounds a model's name in bytes, as for the other routes.
const maxInferModel = 256

// inferType is the type of a body, with the length of its JSON where the caller said one.
func inferType(h http.Header) (string, error) {
	given := h.Get("Content-Type")
	if given == "" {
		given = "application/json"
	}
	mediaType, _, err := mime.ParseMediaType(given)
	if err != nil || !inferTypes[mediaType] {
		return "", &providers.Error{Kind: providers.UnsupportedMedia, Message: "The Content-Type " + given + " is not supported here. " +
			"Send application/json, application/octet-stream, application/x-protobuf, image/jpeg, image/png or image/webp."}
	}
	length := h.Get(inferHeaderLength)
	if length == "" {
		return mediaType, nil
	}
	if strings.TrimLeft(length, "0123456789") != "" || len(length) > 18 {
		return "", providers.Invalid("", inferHeaderLength+" must be a number of bytes.")
	}
	if mediaType == "application/json" {
		mediaType = "application/octet-stream" // JSON with tensors behind it, whatever it is called
	}
	return mime.FormatMediaType(mediaType, map[string]string{strings.ToLower(inferHeaderLength): length}), nil
}

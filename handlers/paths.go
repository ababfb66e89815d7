package handlers

import (
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"sluice/providers"
)

// Prefix is a path below which the operations of one model are, such as
// /api/model/NAME/chat/completions.
type Prefix struct {
	// Before stands before the name of the model, and After behind it. Before begins and ends
	// with a slash; After begins with one and ends with none, or is "".
	Before, After string
	// Model is the one that is meant when the path names none; "" means that it names one.
	Model string
}

// pathForms are the operations that take the model from the path.
var pathForms = []struct {
	path string
	op   providers.Op
}{
	{"/chat/completions", providers.Chat},
	{"/completions", providers.Completions},
	{"/embeddings", providers.Embeddings},
	{"/moderations", providers.Moderations},
	{"/responses", providers.Responses},
}

// onModel serves POST /models/{model}/chat/completions and its like. The id of a model may
// hold slashes, escaped or not.
func (s *Server) onModel(c echo.Context) error {
	path := c.Request().URL.EscapedPath()
	path = path[strings.Index(path, "/models/")+len("/models/"):]
	for _, f := range pathForms {
		if escaped, ok := strings.CutSuffix(path, f.path); ok {
			return s.named(c, f.op, f.path, escaped)
		}
	}
	return s.infer(c)
}

// named serves an operation of the model that the path names.
func (s *Server) named(c echo.Context, op providers.Op, path, escaped string) error {
	model, err := url.PathUnescape(escaped)
	if err != nil {
		return providers.Invalid("model", "The model id in the path is not well escaped.")
	}
	if model == "" {
		return providers.Invalid("model", "The path must name a model. GET /v1/models lists the models that can be used.")
	}
	return s.relayFor(op, path, model)(c)
}

// below serves what stands below a prefix, with a version of the API between or without.
func (s *Server) below(p Prefix) echo.HandlerFunc {
	return func(c echo.Context) error {
		path := c.Request().URL.EscapedPath()
		rest, ok := strings.CutPrefix(path, p.Before)
		for _, f := range pathForms {
			name, is := strings.CutSuffix("/"+rest, f.path)
			if !ok || !is {
				continue
			}
			name = strings.TrimSuffix(name, "/v1")
			if p.Model != "" && name == "" {
				return s.relayFor(f.op, f.path, p.Model)(c)
			}
			name, is = strings.CutSuffix(name, p.After)
			if p.Model != "" || !is || name == "" {
				continue
			}
			return s.named(c, f.op, f.path, name[1:])
		}
		return echo.ErrNotFound
	}
}

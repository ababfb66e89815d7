package handlers

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// models lists what can be asked for.
func (s *Server) models(c echo.Context) error {
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err != nil {
		return err
	}
	body := []byte(`{"object":"list","data":[`)
	first := true
	for _, m := range s.opt.Catalog.Models(c.Request().Context()) {
		if !who.AllowsModel(m.ID) {
			continue
		}
		if !first {
			body = append(body, ',')
		}
		body, first = appendModel(body, &m), false
	}
	return c.JSONBlob(http.StatusOK, append(body, "]}\n"...))
}

// model answers for one id, which may hold slashes, escaped or not.
func (s *Server) model(c echo.Context) error {
	who, err := s.opt.Auth.Authenticate(c.Request().Header)
	if err != nil {
		return err
	}
	path := c.Request().URL.EscapedPath()
	id, err := url.PathUnescape(path[strings.Index(path, "/models/")+len("/models/"):])
	if err != nil {
		return providers.Invalid("model", "The model id in the path is not well escaped.")
	}
	if !s.allows(&who, id) {
		return noSuchModel(id)
	}
	for _, m := range s.opt.Catalog.Models(c.Request().Context()) {
		if m.ID == id {
			return c.JSONBlob(http.StatusOK, append(appendModel(nil, &m), '\n'))
		}
	}
	if s.opt.Catalog.Has(c.Request().Context(), id) {
		m := providers.Model{ID: id, OwnedBy: "sluice", Capabilities: s.opt.Catalog.Capabilities(c.Request().Context(), id)}
		return c.JSONBlob(http.StatusOK, append(appendModel(nil, &m), '\n'))
	}
	return noSuchModel(id)
}

func noSuchModel(id string) error {
	return &providers.Error{Kind: providers.ModelNotFound, Param: "model", Message: "The model " + strconv.Quote(id) + " does not exist. GET /v1/models lists the models that can be used."}
}

// appendModel writes an entry with OpenAI's four members, whatever the upstream
// left out, and what the model is known to do, and keeps what else the upstream said.
func appendModel(dst []byte, m *providers.Model) []byte {
	dst = append(dst, `{"id":`...)
	dst = jsonscan.AppendQuote(dst, m.ID)
	dst = append(dst, `,"object":"model","created":`...)
	dst = strconv.AppendInt(dst, m.Created, 10)
	dst = append(dst, `,"owned_by":`...)
	dst = jsonscan.AppendQuote(dst, m.OwnedBy)
	known := m.Capabilities.AppendJSON(nil)
	if known != nil {
		dst = append(append(dst, `,"capabilities":`...), known...)
	}
	if len(m.Raw) > 0 && m.Raw[0] == '{' {
		dst = appendOthers(dst, m.Raw, known != nil)
	}
	return append(dst, '}')
}

// appendOthers adds the members of an entry that OpenAI does not define. The upstream's own
// word for what the model can do has one form with each maker, and yields to ours.
func appendOthers(dst, raw []byte, known bool) []byte {
	c := jsonscan.Cursor{B: raw}
	for c.Object(); c.Key(); {
		name := string(c.Name)
		v := c.Skip()
		switch {
		case name == "id", name == "object", name == "created", name == "owned_by", name == "capabilities" && known:
		default:
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = append(dst, v.Of(raw)...)
		}
	}
	return dst
}

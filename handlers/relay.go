package handlers

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"sluice/handlers/dialect"
	"sluice/providers"
	"sluice/streaming"
)

// sink is a streaming.Sink for one HTTP response.
type sink interface {
	streaming.Sink
	Started() bool
}

// relay is the handler of every route that asks an upstream: who, what, answer.
func (s *Server) relay(op providers.Op, path string) echo.HandlerFunc {
	return s.relayFor(op, path, "")
}

// relayFor is relay for a model that stands in the path; "" is none.
func (s *Server) relayFor(op providers.Op, path, model string) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		who, err := s.opt.Auth.Authenticate(c.Request().Header)
		if err != nil {
			return err
		}
		if !s.opt.Drain.Enter() {
			return streaming.ErrDraining
		}
		defer s.opt.Drain.Leave()
		req, err := s.parse(c, op, path, model)
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
		if !out.Started() {
			c.Set(toldKey, true)
			return err
		}
		s.logPanic(req.ID, err)
		if _, body := out.(*streaming.Body); body && err != nil {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
}

// transport names how an answer to a POST travels, for metrics and logs.
func transport(req *providers.Request) string {
	if req.Stream {
		return "sse"
	}
	return "http"
}

// sink picks how the answer is written: as events, or as one body.
func (s *Server) sink(c echo.Context, req *providers.Request) sink {
	w, r := c.Response().Writer, c.Request()
	if !req.Stream || req.Op == providers.Passthrough {
		return streaming.NewBody(w, r.ProtoMajor, dialect.NewWhole(req.Op, dialectOptions(req)), s.opt.WriteLimit)
	}
	var conn *streaming.Conn
	if r.ProtoAtLeast(1, 1) && r.ProtoMajor == 1 {
		conn = streaming.ConnOf(r.Context())
	}
	return streaming.NewSSE(w, r.ProtoMajor, encoder(req, streaming.SSEFraming), s.opt.WriteLimit, conn)
}

func dialectOptions(req *providers.Request) dialect.Options {
	return dialect.Options{ID: req.ID, Created: time.Now().Unix(), Model: req.Model, WantsUsage: req.WantsUsage, Choices: req.Choices, Error: errorObject}
}

// encoder writes a stream in the dialect of its route.
func encoder(req *providers.Request, f streaming.Framing) streaming.Encoder {
	switch req.Op {
	case providers.Completions:
		return dialect.NewCompletions(f, dialectOptions(req))
	case providers.Responses:
		return dialect.NewResponses(f, dialectOptions(req))
	default:
		return dialect.NewChat(f, dialectOptions(req))
	}
}

// parse reads the body whole, within its bounds, before anything is dialled.
func (s *Server) parse(c echo.Context, op providers.Op, path, model string) (*providers.Request, error) {
	kind, err := bodyType(c.Request().Header.Get("Content-Type"), op)
	if err != nil {
		return nil, err
	}
	body, err := s.readRequest(c, op, kind)
	if err != nil {
		return nil, err
	}
	return s.parseBody(op, path, model, kind, body, requestID(c))
}

// parseBody is what a body must pass, whichever way it came.
func (s *Server) parseBody(op providers.Op, path, model, kind string, body []byte, id string) (*providers.Request, error) {
	if int64(len(body)) > s.opt.Body && kind == "application/json" && !hasImages(body) {
		return nil, tooLarge(s.opt.Body)
	}
	req, err := providers.ParseFor(model, op, path, kind, body, s.opt.Depth)
	if err != nil {
		return nil, err
	}
	req.ID = id
	return req, nil
}

// bodyType checks that the route takes bodies of the type that was declared.
func bodyType(header string, op providers.Op) (string, error) {
	kind, _, err := mime.ParseMediaType(header)
	switch {
	case header == "" || kind == "application/json":
		return "application/json", nil
	case err == nil && kind == "multipart/form-data" && op == providers.Passthrough:
		return header, nil
	default:
		return "", &providers.Error{Kind: providers.UnsupportedMedia, Message: "The Content-Type " + header + " is not supported here. Send Content-Type: application/json."}
	}
}

func hasImages(body []byte) bool {
	return bytes.Contains(body, []byte(`"image_url"`)) || bytes.Contains(body, []byte(`"input_image"`))
}

func tooLarge(limit int64) error {
	return &providers.Error{Kind: providers.TooLarge, Message: "The request body is larger than the limit of " + byteCount(limit) + "."}
}

// bodyLimit is larger where a body may hold images or files.
func (s *Server) bodyLimit(op providers.Op) int64 {
	switch op {
	case providers.Chat, providers.Responses, providers.Passthrough:
		return max(s.opt.Body, s.opt.BodyVision)
	default:
		return s.opt.Body
	}
}

func (s *Server) readBody(c echo.Context, limit int64) ([]byte, error) {
	r := c.Request()
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body, err := readAll(http.MaxBytesReader(c.Response().Writer, r.Body, limit), r.ContentLength)
	if err != nil {
		return nil, unread(err, limit)
	}
	return body, nil
}

// readAll reads a body whose length may be known, without growing for it.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	return body[:n], err
}

package handlers

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// readRequest reads the body of a request. Only one that may be about images is read
// beyond the common limit: what has come until there shows whether it has some, and,
// where the model stands in front of the messages, whether that model sees.
func (s *Server) readRequest(c echo.Context, op providers.Op, kind string) ([]byte, error) {
	r, large := c.Request(), s.bodyLimit(op)
	if kind != "application/json" || large <= s.opt.Body || r.ContentLength >= 0 && r.ContentLength <= s.opt.Body {
		return s.readBody(c, large)
	}
	if r.ContentLength > large {
		return nil, tooLarge(large)
	}
	src := http.MaxBytesReader(c.Response().Writer, r.Body, large)
	body, err := readAll(io.LimitReader(src, s.opt.Body+1), min(r.ContentLength, s.opt.Body+1))
	if err == nil && int64(len(body)) > s.opt.Body {
		if !s.mayHoldImages(c, body) {
			return nil, tooLarge(s.opt.Body)
		}
		body, err = readOn(src, body, r.ContentLength)
	}
	if err != nil {
		return nil, unread(err, large)
	}
	return body, nil
}

// readOn reads what is left of a body whose length may be known.
func readOn(src io.Reader, body []byte, length int64) ([]byte, error) {
	if length < 0 {
		rest, err := io.ReadAll(src)
		return append(body, rest...), err
	}
	at := len(body)
	body = slices.Grow(body, int(length)-at)[:length]
	_, err := io.ReadFull(src, body[at:])
	return body, err
}

// mayHoldImages judges the first part of a body.
func (s *Server) mayHoldImages(c echo.Context, head []byte) bool {
	if !hasImages(head) {
		return false
	}
	model := modelIn(head)
	return model == "" || !s.opt.Catalog.Capabilities(c.Request().Context(), model).No.Has(providers.Vision)
}

// modelIn finds the model in the first part of a body; "" when it does not stand there.
func modelIn(head []byte) (model string) {
	c := jsonscan.Cursor{B: head, Limit: 1 << 20}
	for c.Object(); c.Key(); {
		is := string(c.Name) == "model"
		if v := c.Skip(); is && !c.Bad {
			model, _ = jsonscan.Unquote(v.Of(head))
			return model
		}
	}
	return ""
}

// unread is the error of a body that did not come whole.
func unread(err error, limit int64) error {
	if big := new(http.MaxBytesError); errors.As(err, &big) {
		return tooLarge(limit)
	}
	return &providers.Error{Kind: providers.BadRequest, Message: "The request body could not be read to its end.", Err: err}
}

// byteCount writes a limit as people set it.
func byteCount(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

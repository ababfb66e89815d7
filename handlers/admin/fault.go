package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"
)

// fault is an error that the caller is told, in OpenAI's envelope.
type fault struct {
	status     int
	code       string
	param      string // what of the request is wrong
	message    string
	retryAfter time.Duration
}

func (f *fault) Error() string { return f.message }

// badField is a 400 that names what is wrong: a member of the body by its path, or a
// parameter of the query.
func badField(param, format string, args ...any) error {
	return &fault{status: http.StatusBadRequest, code: "invalid_value", param: param, message: fmt.Sprintf(format, args...)}
}

func unauthorized(message string) error {
	return &fault{status: http.StatusUnauthorized, code: "not_signed_in", message: message}
}

func forbidden(format string, args ...any) error {
	return &fault{status: http.StatusForbidden, code: "forbidden", message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &fault{status: http.StatusNotFound, code: "not_found", message: fmt.Sprintf(format, args...)}
}

// conflict is an edit of something that was edited meanwhile.
func conflict(format string, args ...any) error {
	return &fault{status: http.StatusConflict, code: "conflict", message: fmt.Sprintf(format, args...)}
}

// unavailable is a part of the gateway that cannot be reached now.
func unavailable(format string, args ...any) error {
	return &fault{status: http.StatusServiceUnavailable, code: "unavailable", message: fmt.Sprintf(format, args...), retryAfter: time.Second}
}

const internalCode = "internal_error"

// faultOf is what the caller is told of an error.
func faultOf(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	if f, ok := signFault(err); ok {
		return f
	}
	return &fault{status: http.StatusInternalServerError, code: internalCode, message: "The gateway met an internal fault, which its log tells."}
}

type envelope struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// answer sends what the route made of the request.
func (s *server) answer(c *call, err error) {
	if c.sent && err == nil {
		return
	}
	if c.sent { // the rest of the body is missing: the connection says so
		s.opt.Log.Error("an answer of the admin API ended early", slog.String("path", c.r.URL.Path), slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		s.refuse(c, err)
	}
	h := c.w.Header()
	if c.kind != "" {
		h.Set("Content-Type", c.kind)
		h.Set("Content-Length", strconv.Itoa(len(c.body)))
	}
	c.w.WriteHeader(c.status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(c.body)
	}
}

// refuse turns an error into the answer.
func (s *server) refuse(c *call, err error) {
	f := faultOf(err)
	if f.code == internalCode {
		s.opt.Log.Error("the admin API failed", slog.String("method", c.r.Method), slog.String("path", c.r.URL.Path), slog.Any("error", err))
	}
	body := errorBody{Message: f.message, Type: "invalid_request_error", Code: f.code}
	if f.param != "" {
		body.Param = &f.param
	}
	if f.status >= http.StatusInternalServerError {
		body.Type = "server_error"
	}
	if f.status == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if f.retryAfter > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
	}
	c.w.Header().Del("ETag")
	text, _ := json.Marshal(envelope{body}) // strings only
	c.status, c.kind, c.body = f.status, "application/json", append(text, '\n')
}

package wall

import (
	"fmt"
	"net/http"
	"strconv"
)

// fault is what an error says.
type fault struct {
	message, typ string
	param, code  string // "" is null
	status       int
}

// faultOf fills the script's words into the usual ones of a status.
func (s *Script) faultOf(status int) fault {
	f := usual(status)
	for _, w := range []struct {
		from string
		to   *string
	}{{s.ErrMessage, &f.message}, {s.ErrType, &f.typ}, {s.ErrParam, &f.param}, {s.ErrCode, &f.code}} {
		if w.from != "" {
			*w.to = w.from
		}
	}
	return f
}

func usual(status int) fault {
	f := fault{status: status, typ: "invalid_request_error", message: "wall: " + http.StatusText(status)}
	switch {
	case status == http.StatusUnauthorized:
		f.code = "invalid_api_key"
	case status == http.StatusForbidden:
		f.typ = "insufficient_permissions"
	case status == http.StatusNotFound:
		f.code, f.param, f.message = "model_not_found", "model", "The model does not exist or you do not have access to it."
	case status == http.StatusTooManyRequests:
		f.typ, f.code, f.message = "requests", "rate_limit_exceeded", "Rate limit reached for requests"
	case status == http.StatusServiceUnavailable:
		f.typ, f.code, f.message = "service_unavailable_error", "server_is_overloaded", "The server is overloaded"
	case status >= 500:
		f.typ, f.message = "server_error", "The server had an error while processing your request"
	}
	return f
}

func nullable(s string) string {
	if s == "" {
		return "null"
	}
	return quote(s)
}

// object is the value of "error" as OpenAI has it; with keys in that order and no blanks.
func (f fault) object() string {
	return `{"message":` + quote(f.message) + `,"type":` + quote(f.typ) + `,"param":` + nullable(f.param) + `,"code":` + nullable(f.code) + `}`
}

// numbered is the same with the status as the code, as vLLM has it.
func (f fault) numbered() string {
	return fmt.Sprintf(`{"message":%s,"type":%s,"param":%s,"code":%d}`, quote(f.message), quote(f.typ), nullable(f.param), f.status)
}

// body is the error body of a response.
func (f fault) body(shape string) (contentType, body string) {
	const asJSON = "application/json"
	switch shape {
	case "vllm":
		return asJSON, `{"error":` + f.numbered() + `}`
	case "llamacpp":
		return asJSON, fmt.Sprintf(`{"error":{"code":%d,"message":%s,"type":%s}}`, f.status, quote(f.message), quote(f.typ))
	case "flat", "sglang":
		return asJSON, fmt.Sprintf(`{"object":"error","message":%s,"type":%s,"param":%s,"code":%d}`,
			quote(f.message), quote(f.typ), nullable(f.param), f.status)
	case "tgi":
		return asJSON, `{"error":` + quote(f.message) + `,"error_type":"overloaded"}`
	case "detail":
		return asJSON, `{"detail":[{"loc":["body","model"],"msg":` + quote(f.message) + `,"type":"value_error"}]}`
	case "message":
		return asJSON, `{"message":` + quote(f.message) + `}`
	case "string":
		return asJSON, `{"error":` + quote(f.message) + `}`
	case "text":
		return "text/plain; charset=utf-8", f.message
	case "html":
		return "text/html; charset=utf-8", "<!DOCTYPE html>\n<html><head><title>" + strconv.Itoa(f.status) + "</title></head><body><h1>" + f.message + "</h1></body></html>\n"
	case "empty":
		return "text/plain; charset=utf-8", ""
	default:
		return asJSON, `{"error":` + f.object() + `}`
	}
}

// refuse answers with an error instead of an answer, when the script says so.
func (c *call) refuse() error {
	s := &c.s
	if s.RetryAfter != "" {
		c.out.rw.Header().Set("Retry-After", s.RetryAfter)
	}
	if s.RetryAfterMS != 0 {
		c.out.rw.Header().Set("Retry-After-Ms", strconv.Itoa(s.RetryAfterMS))
	}
	switch {
	case s.Prefill == "reject" && c.prefill() != "":
		f := s.faultOf(http.StatusBadRequest)
		if s.ErrMessage == "" {
			f.message = "This model does not support assistant message prefill. The conversation must end with a user message."
		}
		return c.refuseWith(f, s.Err)
	case s.HTML200:
		f := s.faultOf(http.StatusInternalServerError)
		f.status = http.StatusOK
		return c.refuseWith(f, "html")
	case s.JSON200:
		f := s.faultOf(http.StatusInternalServerError)
		f.status = http.StatusOK
		return c.refuseWith(f, s.Err)
	case s.Status != 0:
		return c.refuseWith(s.faultOf(s.Status), s.Err)
	}
	return nil
}

func (c *call) refuseWith(f fault, shape string) error {
	contentType, body := f.body(shape)
	if f.status == http.StatusUnauthorized {
		c.out.rw.Header().Set("Www-Authenticate", "Bearer")
	}
	if f.status == http.StatusNoContent || f.status == http.StatusNotModified {
		body = ""
	}
	if err := c.plain(f.status, contentType, []byte(body)); err != nil {
		return err
	}
	c.rec.close(Refused, fmt.Errorf("status %d", f.status))
	return errEnded
}

// invalid answers a call that is bad in itself, always in OpenAI's shape.
func (c *call) invalid(status int, message string) {
	f := usual(status)
	f.message = message
	if status == http.StatusNotFound {
		f.code, f.param = "", ""
	}
	c.s = Script{}
	contentType, body := f.body("openai")
	// Whether it arrives changes nothing: the call was invalid.
	_ = c.plain(status, contentType, []byte(body))
	c.rec.close(Invalid, fmt.Errorf("status %d: %s", status, message))
}

// plain sends a whole body with the script's faults: whatever is meant inside the body happens at its half.
func (c *call) plain(status int, contentType string, body []byte) error {
	s := &c.s
	at := Never
	for _, p := range []At{s.Stall, s.Reset, s.Abort, s.Cut} {
		if p != Never && p != BeforeHeaders {
			at = p
		}
	}
	if s.Malformed != Never {
		body = body[:len(body)*2/3]
	}
	if s.Cut == Never {
		c.out.rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	c.out.header(s, status, contentType)
	half := 0
	if at != Never && at != AfterHeaders {
		half = len(body) / 2
	}
	if at != Never {
		// What follows is silence: the headers must be out.
		_ = c.out.rc.Flush()
		if err := c.out.write(body[:half]); err != nil {
			return err
		}
		whole := *s
		for _, p := range []*At{&s.Stall, &s.Reset, &s.Abort, &s.Cut} {
			if *p != Never && *p != BeforeHeaders {
				*p = at
			}
		}
		err := c.breakAt(at, nil)
		c.s = whole
		if err != nil {
			return err
		}
	}
	if err := c.out.write(body[half:]); err != nil {
		return err
	}
	return c.out.end()
}

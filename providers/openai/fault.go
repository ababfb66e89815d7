package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
)

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// words are an upstream's own account of a failure.
type words struct {
	message, kind, code, param string
}

// httpError turns an answer with an error status into an *Error.
func httpError(target string, resp *http.Response, body io.Reader) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(body, maxErrorBody))
	w := readWords(text)
	if w.message == "" {
		w.message = fmt.Sprintf("the upstream answered with status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return &providers.Error{
		Kind: statusKind(resp.StatusCode), Target: target, Status: resp.StatusCode,
		Message: w.message, Type: w.kind, Code: w.code, Param: w.param, RetryAfter: retryAfter(resp.Header, time.Now()),
	}
}

func statusKind(status int) providers.ErrorKind {
	switch {
	case status == http.StatusUnauthorized:
		return providers.UpstreamCredential
	case status == http.StatusTooManyRequests:
		return providers.RateLimited
	case status == http.StatusServiceUnavailable || status == 529:
		return providers.Overloaded
	case status >= 500:
		return providers.UpstreamFailed
	case status >= 400:
		return providers.Passed
	default:
		return providers.Protocol
	}
}

// retryAfter reads what OpenAI and RFC 9110 section 10.2.3 say about waiting.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	v := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(v, 64); err == nil && s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	if at, err := http.ParseTime(v); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// inStreamError turns an error event of a stream with status 200 into an *Error.
func inStreamError(target string, data []byte) *providers.Error {
	w := readWords(data)
	if w.message == "" {
		w.message = "the upstream reported an error without a message"
	}
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: target, Message: w.message, Type: w.kind, Code: w.code, Param: w.param}
	status, err := strconv.Atoi(w.code)
	if err == nil && status >= 400 && status < 600 {
		e.Status, e.Kind = status, statusKind(status)
		return e
	}
	switch {
	case strings.Contains(w.code, "context_length") || w.kind == "invalid_request_error" || w.kind == "BadRequestError":
		e.Status, e.Kind = http.StatusBadRequest, providers.Passed
	case strings.Contains(w.code+w.kind, "rate_limit"):
		e.Status, e.Kind = http.StatusTooManyRequests, providers.RateLimited
	case strings.Contains(w.code+w.kind, "overloaded"):
		e.Status, e.Kind = http.StatusServiceUnavailable, providers.Overloaded
	}
	return e
}

// isFlatError reports whether an event without choices is an error that stands in
// no envelope: {"object":"error",…} or {"type":"error",…}.
func isFlatError(data []byte) bool {
	var top struct{ Object, Type string }
	return json.Unmarshal(data, &top) == nil && (top.Object == "error" || top.Type == "error")
}

// readWords understands the shapes in which model servers put an error: OpenAI's
// envelope, the same with a string, flat objects, FastAPI's detail, plain text.
func readWords(text []byte) words {
	var top map[string]json.RawMessage
	if json.Unmarshal(text, &top) != nil {
		return words{message: plainText(text)}
	}
	if inner, ok := top["error"]; ok {
		var obj map[string]json.RawMessage
		if json.Unmarshal(inner, &obj) == nil && obj != nil {
			top = obj
		} else if s := scalar(inner); s != "" {
			return words{message: s, kind: scalar(top["error_type"])}
		}
	}
	w := words{message: scalar(top["message"]), kind: scalar(top["type"]), code: scalar(top["code"]), param: scalar(top["param"])}
	if w.code == "" {
		w.code = scalar(top["http_status_code"])
	}
	if w.message == "" {
		w.message = detailText(top["detail"])
	}
	return w
}

func scalar(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	if n := json.Number(bytes.TrimSpace(v)); len(v) > 0 && v[0] != '{' && v[0] != '[' && string(v) != "null" {
		return n.String()
	}
	return ""
}

func detailText(v json.RawMessage) string {
	if s := scalar(v); s != "" {
		return s
	}
	return string(bytes.TrimSpace(v))
}

// plainText keeps a short text and drops a page of HTML.
func plainText(text []byte) string {
	t := strings.ToValidUTF8(string(bytes.TrimSpace(text)), "")
	if strings.HasPrefix(t, "<") || len(t) > 500 {
		return ""
	}
	return t
}

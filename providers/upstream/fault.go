package upstream

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

// Words are an upstream's own account of a failure.
type Words struct{ Message, Type, Code, Param string }

// Refusal turns an answer with an error status into an *Error, in the upstream's words
// as far as it used a common form. Answers of another server are told from them.
func Refusal(target string, a *Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(a.Body, maxErrorBody))
	w := ReadWords(text)
	if e := Stranger(target, itsProtocol, "", a.Status, FormOf(text, w), w); e != nil {
		return e
	}
	return RefusalOf(target, a, w)
}

// RefusalOf is Refusal for an upstream whose words the adapter has read itself. A page
// of HTML is another server's.
func RefusalOf(target string, a *Answer, w Words) *providers.Error {
	if a.IsType("text/html") {
		if e := Stranger(target, itsProtocol, "", a.Status, NoForm, w); e != nil {
			return e
		}
	}
	if w.Message == "" {
		w.Message = fmt.Sprintf("the upstream answered with status %d %s", a.Status, http.StatusText(a.Status))
	}
	return &providers.Error{
		Kind: StatusKind(a.Status), Target: target, Status: a.Status,
		Message: w.Message, Type: w.Type, Code: w.Code, Param: w.Param, RetryAfter: RetryAfter(a.Header, time.Now()),
	}
}

// StatusKind says what an error status of an upstream means.
func StatusKind(status int) providers.ErrorKind {
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

// RetryAfter reads what OpenAI and RFC 9110 section 10.2.3 say about waiting.
func RetryAfter(h Header, now time.Time) time.Duration {
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

// ReadWords understands the shapes in which model servers put an error: OpenAI's
// envelope, the same with a string, flat objects, FastAPI's detail, plain text.
func ReadWords(text []byte) Words {
	var top map[string]json.RawMessage
	if json.Unmarshal(text, &top) != nil {
		return Words{Message: plainText(text)}
	}
	if inner, ok := top["error"]; ok {
		var obj map[string]json.RawMessage
		if json.Unmarshal(inner, &obj) == nil && obj != nil {
			top = obj
		} else if s := scalar(inner); s != "" {
			return Words{Message: s, Type: scalar(top["error_type"])}
		}
	}
	w := Words{Message: scalar(top["message"]), Type: scalar(top["type"]), Code: scalar(top["code"]), Param: scalar(top["param"])}
	if w.Code == "" {
		w.Code = scalar(top["http_status_code"])
	}
	if w.Message == "" {
		w.Message = detailText(top["detail"])
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

package openai

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

// api is how errors name what was expected.
const api = "OpenAI's API"

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// refusal turns an answer with an error status into an *Error.
func (p *Provider) refusal(path string, resp *upstream.Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	w := upstream.ReadWords(text)
	if e := upstream.Stranger(p.name, api, path, resp.Status, upstream.FormOf(text, w), w); e != nil {
		return e
	}
	return upstream.RefusalOf(p.name, resp, w)
}

func protocolError(target, what string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: target,
		Message: "an answer of " + api + " was expected, and the upstream sent " + what + "; does base_url name the right server and path?"}
}

// inStreamError turns an error event of a stream with status 200 into an *Error.
func inStreamError(target string, data []byte) *providers.Error {
	w := upstream.ReadWords(data)
	if w.Message == "" {
		w.Message = "the upstream reported an error without a message"
	}
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: target, Message: w.Message, Type: w.Type, Code: w.Code, Param: w.Param}
	status, err := strconv.Atoi(w.Code)
	if err == nil && status >= 400 && status < 600 {
		e.Status, e.Kind = status, upstream.StatusKind(status)
		return e
	}
	switch {
	case strings.Contains(w.Code, "context_length") || w.Type == "invalid_request_error" || w.Type == "BadRequestError":
		e.Status, e.Kind = http.StatusBadRequest, providers.Passed
	case strings.Contains(w.Code+w.Type, "rate_limit"):
		e.Status, e.Kind = http.StatusTooManyRequests, providers.RateLimited
	case strings.Contains(w.Code+w.Type, "overloaded"):
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

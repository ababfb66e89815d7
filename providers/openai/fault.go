package openai

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

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

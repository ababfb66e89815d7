package anthropic

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// api is how errors name what was expected.
const api = "Anthropic's Messages API"

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// statuses are the HTTP statuses of the types of errors, for those that come in a
// stream whose status is 200.
var statuses = map[string]int{
	"invalid_request_error": http.StatusBadRequest,
	"authentication_error":  http.StatusUnauthorized,
	"billing_error":         http.StatusPaymentRequired,
	"permission_error":      http.StatusForbidden,
	"not_found_error":       http.StatusNotFound,
	"conflict_error":        http.StatusConflict,
	"request_too_large":     http.StatusRequestEntityTooLarge,
	"rate_limit_error":      http.StatusTooManyRequests,
	"api_error":             http.StatusInternalServerError,
	"timeout_error":         http.StatusGatewayTimeout,
	"overloaded_error":      529,
}

// Codes of OpenAI's that clients branch on.
const (
	insufficientQuota = "insufficient_quota"
	contextLength     = "context_length_exceeded"
	modelNotFound     = "model_not_found"
)

// refusal turns an answer with an error status into an *Error.
func (p *Provider) refusal(path string, resp *upstream.Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	w := upstream.ReadWords(text)
	form := upstream.FormOf(text, w)
	if form == upstream.Enveloped && !isOwn(text) {
		form = upstream.Loose
	}
	if e := upstream.Stranger(p.name, api, path, resp.Status, form, w); e != nil {
		return e
	}
	e := upstream.RefusalOf(p.name, resp, w)
	classify(e, text)
	return e
}

// isOwn reports whether an error has the form of this API: {"type":"error","error":{"type":…}}.
func isOwn(text []byte) bool {
	var body struct{ Error struct{ Type string } }
	return json.Unmarshal(text, &body) == nil && body.Error.Type != ""
}

// inStream turns an error event of a stream with status 200 into an *Error.
func (p *Provider) inStream(data []byte) *providers.Error {
	w := upstream.ReadWords(data)
	if w.Message == "" {
		w.Message = "the upstream reported an error without a message"
	}
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: p.name, Message: w.Message, Type: w.Type, Code: w.Code, Param: w.Param}
	if s := statuses[w.Type]; s != 0 {
		e.Status, e.Kind = s, upstream.StatusKind(s)
	}
	classify(e, data)
	return e
}

// classify looks at what only this API means by its statuses: its refusals of the
// gateway's own account are another target's chance and no fault of the caller.
func classify(e *providers.Error, text []byte) {
	code := errorCode(text)
	switch {
	case e.Status == http.StatusPaymentRequired, e.Status == http.StatusTooManyRequests && strings.HasSuffix(code, "_spend_limit_reached"):
		e.Kind, e.Code = providers.RateLimited, insufficientQuota
	case e.Status == http.StatusForbidden && e.Type == "permission_error":
		e.Kind = providers.UpstreamCredential
	case e.Status == http.StatusNotFound && e.Type == "not_found_error":
		e.Code = modelNotFound
	case e.Status == http.StatusBadRequest && strings.Contains(e.Message, "prompt is too long"):
		e.Code = contextLength
	case e.Code == "" && code != "":
		e.Code = code
	}
}

// errorCode reads error.details.error_code.
func errorCode(text []byte) string {
	var body struct {
		Error struct {
			Details struct {
				Code string `json:"error_code"`
			} `json:"details"`
		} `json:"error"`
	}
	_ = json.Unmarshal(text, &body)
	return body.Error.Details.Code
}

func (p *Provider) protocolError(what string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: p.name,
		Message: "an answer of " + api + " was expected, and the upstream sent " + what + "; does base_url name the right server and path?"}
}

// ended judges the end of a body that came before the end of the answer.
func (p *Provider) ended(err error) *providers.Error {
	if large := new(streaming.FrameTooLargeError); errors.As(err, &large) {
		return &providers.Error{Kind: providers.EventTooLarge, Target: p.name, Message: large.Error()}
	}
	e := &providers.Error{Kind: providers.Truncated, Target: p.name, Message: "the upstream ended the stream before the answer was finished"}
	if !errors.Is(err, io.EOF) {
		e.Message, e.Err = "the connection to the upstream broke before the answer was finished", err
	}
	return e
}

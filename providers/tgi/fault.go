package tgi

import (
	"fmt"
	"io"
	"net/http"

	"sluice/providers"
	"sluice/providers/upstream"
)

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// refusal turns an answer with an error status into an *Error. A route that is not
// there is another server's.
func (p *Provider) refusal(path string, resp *upstream.Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	w := upstream.ReadWords(text)
	if w.Type == "" && (resp.Status < 400 || resp.Status == http.StatusNotFound || resp.Status == http.StatusMethodNotAllowed) {
		e := notTGI(p.name, path, fmt.Sprintf("status %d %s", resp.Status, http.StatusText(resp.Status)))
		e.Status = resp.Status
		return e
	}
	e := upstream.RefusalOf(p.name, resp, w)
	classify(e)
	return e
}

// inBody is an error that came with status 200: streams tell all of theirs so.
func inBody(target string, b []byte) *providers.Error {
	w := upstream.ReadWords(b)
	if w.Message == "" {
		w.Message = "the upstream reported an error without a message"
	}
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: target, Message: w.Message, Type: w.Type, Code: w.Code, Param: w.Param}
	classify(e)
	return e
}

// classify goes by the server's error_type, which says the same in streams and beside
// a status.
func classify(e *providers.Error) {
	switch e.Type {
	case "validation", "template_error", "tool_error":
		e.Kind, e.Status, e.Type = providers.Passed, http.StatusUnprocessableEntity, "invalid_request_error"
	case "overloaded":
		e.Kind, e.Type = providers.Overloaded, ""
	case "generation", "incomplete_generation", "request_failed":
		e.Kind, e.Type = providers.UpstreamFailed, ""
	case "healthcheck":
		e.Kind, e.Type = providers.Overloaded, ""
	}
}

// notTGI says that another server answers.
func notTGI(target, path, came string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: target,
		Message: fmt.Sprintf("the upstream sent %s where TGI's answer to %s was expected; base_url must name the root of a TGI server, such as http://127.0.0.1:3000", came, path)}
}

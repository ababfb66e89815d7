package ollama

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"sluice/providers"
	"sluice/providers/upstream"
)

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// statusCanceled is what Ollama says when a call was cancelled on its side.
const statusCanceled = 499

// refusal turns an answer with an error status into an *Error. Ollama's own are JSON
// with an error that is a string; a route that is not there is another server's.
func (p *Provider) refusal(path string, resp *upstream.Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	own := struct{ Error string }{}
	isOwn := json.Unmarshal(text, &own) == nil && own.Error != ""
	if !isOwn && (resp.Status < 400 || resp.Status == http.StatusNotFound || resp.Status == http.StatusMethodNotAllowed) {
		e := p.notOllama(path, fmt.Sprintf("status %d %s", resp.Status, http.StatusText(resp.Status)))
		e.Status = resp.Status
		return e
	}
	e := upstream.RefusalOf(p.name, resp, upstream.ReadWords(text))
	p.classify(e)
	return e
}

// classify looks at what a status does not tell.
func (p *Provider) classify(e *providers.Error) {
	switch {
	case e.Status == statusCanceled:
		e.Kind = providers.UpstreamFailed
	case e.Status == http.StatusNotFound && strings.Contains(e.Message, "not found"):
		e.Code = "model_not_found"
	case strings.Contains(e.Message, "maximum pending requests"):
		e.Kind = providers.Overloaded
	case e.Status == http.StatusInternalServerError && isCallers(e.Message):
		e.Kind, e.Status = providers.Passed, http.StatusBadRequest
	}
}

// isCallers finds the faults of the caller that Ollama tells with status 500.
func isCallers(message string) bool {
	return strings.HasPrefix(message, "option ") && strings.Contains(message, "must be of type") || strings.HasPrefix(message, "invalid format")
}

// inBody is an error that came with status 200, as a line of a stream for example.
func (p *Provider) inBody(b []byte) *providers.Error {
	w := upstream.ReadWords(b)
	if w.Message == "" {
		w.Message = "the upstream reported an error without a message"
	}
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: p.name, Message: w.Message, Type: w.Type, Code: w.Code, Param: w.Param}
	p.classify(e)
	return e
}

// notOllama says that another server answers.
func (p *Provider) notOllama(path, came string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: p.name,
		Message: fmt.Sprintf("the upstream sent %s where Ollama's answer to %s was expected; base_url must name the root of an Ollama server, such as http://127.0.0.1:11434", came, path)}
}

package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// api is how errors name what was expected.
const api = "the Gemini API"

// maxErrorBody is how much of an error answer is read.
const maxErrorBody = 64 << 10

// statuses are the HTTP statuses of google.rpc.Code's names.
var statuses = map[string]int{
	"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
	"NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499,
	"UNKNOWN": 500, "INTERNAL": 500, "DATA_LOSS": 500, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}

// Codes of OpenAI's that clients branch on.
const (
	contextLength = "context_length_exceeded"
	modelNotFound = "model_not_found"
)

// words are Google's account of a failure.
type words struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Status  string `json:"status"`
	Details []struct {
		Reason     string `json:"reason"`     // of google.rpc.ErrorInfo
		RetryDelay string `json:"retryDelay"` // of google.rpc.RetryInfo, such as "34.5s"
	} `json:"details"`
}

// readWords understands the error envelope, alone or in an array.
func readWords(text []byte) (w words, ok bool) {
	var envelope struct {
		Error *words `json:"error"`
	}
	text = bytes.TrimSpace(text)
	if len(text) > 0 && text[0] == '[' {
		text = bytes.TrimSpace(bytes.TrimSuffix(text[1:], []byte("]")))
	}
	if json.Unmarshal(text, &envelope) != nil || envelope.Error == nil {
		return words{}, false
	}
	return *envelope.Error, true
}

func (w *words) reason() string {
	for _, d := range w.Details {
		if d.Reason != "" {
			return d.Reason
		}
	}
	return ""
}

func (w *words) retryAfter() time.Duration {
	for _, d := range w.Details {
		if wait, err := time.ParseDuration(d.RetryDelay); err == nil && wait > 0 {
			return wait
		}
	}
	return 0
}

// refusal turns an answer with an error status into an *Error.
func (p *Provider) refusal(path string, resp *upstream.Answer) *providers.Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	w, ok := readWords(text)
	if !ok {
		return p.foreign(path, resp, text)
	}
	own := upstream.Words{Message: w.Message, Type: w.Status}
	if e := upstream.Stranger(p.name, api, path, resp.Status, upstream.Enveloped, own); e != nil {
		return e
	}
	e := upstream.RefusalOf(p.name, resp, own)
	if wait := w.retryAfter(); wait > 0 {
		e.RetryAfter = wait
	}
	classify(e, &w)
	return e
}

// foreign turns an answer with an error status in no form of this API into an *Error.
func (p *Provider) foreign(path string, resp *upstream.Answer, text []byte) *providers.Error {
	w := upstream.ReadWords(text)
	if e := upstream.Stranger(p.name, api, path, resp.Status, min(upstream.FormOf(text, w), upstream.Loose), w); e != nil {
		return e
	}
	return upstream.RefusalOf(p.name, resp, w)
}

// inStream turns an error in a stream with status 200 into an *Error.
func (p *Provider) inStream(data []byte) *providers.Error {
	w, _ := readWords(data)
	e := &providers.Error{Kind: providers.UpstreamFailed, Target: p.name, Message: w.Message, Type: w.Status, RetryAfter: w.retryAfter()}
	if w.Message == "" {
		e.Message = "the upstream reported an error without a message"
	}
	status := w.Code
	if status < 400 || status > 599 {
		status = statuses[w.Status]
	}
	if status != 0 {
		e.Status, e.Kind = status, upstream.StatusKind(status)
	}
	classify(e, &w)
	return e
}

// classify looks at what only this API means by its statuses: its refusals of the
// gateway's own account are another target's chance and no fault of the caller. A key
// that is not valid comes as 400.
func classify(e *providers.Error, w *words) {
	reason := w.reason()
	switch {
	case strings.HasPrefix(reason, "API_KEY_"), e.Status == http.StatusForbidden && reason != "",
		e.Status == http.StatusBadRequest && w.Status == "FAILED_PRECONDITION":
		e.Kind = providers.UpstreamCredential
	case e.Status == http.StatusNotFound && w.Status == "NOT_FOUND":
		e.Code = modelNotFound
	case e.Status == http.StatusBadRequest && strings.Contains(w.Message, "exceeds the maximum number of tokens"):
		e.Code = contextLength
	}
}

func (p *Provider) protocolError(what string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: p.name,
		Message: "an answer of " + api + " was expected, and the upstream sent " + what + "; does base_url name the right server and path?"}
}

func (p *Provider) unfinished() *providers.Error {
	return &providers.Error{Kind: providers.Truncated, Target: p.name, Message: "the upstream ended the stream before the answer was finished"}
}

// ended is what a body that broke off means.
func (p *Provider) ended(err error) error {
	if large := new(streaming.FrameTooLargeError); errors.As(err, &large) {
		return &providers.Error{Kind: providers.EventTooLarge, Target: p.name, Message: large.Error()}
	}
	e := p.unfinished()
	e.Message, e.Err = "the connection to the upstream broke before the answer was finished", err
	return e
}

// bareError is JSON that stood in a stream outside of any event.
func (p *Provider) bareError(text []byte) error {
	if _, ok := readWords(text); ok {
		return p.inStream(text)
	}
	return p.protocolError("JSON outside of any event")
}

// bareReader catches an error body that a server writes into its stream as it would
// write it alone, over several lines and outside of any event. No line of an event
// stream begins with a brace or a bracket; from the first that does, everything is
// kept, up to maxErrorBody.
type bareReader struct {
	src    io.Reader
	inside bool // the last read ended within a line
	caught []byte
}

func (r *bareReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if len(r.caught) == 0 {
		r.search(p[:n])
	} else if len(r.caught) < maxErrorBody {
		r.caught = append(r.caught, p[:n]...)
	}
	return n, err
}

func (r *bareReader) search(b []byte) {
	for i := 0; i < len(b); {
		if !r.inside && (b[i] == '{' || b[i] == '[') {
			r.caught = bytes.Clone(b[i:])
			return
		}
		end := bytes.IndexByte(b[i:], '\n')
		if r.inside = end < 0; r.inside {
			return
		}
		i += end + 1
	}
}

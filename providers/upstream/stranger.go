package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sluice/providers"
)

// Form is the shape in which a server put its account of a failure.
type Form uint8

const (
	// NoForm is a page of HTML, an empty body, or JSON without words.
	NoForm Form = iota
	// Loose is a text, or a message in no envelope: FastAPI's detail for example.
	Loose
	// Enveloped is an error of the protocol that was expected.
	Enveloped
)

// FormOf finds OpenAI's envelope and those that servers with its API use instead: an
// error object or string, or an object that calls itself an error.
func FormOf(text []byte, w Words) Form {
	var top struct {
		Error        json.RawMessage
		Object, Type any
	}
	_ = json.Unmarshal(text, &top)
	switch {
	case w.Message == "" && w.Type == "" && w.Code == "":
		return NoForm
	case len(top.Error) > 0 && string(top.Error) != "null", top.Object == "error", top.Type == "error":
		return Enveloped
	default:
		return Loose
	}
}

// itsProtocol is what was expected where nobody says it better.
const itsProtocol = "its protocol"

// Stranger is the error for an answer with an error status that says that another server
// answered, or another path of it: that is the configuration's fault and not the
// caller's. api is what was expected, such as "OpenAI's API", and path where; it may be
// empty. It is nil for what the
// expected server says of a request, and for what any proxy may say of it.
func Stranger(target, api, path string, status int, form Form, w Words) *providers.Error {
	if !isStranger(status, form, w) {
		return nil
	}
	came := fmt.Sprintf("status %d %s", status, http.StatusText(status))
	if form != NoForm && w.Message != "" {
		came += fmt.Sprintf(" (%.200s)", w.Message)
	}
	if path, _, _ = strings.Cut(path, "?"); path != "" {
		api += " to " + path
	}
	return &providers.Error{Kind: providers.Protocol, Target: target, Status: status,
		Message: fmt.Sprintf("an answer of %s was expected, and the upstream sent %s; does base_url name the right server and path?", api, came)}
}

func isStranger(status int, form Form, w Words) bool {
	switch {
	case status < 400:
		return true
	case status >= 500 || slices.Contains(ofProxies, status):
		return false
	case status == http.StatusMethodNotAllowed:
		return true
	case status == http.StatusNotFound:
		return form == NoForm || isNoRoute(w) || form == Loose && !strings.Contains(strings.ToLower(w.Message), "model")
	case status == http.StatusForbidden:
		return form != Enveloped
	default:
		return form == NoForm
	}
}

// ofProxies are the statuses with which a proxy may answer for the right server, with a
// page of its own.
var ofProxies = []int{
	http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
	http.StatusRequestEntityTooLarge, http.StatusTooManyRequests,
}

// isNoRoute finds an envelope that says that the path is unknown, and not the model.
func isNoRoute(w Words) bool {
	text := strings.ToLower(strings.TrimRight(w.Message, ". "))
	return w.Code == "unknown_url" || slices.Contains(noRoute, text) ||
		strings.HasPrefix(text, "invalid url") || strings.HasPrefix(text, "unknown request url")
}

// noRoute is what servers say of unknown paths: FastAPI and Anthropic, llama.cpp, Go,
// Azure, Google, Kong.
var noRoute = []string{
	"not found", "file not found", "404 page not found", "resource not found", "method not found", "no route matched with those values",
}

package mii

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/providers"
	"sluice/providers/kit/rpc"
)

// service is what is expected to answer.
const service = "ModelResponse of DeepSpeed-MII"

// quoted finds what a replica said in the words in which its load balancer repeats it.
var quoted = regexp.MustCompile(`details = "((?:[^"\\]|\\.)*)"`)

// fault turns the error of a call into an *Error. Python's gRPC puts every exception
// under one code, so that only the words tell them apart.
func (g *overGRPC) fault(err error) *providers.Error {
	e := rpc.Fault(g.Upstream.Name, service, err)
	s := status.Convert(err)
	text := s.Message()
	if s.Code() == codes.Unavailable && (strings.Contains(text, "write tcp") || strings.Contains(text, "read tcp")) {
		e.Kind, e.Status, e.Message, e.Err = providers.Unreachable, 0, "the upstream could not be reached", errors.New(text)
		return e
	}
	if e.Kind == providers.Unreachable && !strings.Contains(text, "connection error: desc") {
		e.Kind, e.Message = providers.Truncated, "the connection to the upstream broke before the answer was finished"
	}
	switch code := s.Code(); {
	case code == codes.Unknown && strings.Contains(text, "Error in service handler!"):
		e.Kind, e.Message = providers.Protocol, "expected "+service+" over gRPC, and got a server without this method; does mii.generation name its version?"
	case code == codes.Unknown:
		e.Message = words(text)
		if isTooLong(text) {
			e.Kind, e.Status, e.Type, e.Code = providers.Passed, http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"
		}
	case code == codes.Internal && strings.Contains(text, "failed to unmarshal"):
		return g.strange("one that cannot be read as such")
	case code == codes.ResourceExhausted && strings.Contains(text, "larger than max") && !strings.HasPrefix(text, "grpc: "):
		e.Kind, e.Message = providers.TooLarge, "The prompt is larger than the upstream takes in one message."
	}
	return e
}

// unfinished is the error for a stream that ended well and without a reason to end.
func (o *Options) unfinished() *providers.Error {
	return &providers.Error{Kind: providers.Truncated, Target: o.Upstream.Name,
		Message: "the upstream ended the stream without a finish_reason: its model has failed, or was silent for too long"}
}

// isTooLong finds the refusal of a prompt that leaves no room for an answer.
func isTooLong(text string) bool {
	return strings.Contains(text, "must be greater than prompt_length") || strings.Contains(text, "prompt length must be less than")
}

// words are what happened, without what the layers above it have added.
func words(text string) string {
	for {
		inner := quoted.FindStringSubmatch(text)
		if inner == nil {
			break
		}
		text = strings.ReplaceAll(inner[1], `\"`, `"`)
	}
	for _, prefix := range []string{"Exception calling application: ", "Exception iterating responses: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "the upstream failed without a word"
	}
	return text
}

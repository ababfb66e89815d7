package rpc

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/providers"
)

// Fault turns the error of a call into an *Error in the upstream's words. service is
// what was expected to answer, such as "GRPCInferenceService of KServe v2". Callers
// replace the error when their own context has ended.
func Fault(target, service string, err error) *providers.Error {
	if errors.Is(err, io.EOF) {
		return &providers.Error{Kind: providers.Truncated, Target: target, Message: "the upstream ended the stream before the answer was finished"}
	}
	s := status.Convert(err)
	e := &providers.Error{Kind: kinds[s.Code()], Target: target, Status: statuses[s.Code()], Message: s.Message()}
	if e.Message == "" {
		e.Message = "the upstream failed with the gRPC status " + s.Code().String()
	}
	if local(s, e, service) {
		return e
	}
	if what := stranger(s); what != "" {
		e.Kind, e.Status, e.Err = providers.Protocol, 0, errors.New(s.Message())
		e.Message = fmt.Sprintf("expected %s over gRPC, and got %s; does base_url name the right port?", service, what)
	}
	return e
}

// kinds says what a status of gRPC means. A code that is missing is OK, which is no
// failure, or unknown: a fault of the upstream.
var kinds = map[codes.Code]providers.ErrorKind{
	codes.OK: providers.UpstreamFailed, codes.Canceled: providers.UpstreamFailed, codes.Unknown: providers.UpstreamFailed,
	codes.Aborted: providers.UpstreamFailed, codes.Internal: providers.UpstreamFailed, codes.DataLoss: providers.UpstreamFailed,
	codes.InvalidArgument: providers.Passed, codes.NotFound: providers.Passed, codes.AlreadyExists: providers.Passed,
	codes.FailedPrecondition: providers.Passed, codes.OutOfRange: providers.Passed,
	codes.DeadlineExceeded: providers.Timeout, codes.ResourceExhausted: providers.RateLimited, codes.Unavailable: providers.Overloaded,
	codes.PermissionDenied: providers.UpstreamCredential, codes.Unauthenticated: providers.UpstreamCredential,
	codes.Unimplemented: providers.Protocol,
}

// statuses are the HTTP statuses of what is passed on.
var statuses = map[codes.Code]int{
	codes.InvalidArgument: http.StatusBadRequest, codes.NotFound: http.StatusNotFound, codes.AlreadyExists: http.StatusConflict,
	codes.FailedPrecondition: http.StatusBadRequest, codes.OutOfRange: http.StatusBadRequest,
}

// local finds the failures that this side of the connection reports under a code of
// gRPC, by the words of the library.
func local(s *status.Status, e *providers.Error, service string) bool {
	text := s.Message()
	switch {
	case s.Code() == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		e.Kind = providers.EventTooLarge
		e.Message = "a message of the upstream is larger than the limit (" + text + ")"
	case s.Code() != codes.Unavailable || stranger(s) != "":
		return false
	case strings.Contains(text, "connection error: desc") || strings.Contains(text, "name resolver error") || strings.Contains(text, "produced zero addresses"):
		e.Kind, e.Err = providers.Unreachable, errors.New(text)
		e.Message = "the upstream could not be reached, where " + service + " over gRPC was expected"
	case slices.ContainsFunc(brokenWords, func(w string) bool { return strings.Contains(text, w) }):
		e.Kind, e.Message, e.Err = providers.Unreachable, "the connection to the upstream broke", errors.New(text)
	default:
		return false
	}
	return true
}

// brokenWords are those of the library and of the system for a connection that ended.
var brokenWords = []string{
	"error reading from server", "transport is closing", "closing transport", "read tcp",
	"connection reset by peer", "broken pipe", "use of closed network connection",
}

// stranger names what answered when it was not a gRPC server, or not this service.
func stranger(s *status.Status) string {
	text := s.Message()
	_, contentType, odd := strings.Cut(text, "unexpected content-type ")
	switch {
	case s.Code() == codes.Unimplemented:
		return "UNIMPLEMENTED (" + text + ")"
	case strings.Contains(text, "looked like an HTTP/1.1 header"), strings.Contains(text, "HTTP/1.x"):
		return "an HTTP/1.1 server"
	case odd:
		return "an answer of content type " + strings.TrimSpace(contentType)
	case strings.Contains(text, "unexpected HTTP status code"):
		return "a plain HTTP answer (" + text + ")"
	case beforeReady(text):
		return "something that does not speak HTTP/2, or hangs up"
	default:
		return ""
	}
}

// beforeReady finds the failures of a connection that was made and never became one of
// HTTP/2. Who hangs up there may be found out by the read or by any of the writes: the
// library's last one has no words of its own before the system's, which no later
// failure has.
func beforeReady(text string) bool {
	return strings.HasPrefix(text, "write ") || slices.ContainsFunc(prefaceWords, func(w string) bool { return strings.Contains(text, w) })
}

var prefaceWords = []string{
	"error reading server preface", "initial http2 frame from server is not a settings frame", "failed to receive server preface",
	"failed to write client preface", "preface mismatch", "failed to write initial settings frame", "failed to write window update",
}

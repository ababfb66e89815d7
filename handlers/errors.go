package handlers

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// end is what a client is told about one kind of end. This table is the only place
// that maps a failure to a status.
type end struct {
	name   string // of the end in metrics and logs, and the code when there is no better one
	status int
	kind   string // OpenAI's error type
	code   string
	final  bool // official SDKs are told not to try again
}

const (
	invalidRequest = "invalid_request_error"
	serverError    = "server_error"
)

var ends = map[providers.ErrorKind]end{
	providers.Internal:           {"internal_error", http.StatusInternalServerError, serverError, "internal_error", false},
	providers.BadRequest:         {"bad_request", http.StatusBadRequest, invalidRequest, "", true},
	providers.Unauthorized:       {"unauthorized", http.StatusUnauthorized, invalidRequest, "invalid_api_key", true},
	providers.Forbidden:          {"forbidden", http.StatusForbidden, "insufficient_permissions", "forbidden", true},
	providers.NotFound:           {"not_found", http.StatusNotFound, invalidRequest, "unknown_url", true},
	providers.ModelNotFound:      {"model_not_found", http.StatusNotFound, invalidRequest, "model_not_found", true},
	providers.MethodNotAllowed:   {"method_not_allowed", http.StatusMethodNotAllowed, invalidRequest, "method_not_allowed", true},
	providers.TooLarge:           {"request_too_large", http.StatusRequestEntityTooLarge, invalidRequest, "request_too_large", true},
	providers.UnsupportedMedia:   {"unsupported_media_type", http.StatusUnsupportedMediaType, invalidRequest, "unsupported_media_type", true},
	providers.RateLimited:        {"rate_limited", http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded", false},
	providers.Overloaded:         {"upstream_overloaded", http.StatusServiceUnavailable, "service_unavailable_error", "server_is_overloaded", false},
	providers.Unreachable:        {"upstream_unreachable", http.StatusBadGateway, serverError, "upstream_unreachable", false},
	providers.UpstreamFailed:     {"upstream_error", http.StatusBadGateway, serverError, "upstream_error", false},
	providers.UpstreamCredential: {"upstream_credential", http.StatusBadGateway, serverError, "upstream_credential", true},
	providers.Protocol:           {"upstream_protocol", http.StatusBadGateway, serverError, "upstream_protocol_error", false},
	providers.Truncated:          {"upstream_truncated", http.StatusBadGateway, serverError, "upstream_truncated", false},
	providers.Timeout:            {"upstream_timeout", http.StatusGatewayTimeout, serverError, "upstream_timeout", false},
	providers.EventTooLarge:      {"upstream_event_too_large", http.StatusBadGateway, serverError, "upstream_event_too_large", true},
	providers.Passed:             {"upstream_refused", http.StatusBadRequest, invalidRequest, "", true},
}

// statusClientGone is what the log says of a client that closed its connection; nobody reads it.
const statusClientGone = 499

var (
	endOK         = end{name: "ok", status: http.StatusOK}
	endClientGone = end{"client_gone", statusClientGone, serverError, "client_gone", true}
	endSlow       = end{"client_slow", statusClientGone, serverError, "client_too_slow", true}
	endTotal      = end{"timeout", http.StatusGatewayTimeout, serverError, "timeout", false}
	endDraining   = end{"draining", http.StatusServiceUnavailable, "service_unavailable_error", "server_draining", false}
	endCancelled  = end{"cancelled", statusClientGone, serverError, "cancelled", true}
	// An answer that an operator ended before anything came of it is not its caller's to pay.
	endKilled  = end{"killed", http.StatusServiceUnavailable, "service_unavailable_error", "ended_by_operator", true}
	endRevoked = end{"key_revoked", http.StatusUnauthorized, invalidRequest, "key_revoked", true}
	endTries   = end{"too_many_tries", http.StatusTooManyRequests, "rate_limit_error", "too_many_tries", true}
	endUpgrade = end{"upgrade_required", http.StatusUpgradeRequired, invalidRequest, "upgrade_required", true}
	// endLifetime has the code that OpenAI's own WebSocket uses.
	endLifetime = end{"connection_limit", http.StatusServiceUnavailable, "service_unavailable_error", "websocket_connection_limit_reached", false}
)

// The ends that limits make. The types of the first two are OpenAI's.
var (
	endOverRequests = end{"over_limit", http.StatusTooManyRequests, "requests", "rate_limit_exceeded", false}
	endOverTokens   = end{"over_limit", http.StatusTooManyRequests, "tokens", "rate_limit_exceeded", false}
	endOverBudget   = end{"over_budget", http.StatusTooManyRequests, "insufficient_quota", "insufficient_quota", true}
	// endBudget is of an answer that was under way.
	endBudget = end{"budget_exhausted", http.StatusTooManyRequests, "insufficient_quota", "budget_exhausted", true}
	// endOverBurst is of a request that no waiting helps; 400 keeps SDKs from trying.
	endOverBurst = end{"over_burst", http.StatusBadRequest, invalidRequest, "request_too_large", true}
	endNoLimits  = end{"quota_unavailable", http.StatusServiceUnavailable, "service_unavailable_error", "quota_unavailable", false}
	// endPlaceLost is of an answer whose gateway was asleep while its place was given to another.
	endPlaceLost = end{"place_lost", http.StatusServiceUnavailable, "service_unavailable_error", "place_lost", false}
)

// The ends that come from outside of the answer, as causes for Live.
var (
	// ErrKilled says that an operator has ended the answer.
	ErrKilled = errors.New("ended by an operator")
	// ErrKeyRevoked says that the key has been disabled, has expired or been deleted, or
	// that the secret has been replaced.
	ErrKeyRevoked = errors.New("the key is no longer valid")
)

// The ends that only a WebSocket connection knows.
var (
	errCancelled = errors.New("cancelled by the client")
	errUpgrade   = errors.New("the handshake is of another version")
	errLifetime  = errors.New("the lifetime of the connection is over")
)

// failure is an error as a client is told of it.
type failure struct {
	end
	message, param string
	retryAfter     time.Duration
}

// describe finds an error's row in the table. Words of the upstream survive.
func describe(err error) failure {
	if err == nil { // most answers: what follows puts what it looks for on the heap
		return failure{end: endOK}
	}
	if e := providers.AsError(err); e != nil { // first: a dial that timed out is a DeadlineExceeded too
		return fromProvider(e)
	}
	if f, ok := fromLimit(err); ok {
		return f
	}
	if many := (*auth.TooManyTries)(nil); errors.As(err, &many) {
		return failure{end: endTries, message: "Too many wrong API keys came from this network. Check the key and try again later; right keys are not affected.", retryAfter: many.RetryAfter}
	}
	switch {
	case errors.Is(err, streaming.ErrClientGone), errors.Is(err, context.Canceled):
		return failure{end: endClientGone, message: streaming.ErrClientGone.Error()}
	case errors.Is(err, streaming.ErrSlow):
		return failure{end: endSlow, message: streaming.ErrSlow.Error()}
	case errors.Is(err, streaming.ErrTotal), errors.Is(err, context.DeadlineExceeded):
		return failure{end: endTotal, message: "The answer took longer than the total time limit."}
	case errors.Is(err, errCancelled):
		return failure{end: endCancelled, message: "The answer was cancelled by the client."}
	case errors.Is(err, ErrKilled):
		return failure{end: endKilled, message: "The answer was ended by an operator of the gateway."}
	case errors.Is(err, ErrKeyRevoked):
		return failure{end: endRevoked, message: "The API key is no longer valid: it was disabled, replaced or deleted, or has expired."}
	case errors.Is(err, errUpgrade):
		return failure{end: endUpgrade, message: "This path speaks WebSocket version 13 (RFC 6455)."}
	case errors.Is(err, errLifetime):
		return failure{end: endLifetime, message: "The connection has reached its time limit. Open a new one and try again.", retryAfter: time.Millisecond}
	case errors.Is(err, streaming.ErrDraining):
		return failure{end: endDraining, message: "The gateway is shutting down. Try again; another replica will answer.", retryAfter: time.Second}
	}
	return failure{end: ends[providers.Internal], message: "The gateway met an internal fault. The request id names it in its log."}
}

func fromProvider(e *providers.Error) failure {
	f := failure{end: ends[e.Kind], message: e.Message, param: e.Param, retryAfter: e.RetryAfter}
	if e.Kind == providers.UpstreamCredential {
		f.message = "The upstream refused the gateway's credential. Its operator finds the upstream's words in the log." // they may hold parts of the key
		return f
	}
	if e.Kind == providers.Passed && e.Status != 0 || e.Kind == providers.UpstreamFailed && e.Status >= 500 {
		f.status = e.Status
	}
	if e.Type != "" {
		f.kind = e.Type
	}
	if e.Code != "" {
		f.code = e.Code
	}
	if e.Kind == providers.Passed && e.Status == http.StatusRequestTimeout {
		f.final = false
	}
	if e.Final() {
		f.final = true
	}
	if f.retryAfter == 0 && f.status == http.StatusServiceUnavailable {
		f.retryAfter = time.Second
	}
	return f
}

// appendError appends OpenAI's error object, all four keys present.
func (f failure) appendError(dst []byte) []byte {
	dst = append(dst, `{"message":`...)
	dst = jsonscan.AppendQuote(dst, f.message)
	dst = append(dst, `,"type":`...)
	dst = jsonscan.AppendQuote(dst, f.kind)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, f.param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, f.code)
	return append(dst, '}')
}

func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return jsonscan.AppendQuote(dst, s)
}

// errorObject is how encoders put an error into a stream.
func errorObject(err error) []byte { return describe(err).appendError(nil) }

// write answers a request that has not been answered yet.
func (f failure) write(w http.ResponseWriter, head bool) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.retryAfter.Seconds()))))
		h.Set("Retry-After-Ms", strconv.FormatInt(f.retryAfter.Milliseconds(), 10))
	}
	if f.final {
		h.Set("X-Should-Retry", "false")
	}
	body := append(f.appendError([]byte(`{"error":`)), '}', '\n')
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	if !head {
		_, _ = w.Write(body)
	}
}

// wsFault is what a client did wrong to its connection, and with which code the
// connection ends for it: at once, or when it is the last straw.
type wsFault struct {
	err   *providers.Error
	close streaming.CloseCode
	last  bool
}

func (f *wsFault) Error() string { return f.err.Error() }

func (f *wsFault) Unwrap() error { return f.err }

// malformed is a message that is no JSON object.
func malformed(message string) *wsFault {
	return &wsFault{&providers.Error{Kind: providers.BadRequest, Code: "malformed_frame", Message: message}, streaming.CloseBadData, false}
}

// misused is a JSON object that is no frame of the protocol.
func misused(member, message string) *wsFault {
	return &wsFault{&providers.Error{Kind: providers.BadRequest, Code: "invalid_frame", Param: member, Message: message}, streaming.ClosePolicy, false}
}

// tooLargeMessage is a message over its limit.
func tooLargeMessage(what string, limit int64) *wsFault {
	return &wsFault{&providers.Error{Kind: providers.TooLarge, Message: what + " must not be larger than " + byteCount(limit) + "."}, streaming.CloseTooBig, true}
}

// readFault is the fault behind an error of Socket.Read; nil means that the
// connection is over.
func readFault(err error, limit int64) *wsFault {
	switch {
	case errors.Is(err, streaming.ErrBinary):
		return &wsFault{&providers.Error{Kind: providers.UnsupportedMedia, Code: "binary_frame", Message: "Messages must be text: one JSON object each."}, streaming.CloseUnsupported, false}
	case errors.Is(err, streaming.ErrNotUTF8):
		return &wsFault{&providers.Error{Kind: providers.BadRequest, Code: "malformed_frame", Message: "A text message must be UTF-8."}, streaming.CloseBadData, true}
	case errors.Is(err, streaming.ErrMessageSize):
		return tooLargeMessage("A message", limit)
	case errors.Is(err, streaming.ErrMessageTime):
		return &wsFault{&providers.Error{Kind: providers.BadRequest, Code: "slow_frame", Message: "The message did not come whole in time."}, streaming.ClosePolicy, true}
	default:
		return nil
	}
}

// closeCode is how a connection ends that nothing was wrong with.
func closeCode(why error) (code streaming.CloseCode, reason string) {
	switch {
	case errors.Is(why, streaming.ErrDraining):
		return streaming.CloseRestart, "the gateway is shutting down; reconnect"
	case errors.Is(why, errLifetime):
		return streaming.CloseNormal, "the lifetime of the connection is over"
	case errors.Is(why, ErrKeyRevoked):
		return streaming.ClosePolicy, "the key is no longer valid"
	default:
		return streaming.CloseInternal, "internal fault"
	}
}

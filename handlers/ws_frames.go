package handlers

import (
	"strconv"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// wsFrame is what a client sends. request is a part of the message.
type wsFrame struct {
	kind, stream string
	request      []byte // of a create; nil when it has none
}

const (
	frameCreate = "create"
	frameCancel = "cancel"
)

// defaultStream is the stream of a frame that names none.
const defaultStream = "0"

// maxStreamID bounds a stream_id, in bytes.
const maxStreamID = 256

// parseFrame reads one message. depth bounds the nesting of the request in it. The
// error is a *wsFault: what was sent is no frame of the protocol.
func parseFrame(msg []byte, depth int) (f wsFrame, err error) {
	var kind, stream, request jsonscan.Span
	c := jsonscan.Cursor{B: msg, Limit: depth + 1}
	if ch := c.Peek(); ch != '{' && ch != 0 {
		return f, malformed("A message must be a JSON object.")
	}
	for c.Object(); c.Key(); {
		var at *jsonscan.Span
		switch string(c.Name) {
		case "type":
			at = &kind
		case "stream_id":
			at = &stream
		case "request":
			at = &request
		}
		v := c.Skip()
		switch {
		case at == nil:
		case !at.Empty():
			return f, misused(string(c.Name), "A message must not have the same member twice.")
		default:
			*at = v
		}
	}
	if c.Deep {
		return f, malformed("The message is nested deeper than " + strconv.Itoa(depth) + " levels.")
	}
	if !c.End() {
		return f, malformed("The message is not valid JSON: a fault at byte " + strconv.Itoa(c.I) + ".")
	}
	f.stream = defaultStream
	if !stream.Empty() {
		f.stream, _ = jsonscan.Unquote(stream.Of(msg))
	}
	if f.kind, _ = jsonscan.Unquote(kind.Of(msg)); f.kind != frameCreate && f.kind != frameCancel {
		return f, misused("type", `A message needs a type: "create" or "cancel".`)
	}
	if !validStreamID(f.stream) {
		return f, misused("stream_id", "A stream_id has 1 to 256 characters of A-Z, a-z, 0-9, _, . and -.")
	}
	if !request.Empty() {
		f.request = request.Of(msg)
	}
	return f, nil
}

func validStreamID(id string) bool {
	if len(id) == 0 || len(id) > maxStreamID {
		return false
	}
	for _, ch := range []byte(id) {
		if (ch|0x20)-'a' > 'z'-'a' && ch-'0' > 9 && ch != '_' && ch != '.' && ch != '-' {
			return false
		}
	}
	return true
}

// impliedStream returns the body that a POST would have had: a stream is what there
// is on this transport, so it need not be asked for.
func impliedStream(request []byte) ([]byte, error) {
	c := jsonscan.Cursor{B: request, Limit: 1 << 20} // parseFrame has bounded it
	if c.Peek() != '{' {
		return request, nil // to be refused as a POST with it would be
	}
	for c.Object(); c.Key(); {
		name := string(c.Name)
		v := c.Skip()
		if name != "stream" {
			continue
		}
		switch string(v.Of(request)) {
		case "null":
			return spliced(request, v, "true"), nil
		case "false":
			return nil, providers.Invalid("stream", "Answers over WebSocket are streams: leave stream out, or POST the request for an answer in one piece.")
		}
		return request, nil
	}
	at := 1
	for request[at-1] != '{' {
		at++
	}
	member := `"stream":true,`
	if c = (jsonscan.Cursor{B: request, I: at}); c.Peek() == '}' {
		member = `"stream":true`
	}
	return spliced(request, jsonscan.Span{Start: at, End: at}, member), nil
}

func spliced(text []byte, at jsonscan.Span, with string) []byte {
	out := make([]byte, 0, len(text)+len(with))
	out = append(append(out, text[:at.Start]...), with...)
	return append(out, text[at.End:]...)
}

// appendHead begins a message of the gateway. stream may be "" for one that is about
// the connection.
func appendHead(dst []byte, kind, stream string) []byte {
	dst = append(append(append(dst, `{"type":"`...), kind...), '"')
	if stream != "" {
		dst = append(append(append(dst, `,"stream_id":"`...), stream...), '"')
	}
	return dst
}

func acceptedMessage(stream, id string, position int) []byte {
	b := append(append(appendHead(nil, "accepted", stream), `,"request_id":"`...), id...)
	return append(strconv.AppendInt(append(b, `","position":`...), int64(position), 10), '}')
}

// chunkBefore and chunkAfter stand around each payload of a stream.
func chunkBefore(stream string) string {
	return string(append(appendHead(nil, "chunk", stream), `,"data":`...))
}

const chunkAfter = "}"

// appendDone ends a complete answer; ttft is 0 when no content came.
func appendDone(dst []byte, stream, finish string, u *streaming.UsageData, ttft, total time.Duration) []byte {
	dst = appendOrNull(append(appendHead(dst, "done", stream), `,"finish_reason":`...), finish)
	dst = appendUsage(dst, u)
	dst = append(dst, `,"ttft_ms":`...)
	if ttft > 0 {
		dst = strconv.AppendInt(dst, ttft.Milliseconds(), 10)
	} else {
		dst = append(dst, "null"...)
	}
	dst = strconv.AppendInt(append(dst, `,"total_ms":`...), total.Milliseconds(), 10)
	return append(dst, '}')
}

func appendCancelled(dst []byte, stream string, u *streaming.UsageData) []byte {
	return append(appendUsage(appendHead(dst, "cancelled", stream), u), '}')
}

// appendErrorMessage tells a failure; id is of the request that failed, if one did.
func (f failure) appendErrorMessage(dst []byte, stream, id string) []byte {
	dst = appendHead(dst, "error", stream)
	if id != "" {
		dst = append(append(append(dst, `,"request_id":"`...), id...), '"')
	}
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(f.status), 10)
	if f.retryAfter > 0 {
		dst = strconv.AppendInt(append(dst, `,"retry_after_ms":`...), f.retryAfter.Milliseconds(), 10)
	}
	return append(f.appendError(append(dst, `,"error":`...)), '}')
}

func goingAwayMessage(in time.Duration, reason string) []byte {
	b := strconv.AppendInt(append(appendHead(nil, "going_away", ""), `,"in_ms":`...), in.Milliseconds(), 10)
	return append(append(append(b, `,"reason":"`...), reason...), `"}`...)
}

// appendUsage adds the member usage under OpenAI's names, and says when nobody but
// the gateway counted.
func appendUsage(dst []byte, u *streaming.UsageData) []byte {
	number := func(name string, n int64) {
		dst = strconv.AppendInt(append(dst, name...), n, 10)
	}
	number(`,"usage":{"prompt_tokens":`, u.Prompt)
	number(`,"completion_tokens":`, u.Completion)
	number(`,"total_tokens":`, max(u.Total, u.Prompt+u.Completion))
	if u.Cached != 0 {
		number(`,"prompt_tokens_details":{"cached_tokens":`, u.Cached)
		dst = append(dst, '}')
	}
	if u.Reasoning != 0 {
		number(`,"completion_tokens_details":{"reasoning_tokens":`, u.Reasoning)
		dst = append(dst, '}')
	}
	if u.Estimated {
		dst = append(dst, `,"estimated":true`...)
	}
	return append(dst, '}')
}

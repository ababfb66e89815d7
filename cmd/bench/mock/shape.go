// Package mock knows the upstream of the benchmark: a server as cheap as Go
// allows that answers OpenAI chat completions from prebuilt bytes, with content
// that a reader can check token by token.
package mock

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// Model is the only model of the upstream.
const Model = "bench"

// maxTokens bounds a stream; it is far above what any test asks for.
const maxTokens = 10_000_000

// Shape is one answer as a client asks for it. It travels inside the prompt, the
// only field that every gateway forwards as it is.
type Shape struct {
	Tokens int           // content events of the stream, or words of a whole answer
	Every  time.Duration // between two tokens; 0 sends as fast as the socket takes
	Seed   int           // chooses the content: see Words
	Stream bool          // server-sent events, or one JSON body
	Usage  bool          // ask for the usage trailer (stream_options.include_usage)
	Prompt int           // further bytes of prompt; the answer does not depend on them
}

const tagFormat = "bench tokens=%d every_us=%d seed=%d."

// Request is the JSON body that asks for the shape.
func (s Shape) Request() []byte {
	tag := fmt.Sprintf(tagFormat, s.Tokens, s.Every.Microseconds(), s.Seed)
	var options string
	if s.Stream {
		options = `,"stream":true`
		if s.Usage {
			options += `,"stream_options":{"include_usage":true}`
		}
	}
	return fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"system","content":"You are a helpful assistant. Answer in one paragraph.%s"},`+
		`{"role":"user","content":%q}],"temperature":0.7,"max_tokens":4096%s}`, Model, strings.Repeat(" ", s.Prompt), tag, options)
}

// ParseRequest finds the shape in a request body by byte search: it must not
// cost what a JSON decoder does. It reads what Request writes, in whatever order
// a gateway may have put the fields.
func ParseRequest(body []byte) (Shape, error) {
	i := bytes.Index(body, []byte("bench tokens="))
	if i < 0 {
		return Shape{}, fmt.Errorf("no benchmark tag in the request")
	}
	var s Shape
	var us int64
	tag, _, _ := bytes.Cut(body[i:], []byte(`"`))
	if _, err := fmt.Sscanf(string(tag), tagFormat, &s.Tokens, &us, &s.Seed); err != nil {
		return Shape{}, fmt.Errorf("benchmark tag: %w", err)
	}
	if s.Tokens < 0 || s.Tokens > maxTokens || us < 0 || s.Seed < 0 {
		return Shape{}, fmt.Errorf("benchmark tag out of range: %q", tag)
	}
	s.Every = time.Duration(us) * time.Microsecond
	s.Stream = has(body, `"stream"`, "true")
	s.Usage = has(body, `"include_usage"`, "true")
	return s, nil
}

// has reports whether body holds key, a colon and value, with or without spaces.
func has(body []byte, key, value string) bool {
	for {
		_, rest, ok := bytes.Cut(body, []byte(key))
		if !ok {
			return false
		}
		after, colon := bytes.CutPrefix(bytes.TrimLeft(rest, " "), []byte(":"))
		if colon && bytes.HasPrefix(bytes.TrimLeft(after, " "), []byte(value)) {
			return true
		}
		body = rest
	}
}

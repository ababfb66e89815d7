package providers

import (
	"bytes"
	"strconv"

	"sluice/streaming/jsonscan"
)

// bytesPerToken is the divisor for text that nobody counted.
const bytesPerToken = 3.3

// PromptEstimate guesses the tokens of the prompt from its length, without the
// bytes of inlined images and files.
func (r *Request) PromptEstimate() int64 {
	if r.multipart() {
		return 0
	}
	n := 0
	c := jsonscan.Cursor{B: r.Body, Limit: 1 << 20} // Parse has bounded it
	for c.Object(); c.Key(); {
		name := string(c.Name)
		v := c.Skip()
		switch name {
		case "messages", "prompt", "input", "instructions", "tools":
			n += v.End - v.Start - inlined(v.Of(r.Body))
		}
	}
	return int64(float64(n) / bytesPerToken)
}

// inlined counts the bytes of data URLs.
func inlined(text []byte) (n int) {
	mark := []byte(";base64,")
	for {
		i := bytes.Index(text, mark)
		if i < 0 {
			return n
		}
		text = text[i+len(mark):]
		end := bytes.IndexByte(text, '"')
		if end < 0 {
			return n
		}
		n += end
		text = text[end:]
	}
}

// MaxTokens is the cap on output that the caller declared over all choices; 0 means none.
func (r *Request) MaxTokens() int64 {
	if r.multipart() {
		return 0
	}
	var most int64
	c := jsonscan.Cursor{B: r.Body}
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "max_tokens", "max_completion_tokens", "max_output_tokens":
			if n, err := strconv.ParseInt(string(c.Skip().Of(r.Body)), 10, 64); err == nil {
				most = max(most, n)
			}
		default:
			c.Skip()
		}
	}
	return most * int64(r.Choices)
}

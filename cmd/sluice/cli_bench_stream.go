package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// How one answer ended; any other value is the kind of an error.
const (
	endComplete   = "complete"
	endTruncated  = "truncated"
	endUnfinished = "unfinished" // still running when the benchmark was over
)

// benchChunk is the little of a chunk that is measured.
type benchChunk struct {
	Choices []struct {
		Delta struct {
			Content          string          `json:"content"`
			ReasoningContent string          `json:"reasoning_content"`
			ToolCalls        json.RawMessage `json:"tool_calls"`
		} `json:"delta"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		CompletionTokens int64 `json:"completion_tokens"`
	} `json:"usage"`
	Error *struct {
		Type string `json:"type"`
		Code any    `json:"code"`
	} `json:"error"`
}

// hasToken tells whether the chunk brings something for the reader.
func (c *benchChunk) hasToken() bool {
	for _, choice := range c.Choices {
		d := choice.Delta
		if d.Content != "" || d.ReasoningContent != "" || len(d.ToolCalls) > 4 { // longer than null
			return true
		}
	}
	return false
}

// stream runs one answer and says how it ended.
func (b *bencher) stream(ctx context.Context, stats *benchStats) string {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := b.request(ctx)
	if err != nil {
		return "bad request: " + err.Error()
	}
	start := time.Now()
	resp, err := b.client.Do(req)
	if err != nil {
		return dialKind(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is reused
		return fmt.Sprintf("http %d", resp.StatusCode)
	}
	return readAnswer(resp.Body, start, stats)
}

// dialKind names an error before any response.
func dialKind(err error) string {
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &op) && op.Op == "dial":
		return "cannot connect"
	default:
		return "connection broke before an answer"
	}
}

// readAnswer measures one event stream to its end.
func readAnswer(body io.Reader, start time.Time, stats *benchStats) string {
	r := bufio.NewReaderSize(body, 32<<10)
	m := answerMeter{start: start, stats: stats}
	defer m.settle()
	for {
		line, err := readLine(r)
		switch {
		case errors.Is(err, errLongLine):
			return "event too large"
		case err != nil && len(line) == 0:
			return m.end(errors.Is(err, io.EOF))
		}
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			return m.end(true)
		}
		var chunk benchChunk
		if json.Unmarshal(data, &chunk) != nil {
			return "malformed chunk"
		}
		if chunk.Error != nil {
			return chunk.errorKind()
		}
		m.measure(&chunk)
	}
}

// answerMeter follows the chunks of one answer.
type answerMeter struct {
	start, last      time.Time // last is zero before the first token
	deltas, reported int64     // events with a token; tokens by the usage
	finished         bool      // a finish reason was seen
	stats            *benchStats
}

func (m *answerMeter) measure(chunk *benchChunk) {
	if chunk.hasToken() {
		now := time.Now()
		if m.last.IsZero() {
			m.stats.first.add(now.Sub(m.start))
		} else {
			m.stats.between.add(now.Sub(m.last))
		}
		m.last = now
		m.deltas++
	}
	for _, choice := range chunk.Choices {
		m.finished = m.finished || choice.FinishReason != nil && *choice.FinishReason != ""
	}
	if chunk.Usage != nil {
		m.reported = chunk.Usage.CompletionTokens
	}
}

// end judges an answer that ended by [DONE] or EOF (clean), or by an error.
func (m *answerMeter) end(clean bool) string {
	if clean && m.finished {
		return endComplete
	}
	return endTruncated
}

// settle counts tokens by the usage, and by events where none was sent.
func (m *answerMeter) settle() {
	m.stats.tokens += max(m.deltas, m.reported)
	m.stats.deltas += m.deltas
}

// errorKind names an error event by its code, or else its type.
func (c *benchChunk) errorKind() string {
	if code, ok := c.Error.Code.(string); ok && code != "" {
		return fmt.Sprintf("error event: %.60s", code)
	}
	return fmt.Sprintf("error event: %.60s", c.Error.Type)
}

// maxBenchLine bounds one line of a stream.
const maxBenchLine = 16 << 20

var errLongLine = errors.New("line too long")

// readLine reads one line of at most maxBenchLine bytes. The line is valid
// until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.ReadSlice('\n')
		long = append(long, line...)
		if len(long) > maxBenchLine {
			return nil, errLongLine
		}
	}
	return long, err
}

package streaming

import (
	"bytes"
	"iter"
	"net/http"
	"time"
)

// Kind says what an event is for. When one upstream payload carries several
// things (last text and finish reason), Kind names the first of them in the
// order Text, Reasoning, ToolCall, Stop, and the fields hold the rest.
type Kind uint8

const (
	// Lifecycle is a payload without content: a role, an empty delta, a filter result.
	Lifecycle Kind = iota
	// Meta describes the answer; it comes first and may be repeated until the first content.
	Meta
	// Text is answer text (or a refusal, or an audio piece) of one choice.
	Text
	// Reasoning is thinking text of one choice.
	Reasoning
	// ToolCall is a fragment of one tool call of one choice.
	ToolCall
	// Stop ends one choice; its reason is in Event.Stop.
	Stop
	// Usage is what the answer cost so far, cumulative: the last one counts.
	Usage
	// Whole is a complete body that was not streamed.
	Whole
	// Bytes is a piece of a body that is passed on unread (audio, images).
	Bytes
)

// Commits reports whether an event of this kind is content: once a client has
// seen one, the answer can no longer be tried again elsewhere.
func (k Kind) Commits() bool {
	switch k {
	case Text, Reasoning, ToolCall, Stop, Whole, Bytes:
		return true
	default:
		return false
	}
}

// Dialect names the format of Event.Raw.
type Dialect uint8

const (
	// Typed events carry no Raw: the encoder builds the payload from the fields.
	Typed Dialect = iota
	// Chat is an OpenAI chat.completion.chunk, or a chat.completion when Whole.
	Chat
	// Completions is an OpenAI text_completion.
	Completions
	// Responses is an event of OpenAI's Responses API.
	Responses
	// Opaque bytes are passed on unread.
	Opaque
)

// Event is one step of an answer.
type Event struct {
	Kind    Kind
	Dialect Dialect // of Raw
	Index   int     // choice; -1 for a payload without one
	Text    string  // Text and Reasoning, when a translation needs it
	Stop    string  // finish reason in OpenAI's words; "" while the choice runs
	Tool    *ToolDelta
	Usage   *UsageData
	Meta    *MetaData
	// Logprobs are those of Text, in events without Raw; nil unless the caller asked. On a
	// Stop they are of tokens that no text was told of.
	Logprobs *LogprobData
	// Raw is the payload as the upstream sent it (or as it was repaired), without
	// framing. An encoder whose dialect it is sends it as it is.
	Raw []byte
	// Name is the SSE event name that came with Raw; most dialects have none.
	Name string
	// Size is the length of the content in Raw in bytes of JSON text, for the
	// estimate of usage when Text is not filled.
	Size int
}

// ToolDelta is a fragment of a tool call. ID and Name come once, in the first
// fragment of an index.
type ToolDelta struct {
	Index          int
	ID, Name, Args string
}

// UsageData counts tokens. Raw, when set, is the upstream's own usage object.
type UsageData struct {
	Prompt, Completion, Total int64
	Cached, Reasoning         int64
	Estimated                 bool
	Raw                       []byte
}

// MetaData describes an answer. Empty fields say nothing new.
type MetaData struct {
	ID      string
	Created int64 // unix seconds
	Model   string
	Status  int         // of the upstream's answer, when it is to be passed on
	Header  http.Header // response headers a client may see; read only, for others may share it
	Queue   *QueueData
	// Continued, with a Stop, says that the answer broke in the middle and another target has
	// told the rest.
	Continued bool
}

// QueueData is where an answer stands in the line for its model.
type QueueData struct {
	Position int           // from 1; 0: it waits no longer
	Waited   time.Duration // so far
}

// Stream yields an answer in batches, in order: one batch is what one upstream
// read brought, and the sink flushes after each. An empty batch is a sign of life
// without an event. A batch and its byte slices are valid until the next step:
// whoever keeps an event clones it. An error is yielded last, alone. A stream
// acquires its upstream when ranging starts, releases it when ranging stops, is
// ranged over once, and never yields after false or from another goroutine.
type Stream = iter.Seq2[[]Event, error]

// Clone returns a copy that shares no memory with the stream.
func (e *Event) Clone() Event {
	c := *e
	c.Raw = bytes.Clone(e.Raw)
	if e.Tool != nil {
		t := *e.Tool
		c.Tool = &t
	}
	if e.Usage != nil {
		u := *e.Usage
		u.Raw = bytes.Clone(u.Raw)
		c.Usage = &u
	}
	if e.Meta != nil {
		m := *e.Meta
		c.Meta = &m
	}
	return c
}

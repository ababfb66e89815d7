package dialect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// maxCollected bounds the content that is collected for one body, in bytes.
const maxCollected = 16 << 20

// whole collects typed events and gives them as one body.
type whole struct {
	op      providers.Op
	opts    Options
	choices map[int]*answer
	usage   keptUsage
	size    int
}

// answer is one choice.
type answer struct {
	text, reasoning []byte
	tools           map[int]*call
	stop            string
	// The tokens of text and of reasoning, where the caller asked for log probabilities.
	scores, thoughtScores []scored
}

// call is one tool call.
type call struct {
	id, name string
	args     []byte
}

// NewWhole encodes an answer that is not streamed from typed events: a
// chat.completion or a text_completion, written by AppendEnd. Other operations have
// no typed form; a body that is already complete does not pass through here.
func NewWhole(op providers.Op, o Options) streaming.Encoder {
	return &whole{op: op, opts: o, choices: map[int]*answer{}}
}

// Append collects. The error says that an event cannot be a part of the body, or
// that the body would be longer than 16 MiB.
func (s *whole) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	s.opts.describe(ev.Meta)
	if ev.Kind == streaming.Usage || ev.Usage != nil {
		s.usage.keep(ev, streaming.Typed)
	}
	if !ev.Kind.Commits() {
		return dst, nil
	}
	s.size += len(ev.Text) + scoredSize(ev.Logprobs)
	if ev.Tool != nil {
		s.size += len(ev.Tool.Args) + len(ev.Tool.Name) + len(ev.Tool.ID)
	}
	if err := s.check(ev); err != nil {
		return dst, err
	}
	s.collect(ev)
	return dst, nil
}

func (s *whole) check(ev *streaming.Event) error {
	switch {
	case s.op > providers.Completions:
		return fmt.Errorf("an answer of %s cannot be put together from events", s.op)
	case ev.Kind == streaming.Whole || ev.Kind == streaming.Bytes:
		return errors.New("a complete body cannot be a part of another")
	case len(ev.Raw) > 0 && ev.Text == "" && ev.Tool == nil && ev.Kind != streaming.Stop:
		return errors.New("a payload that was not translated cannot be put into a body")
	case ev.Tool != nil && s.op == providers.Completions:
		return errors.New("a text completion cannot carry a tool call")
	case s.size > maxCollected:
		return &providers.Error{Kind: providers.EventTooLarge,
			Message: fmt.Sprintf("The answer is longer than %d bytes; ask for a stream instead.", maxCollected)}
	default:
		return nil
	}
}

func (s *whole) collect(ev *streaming.Event) {
	a := s.choices[ev.Index]
	if a == nil {
		a = &answer{}
		s.choices[ev.Index] = a
	}
	if ev.Kind == streaming.Reasoning {
		a.thoughtScores = score(a.thoughtScores, ev.Text, len(a.reasoning), ev.Logprobs)
		a.reasoning = append(a.reasoning, ev.Text...)
	} else {
		a.scores = score(a.scores, ev.Text, len(a.text), ev.Logprobs)
		a.text = append(a.text, ev.Text...)
	}
	if t := ev.Tool; t != nil {
		a.addTool(t)
	}
	if ev.Stop != "" || ev.Kind == streaming.Stop {
		a.stop = orStop(ev.Stop)
	}
}

func (a *answer) addTool(t *streaming.ToolDelta) {
	c := a.tools[t.Index]
	if c == nil {
		c = &call{id: t.ID, name: t.Name}
		if a.tools == nil {
			a.tools = map[int]*call{}
		}
		a.tools[t.Index] = c
	}
	c.args = append(c.args, t.Args...)
}

// AppendHeartbeat adds nothing: a body has no place for one.
func (s *whole) AppendHeartbeat(dst []byte) []byte { return dst }

// AppendEnd adds the body, or the error envelope.
func (s *whole) AppendEnd(dst []byte, err error) []byte {
	if err != nil {
		dst = append(dst, `{"error":`...)
		dst = s.opts.appendError(dst, err)
		return append(dst, '}')
	}
	object := "chat.completion"
	if s.op == providers.Completions {
		object = "text_completion"
	}
	dst = s.opts.appendHead(dst, object)
	for n, i := range sortedKeys(s.choices) {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = s.appendChoice(dst, i, s.choices[i])
	}
	dst = append(dst, ']')
	if s.usage.seen {
		dst = append(dst, `,"usage":`...)
		dst = appendUsage(dst, &s.usage.data)
	}
	return append(dst, '}')
}

func (s *whole) appendChoice(dst []byte, index int, a *answer) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	if s.op == providers.Completions {
		dst = append(dst, `,"text":`...)
		dst = jsonscan.AppendQuote(dst, s.textOf(a))
	} else {
		dst = append(dst, `,"message":`...)
		dst = s.appendMessage(dst, index, a)
	}
	dst = append(dst, `,"logprobs":`...)
	switch scores := s.scoresOf(a); {
	case len(scores) == 0:
		dst = append(dst, "null"...)
	case s.op == providers.Completions:
		dst = appendTextLogprobs(dst, scores, s.textOf(a), 0)
	default:
		dst = appendLogprobs(dst, scores)
	}
	dst = append(dst, `,"finish_reason":`...)
	if a.stop == "" {
		dst = append(dst, "null"...)
	} else {
		dst = jsonscan.AppendQuote(dst, a.stop)
	}
	return append(dst, '}')
}

func (s *whole) appendMessage(dst []byte, index int, a *answer) []byte {
	dst = append(dst, `{"role":"assistant","content":`...)
	if text := s.textOf(a); text == "" && len(a.tools) > 0 {
		dst = append(dst, "null"...)
	} else {
		dst = jsonscan.AppendQuote(dst, text)
	}
	dst = append(dst, `,"refusal":null,"annotations":[]`...)
	dst = s.appendReasoning(dst, a)
	for n, i := range sortedKeys(a.tools) {
		if n == 0 {
			dst = append(dst, `,"tool_calls":[`...)
		} else {
			dst = append(dst, ',')
		}
		c := a.tools[i]
		dst = append(dst, `{"id":`...)
		dst = jsonscan.AppendQuote(dst, callID(c.id, s.opts.ID, index, i))
		dst = append(dst, `,"type":"function","function":{"name":`...)
		dst = jsonscan.AppendQuote(dst, c.name)
		dst = append(dst, `,"arguments":`...)
		dst = jsonscan.AppendQuote(dst, string(c.args))
		dst = append(dst, `}}`...)
	}
	if len(a.tools) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func sortedKeys[T any](m map[int]T) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

package wall

import (
	"fmt"
	"time"
)

// At is a position in an answer at which something happens. The zero value is Never.
type At int

const (
	Never         At = 0
	BeforeHeaders At = -1 // instead of the response headers
	AfterHeaders  At = -2 // after the headers, before the first byte of the body
	AfterFinish   At = -3 // after the finish chunk, before usage and [DONE]
)

// After is the position after k deltas. Reasoning, text and tool fragments all count, per choice; After(0) is
// after the role chunk.
func After(k int) At { return At(k + 1) }

// tokens returns k of After(k), or -1 for the other positions.
func (a At) tokens() int { return max(int(a), 0) - 1 }

// Script says how one request is answered. The zero value is a correct answer of 16 tokens without delays. The
// textual form of every field is its key in Keys.
type Script struct {
	// Content. Tokens 0 means 16 (0 when Tools is set), negative means none; Args is the number of chain tokens in
	// the arguments of each tool call, 0 means 4. Seed "" means "wall". An explicit max_tokens of the request cuts
	// the answer with finish_reason "length".
	Tokens         int
	Seed           string
	Alphabet       Alphabet
	Reasoning      int
	ReasoningField string // "reasoning_content" (default) or "reasoning"
	Tools          int
	Args           int
	Prompt         int    // prompt_tokens to report; 0 counts the words of the request
	Finish         string // finish_reason; "" is the true one
	Prefill        string // a trailing assistant message or prompt: "ignore" (default), "continue" its chain, or "reject" with 400

	// Time. A non-streamed answer waits for the sum before its headers.
	Headers time.Duration // before the response headers
	First   time.Duration // before the first token
	Delay   time.Duration // between writes of tokens
	Burst   int           // deltas per write; when above 1 the finish, usage and [DONE] share the last write

	// Framing.
	NoSpace, CRLF, CR, BOM bool
	EventNames, IDLines    bool
	RetryLine              bool
	Multiline              bool // the JSON of an event in two data lines
	Spaced                 bool // blanks after commas and colons in the JSON
	Unterminated           bool // the last event lacks its blank line
	Comments               time.Duration
	Keepalive              time.Duration
	Ping                   string
	Split                  int   // bytes per write
	SplitAt                []int // offsets in the body at which writes end
	Drip                   time.Duration
	Gzip, HTTP10           bool
	ContentType            string
	ResponseHeaders        []string // "name:value"
	Informational          int      // a 1xx status before the answer

	// Shapes of chunks. Role is "late" (after First; default), "early" (before First), "none", "each" or "first" (in
	// the first content chunk).
	Role                                                                         string
	NoID, EmptyID, NoIndex, NoChoices, NoModel, NoCreated, NoObject              bool
	FinishEmpty, FinishInLast, ErrorNull, MultiChoice, ContentNull, ChoicesFirst bool
	Extra, Obfuscation, Logprobs, Filter, Alien                                  bool
	ToolRepeatID, ToolNoIndex, ToolWhole, ToolInterleave                         bool
	Usage                                                                        string // "" is a trailer when the request asks for it
	NoDone, NoFinish                                                             bool
	AfterDone                                                                    string
	Hold                                                                         time.Duration

	// Faults.
	Cut, Abort, Reset, Stall, Malformed, Giant, Error At
	Partial                                           bool // half of the next event precedes Cut, Abort, Reset or Stall
	StallFor                                          time.Duration
	MalformedRun                                      int // 0 means 1
	MalformedLossy                                    bool
	GiantSize                                         int // bytes; 0 means 1 MiB
	ErrorShape                                        string
	ErrorDone                                         string // "yes" or "no" overrides what the shape's server does

	// Errors instead of an answer.
	Status                                 int
	Err                                    string // shape of the body
	ErrType, ErrCode, ErrParam, ErrMessage string
	RetryAfter                             string
	RetryAfterMS                           int
	HTML200, JSON200                       bool
	Fail                                   int // the first calls that fail with FailWith
	FailWith                               string
}

// content returns the numbers of tokens that the script means, before the request's own limit.
func (s *Script) content() (reasoning, text, args int) {
	text, args = s.Tokens, s.Args
	switch {
	case text < 0:
		text = 0
	case text == 0 && s.Tools == 0:
		text = 16
	}
	if args == 0 {
		args = 4
	}
	return s.Reasoning, text, args
}

// chain returns the chain of the answer's text.
func (s *Script) chain() Chain {
	if s.Seed == "" {
		return Chain{Seed: "wall", Alphabet: s.Alphabet}
	}
	return Chain{Seed: s.Seed, Alphabet: s.Alphabet}
}

// attempt returns the script for call number n, counted from 0, with Fail decided.
func (s Script) attempt(n int) (Script, error) {
	if n >= s.Fail {
		return s, nil
	}
	// The other faults are those of the calls that do not fail.
	s.Cut, s.Abort, s.Reset, s.Stall, s.Malformed, s.Giant, s.Error = Never, Never, Never, Never, Never, Never, Never
	switch s.FailWith {
	case "reset":
		s.Reset = BeforeHeaders
	case "abort":
		s.Abort = BeforeHeaders
	case "stall":
		s.Stall = BeforeHeaders
	case "cut":
		s.Cut = AfterHeaders
	case "html":
		s.HTML200 = true
	default:
		status, err := parseStatus(s.FailWith)
		if err != nil {
			return s, fmt.Errorf("fail: %w", err)
		}
		s.Status = status
	}
	return s, nil
}

// check refuses positions that the answer never reaches: a fault that silently does not happen proves nothing.
func (s *Script) check() error {
	reasoning, text, args := s.content()
	total := reasoning + text
	if s.ToolWhole {
		total += s.Tools
	} else {
		total += s.Tools * (args + 3)
	}
	for _, f := range []struct {
		key  string
		at   At
		last int
	}{
		{"cut", s.Cut, total}, {"abort", s.Abort, total}, {"reset", s.Reset, total}, {"stall", s.Stall, total},
		{"error", s.Error, total}, {"malformed", s.Malformed, total - 1}, {"giant", s.Giant, total - 1},
	} {
		if k := f.at.tokens(); k > f.last {
			return fmt.Errorf("%s=%d lies beyond the answer's %d deltas", f.key, k, total)
		}
	}
	if s.Error == BeforeHeaders {
		return fmt.Errorf("error=pre is no position in a stream; use status")
	}
	if s.Alphabet != "" && !s.Alphabet.known() {
		return fmt.Errorf("alphabet=%s is unknown", s.Alphabet)
	}
	return nil
}

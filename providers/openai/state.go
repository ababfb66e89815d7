package openai

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// state is what one streamed answer has told so far: its identity, and for each
// choice whether it has begun and ended. It judges payloads and mends those that
// some client could not read.
type state struct {
	chat      bool
	presentAs string
	fallback  string // id when the upstream gives none
	// wantsUsage: the caller asked for usage, so "usage":null in its chunks is what it expects.
	wantsUsage bool

	id, model, created []byte // JSON values every payload must carry
	known              bool
	early              [][]byte // payloads without an identity that came before the first with one

	wanted         int // how many choices were asked for
	begun, ended   choiceSet
	nbegun, nended int
	tools          []toolSeen

	done      bool
	malformed int // in a row
	look      look
}

type toolSeen struct{ choice, index int }

func newState(req *providers.Request) *state {
	s := &state{chat: req.Op == providers.Chat, presentAs: req.PresentAs, wantsUsage: req.WantsUsage, wanted: req.Choices}
	prefix := "cmpl-"
	if s.chat {
		prefix = "chatcmpl-"
	}
	s.fallback = prefix + strings.TrimPrefix(req.ID, "req_")
	return s
}

func (s *state) dialect() streaming.Dialect {
	if s.chat {
		return streaming.Chat
	}
	return streaming.Completions
}

func (s *state) object() string {
	if s.chat {
		return `"chat.completion.chunk"`
	}
	return `"text_completion"`
}

// choiceSet is a set of choice indexes up to maxIndex; only those from 128 on, which
// many prompts in one completions request bring, cost memory of their own.
type choiceSet struct {
	low  [2]uint64
	high []uint64
}

func (s *choiceSet) has(i int) bool {
	word := i >> 6
	if word < len(s.low) {
		return s.low[word]&(1<<(i&63)) != 0
	}
	word -= len(s.low)
	return word < len(s.high) && s.high[word]&(1<<(i&63)) != 0
}

// add reports whether i is new to the set.
func (s *choiceSet) add(i int) bool {
	if s.has(i) {
		return false
	}
	word := i >> 6
	if word < len(s.low) {
		s.low[word] |= 1 << (i & 63)
		return true
	}
	word -= len(s.low)
	for word >= len(s.high) {
		s.high = append(s.high, 0)
	}
	s.high[word] |= 1 << (i & 63)
	return true
}

// identify takes the identity of the answer from its first payload, and makes up
// what that does not say.
func (s *state) identify(b []byte, model string) *streaming.MetaData {
	l := &s.look
	s.known = true
	s.id = jsonscan.AppendQuote(nil, s.fallback)
	if isSet(l.id, b) {
		s.id = bytes.Clone(l.id.Of(b))
	}
	switch {
	case s.presentAs != "":
		s.model = jsonscan.AppendQuote(nil, s.presentAs)
	case isSet(l.model, b):
		s.model = bytes.Clone(l.model.Of(b))
	default:
		s.model = jsonscan.AppendQuote(nil, model)
	}
	s.created = strconv.AppendInt(nil, time.Now().Unix(), 10)
	if isCreated(l.created, b) {
		s.created = bytes.Clone(l.created.Of(b))
	}
	m := &streaming.MetaData{}
	m.ID, _ = jsonscan.Unquote(s.id)
	m.Model, _ = jsonscan.Unquote(s.model)
	m.Created, _ = strconv.ParseInt(string(s.created), 10, 64)
	return m
}

// withoutUsage takes "usage":null out of a payload, in the buffer it came in: it is
// there only because the gateway asked for usage.
func (s *state) withoutUsage(b []byte) []byte {
	return cut(b, s.look.usageKey, s.look.usage.End)
}

// cut takes a member, which stands from its key to the end of its value, out of an
// object, in the buffer it came in.
func cut(b []byte, from, to int) []byte {
	before := bytes.TrimRight(b[:from], " \t\r\n")
	if before[len(before)-1] == ',' {
		from = len(before) - 1
	} else if after := bytes.TrimLeft(b[to:], " \t\r\n"); len(after) > 0 && after[0] == ',' {
		to = len(b) - len(after) + 1
	}
	return append(b[:from], b[to:]...)
}

func isCreated(v jsonscan.Span, b []byte) bool {
	if v.Empty() {
		return false
	}
	n, err := strconv.ParseInt(string(v.Of(b)), 10, 64)
	return err == nil && n > 0
}

// renamed reports whether the model name must be replaced by the one to present,
// which needs no more than that when the payload is clean.
func (s *state) renamed(b []byte) bool {
	return s.presentAs != "" && !s.look.model.Empty() && !bytes.Equal(s.look.model.Of(b), s.model)
}

// rename copies a payload with the model name replaced. What was seen of its usage
// moves along.
func (s *state) rename(b []byte) []byte {
	l := &s.look
	if by := len(s.model) - (l.model.End - l.model.Start); l.usageKey > l.model.Start {
		l.usageKey += by
		l.usage.Start += by
		l.usage.End += by
	}
	return slices.Concat(b[:l.model.Start], s.model, b[l.model.End:])
}

// clean reports whether every client reads the payload as it stands, but for a model
// name that is to be presented as another.
func (s *state) clean(b []byte) bool {
	l := &s.look
	if l.odd || l.toolsOdd || !l.listed || !l.fault.Empty() ||
		!bytes.Equal(l.id.Of(b), s.id) || !bytes.Equal(l.model.Of(b), s.model) && !s.renamed(b) ||
		!bytes.Equal(l.created.Of(b), s.created) || string(l.object.Of(b)) != s.object() {
		return false
	}
	if l.choices == 0 {
		return true
	}
	if !l.indexed || !isNull(l.usage, b) || !s.finishClean(b) {
		return false
	}
	if !s.chat {
		return l.texted
	}
	return l.delta && !l.unnamed(b) && s.roleClean(b) && s.toolsClean(b)
}

func (s *state) finishClean(b []byte) bool {
	v := s.look.finish
	if isNull(v, b) {
		return true
	}
	return isSet(v, b) && s.stop(b) == string(b[v.Start+1:v.End-1])
}

// roleClean: the role stands in the first payload of a choice and in no other,
// for some clients glue repeated strings together.
func (s *state) roleClean(b []byte) bool {
	if s.begun.has(s.look.index) {
		return !isSet(s.look.role, b)
	}
	return string(s.look.role.Of(b)) == `"assistant"`
}

func (s *state) toolsClean(b []byte) bool {
	for _, t := range s.look.tools {
		if !t.indexed || (isSet(t.id, b) || isSet(t.name, b)) && s.seenTool(t.index) {
			return false
		}
	}
	return true
}

func (s *state) seenTool(index int) bool {
	for _, t := range s.tools {
		if t.choice == s.look.index && t.index == index {
			return true
		}
	}
	return false
}

// stop returns the finish reason in OpenAI's words; "" when the choice runs on.
func (s *state) stop(b []byte) string {
	v := s.look.finish
	if !isSet(v, b) {
		return ""
	}
	switch word := string(b[v.Start+1 : v.End-1]); word {
	case "eos_token", "stop_sequence", "eos":
		return "stop"
	default:
		return word
	}
}

// note remembers what a payload did, after it was judged.
func (s *state) note(stop string) {
	l := &s.look
	if l.choices == 0 {
		return
	}
	s.start(l.index)
	if stop != "" && s.ended.add(l.index) {
		s.nended++
	}
	for _, t := range l.tools {
		if !s.seenTool(t.index) {
			s.tools = append(s.tools, toolSeen{l.index, t.index})
		}
	}
}

// start remembers that a choice has begun.
func (s *state) start(index int) {
	if s.begun.add(index) {
		s.nbegun++
	}
}

// complete reports whether every choice that began has ended, and one did.
func (s *state) complete() bool {
	return s.nbegun > 0 && s.nbegun == s.nended
}

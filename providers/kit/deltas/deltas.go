// Package deltas makes the batches of adapters that translate: it decodes the texts of
// JSON payloads into events, with one allocation for all texts of a batch.
package deltas

import (
	"unicode/utf16"
	"unicode/utf8"

	"sluice/streaming"
)

// Batch collects the events of one upstream read. The zero value is empty. It is used
// by one goroutine at a time.
type Batch struct {
	events []streaming.Event
	texts  []part // of the events that have a text here, in order
	bytes  []byte // of all texts
}

// part says which bytes are the text of an event.
type part struct{ event, from, to int }

// Reset empties the batch for the next read; what Events returned is no longer valid.
func (b *Batch) Reset() {
	b.events, b.texts, b.bytes = b.events[:0], b.texts[:0], b.bytes[:0]
}

// Add appends an event as it is.
func (b *Batch) Add(ev streaming.Event) { b.events = append(b.events, ev) }

// AddText appends an event of a choice with the text of a JSON string, as jsonscan has
// found it valid. Nothing is appended for an empty string and for what is no string.
func (b *Batch) AddText(kind streaming.Kind, choice int, v []byte) {
	if len(v) <= len(`""`) || v[0] != '"' {
		return
	}
	from := len(b.bytes)
	b.bytes = AppendUnquoted(b.bytes, v)
	b.texts = append(b.texts, part{len(b.events), from, len(b.bytes)})
	b.events = append(b.events, streaming.Event{Kind: kind, Index: choice})
}

// AddScored is AddText with the log probabilities of the text's tokens, where there are any.
func (b *Batch) AddScored(kind streaming.Kind, choice int, v []byte, s *Scores) {
	n := len(b.events)
	b.AddText(kind, choice, v)
	if len(b.events) > n && len(s.waiting) > 0 {
		t := b.texts[len(b.texts)-1]
		b.events[n].Logprobs = s.Of(t.to - t.from)
	}
}

// Len is how many events the batch has.
func (b *Batch) Len() int { return len(b.events) }

// Events returns the batch. It is valid until Reset; its strings stay valid for ever.
func (b *Batch) Events() []streaming.Event {
	if len(b.texts) > 0 {
		all := string(b.bytes)
		for _, t := range b.texts {
			b.events[t.event].Text = all[t.from:t.to]
		}
		b.texts, b.bytes = b.texts[:0], b.bytes[:0]
	}
	return b.events
}

// AppendUnquoted appends what a valid JSON string, given with its quotes, stands for.
// A surrogate without its other half becomes U+FFFD, as in encoding/json.
func AppendUnquoted(dst, v []byte) []byte {
	v = v[1 : len(v)-1]
	for i := 0; i < len(v); {
		if v[i] != '\\' {
			from := i
			for i < len(v) && v[i] != '\\' {
				i++
			}
			dst = append(dst, v[from:i]...)
			continue
		}
		if v[i+1] == 'u' {
			var r rune
			r, i = escapedRune(v, i)
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, unescaped(v[i+1]))
		i += 2
	}
	return dst
}

func unescaped(ch byte) byte {
	switch ch {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	default:
		return ch
	}
}

// escapedRune reads \uXXXX at i, and the \uXXXX behind it when both make one rune.
func escapedRune(v []byte, i int) (r rune, next int) {
	r = hex4(v[i+2:])
	if !utf16.IsSurrogate(r) {
		return r, i + 6
	}
	if i+12 <= len(v) && v[i+6] == '\\' && v[i+7] == 'u' {
		if both := utf16.DecodeRune(r, hex4(v[i+8:])); both != utf8.RuneError {
			return both, i + 12
		}
	}
	return utf8.RuneError, i + 6
}

func hex4(v []byte) (r rune) {
	for _, ch := range v[:4] {
		switch {
		case ch <= '9':
			ch -= '0'
		case ch <= 'F':
			ch -= 'A' - 10
		default:
			ch -= 'a' - 10
		}
		r = r<<4 | rune(ch)
	}
	return r
}

package dialect

import (
	"strconv"

	"sluice/streaming"
)

// keptUsage is the last usage seen, in memory of its own that is used again: an
// upstream may count in every payload.
type keptUsage struct {
	seen  bool
	data  streaming.UsageData // its Raw is a part of raw
	raw   []byte
	chunk []byte // a complete payload in the client's dialect; empty if there is none
}

// keep replaces what was kept. own is the client's dialect.
func (u *keptUsage) keep(ev *streaming.Event, own streaming.Dialect) {
	u.seen = true
	u.data, u.raw, u.chunk = streaming.UsageData{}, u.raw[:0], u.chunk[:0]
	if ev.Usage != nil {
		u.data = *ev.Usage
		u.raw = append(u.raw, ev.Usage.Raw...)
		u.data.Raw = u.raw
	}
	if ev.Kind == streaming.Usage && ev.Dialect == own {
		u.chunk = append(u.chunk, ev.Raw...)
	}
}

// appendUsage adds the usage object: the upstream's own if there is one, else the
// numbers under OpenAI's names.
func appendUsage(dst []byte, u *streaming.UsageData) []byte {
	if len(u.Raw) > 0 {
		return appendLine(dst, u.Raw)
	}
	total := u.Total
	if total == 0 {
		total = u.Prompt + u.Completion
	}
	dst = append(dst, `{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, u.Prompt, 10)
	dst = append(dst, `,"completion_tokens":`...)
	dst = strconv.AppendInt(dst, u.Completion, 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, total, 10)
	if u.Cached != 0 {
		dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
		dst = strconv.AppendInt(dst, u.Cached, 10)
		dst = append(dst, '}')
	}
	if u.Reasoning != 0 {
		dst = append(dst, `,"completion_tokens_details":{"reasoning_tokens":`...)
		dst = strconv.AppendInt(dst, u.Reasoning, 10)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

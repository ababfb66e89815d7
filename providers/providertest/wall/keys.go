package wall

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key describes one key of the textual form of a Script.
type Key struct {
	Name, Form, Help string
	set              func(*Script, string) error
}

// Keys lists every key, grouped as in Script.
func Keys() []Key { return slices.Clone(keys) }

// Help returns the keys as a table for people.
func Help() string {
	var b strings.Builder
	for _, k := range keys {
		name := k.Name
		if k.Form != "" {
			name += "=" + k.Form
		}
		if len(name) > 26 {
			// Long forms have a line of their own.
			name += "\n  " + strings.Repeat(" ", 26)
		}
		fmt.Fprintf(&b, "  %-26s %s\n", name, k.Help)
	}
	return b.String()
}

const (
	maxTokens   = 10_000_000
	maxSize     = 64 << 20
	maxDuration = 24 * time.Hour
)

var (
	pings       = []string{"bare", "text", "single", "space", "blank", "event", "event_empty", "event_data", "empty", "delta"}
	bodyShapes  = []string{"openai", "vllm", "llamacpp", "flat", "sglang", "tgi", "detail", "message", "string", "text", "html", "empty"}
	eventShapes = []string{"openai", "string", "vllm", "llamacpp", "llamacpp_old", "tgi", "tgi_native", "sglang", "sglang_continue", "localai",
		"localai_text", "ollama", "choices", "event", "event_flat", "flat", "padded", "raw", "finish", "failed", "incomplete"}
	usages     = []string{"trailer", "finish", "mid", "every", "every_null", "zero_then_real", "none", "twice", "after_done", "null_after"}
	afterDones = []string{"chunk", "junk", "done", "comment"}
)

var keys = slices.Concat(contentKeys, timeKeys, framingKeys, shapeKeys, endKeys, errorKeys)

var contentKeys = []Key{
	num("tokens", "N", "text tokens (16)", maxTokens, func(s *Script) *int { return &s.Tokens }, true),
	text("seed", "S", "seed of the hash chain (wall)", func(s *Script) *string { return &s.Seed }),
	{"alphabet", "A", "hex (default), emoji, utf8 or escape", func(s *Script, v string) error {
		s.Alphabet = Alphabet(v)
		if !s.Alphabet.known() {
			return fmt.Errorf("no such alphabet")
		}
		return nil
	}},
	num("reasoning", "N", "reasoning tokens before the text", maxTokens, func(s *Script) *int { return &s.Reasoning }, false),
	oneOf("reasoning_field", []string{"reasoning_content", "reasoning"}, "where they are", func(s *Script) *string { return &s.ReasoningField }),
	num("tools", "N", "parallel tool calls", 128, func(s *Script) *int { return &s.Tools }, false),
	num("args", "N", "chain tokens in each call's arguments (4)", maxTokens, func(s *Script) *int { return &s.Args }, false),
	num("prompt", "N", "prompt_tokens to report (words of the request)", maxTokens, func(s *Script) *int { return &s.Prompt }, false),
	text("finish", "REASON", "finish_reason (the true one)", func(s *Script) *string { return &s.Finish }),
	oneOf("prefill", []string{"ignore", "continue", "reject"}, "what a trailing assistant message, or a prompt that ends with the chain, does", func(s *Script) *string { return &s.Prefill }),
}

var timeKeys = []Key{
	dur("headers", "before the response headers", func(s *Script) *time.Duration { return &s.Headers }),
	dur("first", "before the first token", func(s *Script) *time.Duration { return &s.First }),
	dur("delay", "between writes of tokens", func(s *Script) *time.Duration { return &s.Delay }),
	num("burst", "N", "tokens per write; above 1 the tail of the stream is one write too", maxTokens, func(s *Script) *int { return &s.Burst }, false),
}

var framingKeys = []Key{
	flag("nospace", "data:{...} without the space", func(s *Script) *bool { return &s.NoSpace }),
	flag("crlf", "lines end with CR LF", func(s *Script) *bool { return &s.CRLF }),
	flag("cr", "lines end with CR alone", func(s *Script) *bool { return &s.CR }),
	flag("bom", "a byte order mark first", func(s *Script) *bool { return &s.BOM }),
	flag("event", "event lines in chat and completions", func(s *Script) *bool { return &s.EventNames }),
	flag("idlines", "id lines", func(s *Script) *bool { return &s.IDLines }),
	flag("retryline", "a retry line in the first event", func(s *Script) *bool { return &s.RetryLine }),
	flag("multiline", "each JSON in two data lines", func(s *Script) *bool { return &s.Multiline }),
	flag("spaced", "JSON with blanks after commas and colons", func(s *Script) *bool { return &s.Spaced }),
	flag("unterminated", "the last event lacks its blank line", func(s *Script) *bool { return &s.Unterminated }),
	dur("comments", "a ping every DUR of any wait", func(s *Script) *time.Duration { return &s.Comments }),
	dur("keepalive", "a ping every DUR of the wait for the first token", func(s *Script) *time.Duration { return &s.Keepalive }),
	oneOf("ping", pings, "form of the pings (bare)", func(s *Script) *string { return &s.Ping }),
	{"split", "N|every", "bytes per write", func(s *Script, v string) error {
		if v == "every" {
			s.Split = 1
			return nil
		}
		return setInt(&s.Split, v, 1, maxSize)
	}},
	{"splitat", "A+B+...", "body offsets at which writes end", func(s *Script, v string) error { return setOffsets(&s.SplitAt, v) }},
	dur("drip", "one byte per write, DUR apart", func(s *Script) *time.Duration { return &s.Drip }),
	flag("gzip", "body compressed though not asked for", func(s *Script) *bool { return &s.Gzip }),
	flag("http10", "HTTP/1.0, body ends with the connection", func(s *Script) *bool { return &s.HTTP10 }),
	text("ctype", "TYPE", "Content-Type of the answer", func(s *Script) *string { return &s.ContentType }),
	{"header", "NAME:VALUE", "one more response header; repeatable", func(s *Script, v string) error {
		if name, _, ok := strings.Cut(v, ":"); !ok || name == "" || strings.ContainsAny(v, "\r\n") {
			return fmt.Errorf("is not NAME:VALUE")
		}
		s.ResponseHeaders = append(slices.Clone(s.ResponseHeaders), v)
		return nil
	}},
	{"informational", "CODE", "a 1xx status before the answer", func(s *Script, v string) error { return setInt(&s.Informational, v, 102, 199) }},
}

var shapeKeys = []Key{
	oneOf("role", []string{"late", "early", "none", "each", "first"}, "the role: in its own chunk after or before the wait, nowhere, in each chunk, in the first content chunk", func(s *Script) *string { return &s.Role }),
	{"norole", "", "same as role=none", constant(func(s *Script) { s.Role = "none" })},
	{"role_each", "", "same as role=each", constant(func(s *Script) { s.Role = "each" })},
	flag("noid", "chunks without id", func(s *Script) *bool { return &s.NoID }),
	flag("emptyid", "chunks with id \"\"", func(s *Script) *bool { return &s.EmptyID }),
	flag("noindex", "choices without index", func(s *Script) *bool { return &s.NoIndex }),
	flag("nochoices", "no choices key where the list is empty", func(s *Script) *bool { return &s.NoChoices }),
	flag("nomodel", "chunks without model", func(s *Script) *bool { return &s.NoModel }),
	flag("nocreated", "chunks without created", func(s *Script) *bool { return &s.NoCreated }),
	flag("noobject", "chunks without object", func(s *Script) *bool { return &s.NoObject }),
	flag("finish_empty", "finish_reason \"\" instead of null", func(s *Script) *bool { return &s.FinishEmpty }),
	flag("finish_in_last", "finish_reason in the chunk of the last delta", func(s *Script) *bool { return &s.FinishInLast }),
	flag("error_null", "\"error\":null in each chunk", func(s *Script) *bool { return &s.ErrorNull }),
	flag("multi_choice", "all choices of n in one chunk", func(s *Script) *bool { return &s.MultiChoice }),
	flag("content_null", "\"content\":null where there is no content", func(s *Script) *bool { return &s.ContentNull }),
	flag("choices_first", "choices as the first key", func(s *Script) *bool { return &s.ChoicesFirst }),
	flag("extra", "unknown fields in chunk, choice and delta", func(s *Script) *bool { return &s.Extra }),
	flag("obfuscation", "random padding in chunks", func(s *Script) *bool { return &s.Obfuscation }),
	flag("logprobs", "logprobs in choices", func(s *Script) *bool { return &s.Logprobs }),
	flag("filter", "a first chunk with choices [] (prompt filter results)", func(s *Script) *bool { return &s.Filter }),
	flag("alien", "an event of no OpenAI shape after the role", func(s *Script) *bool { return &s.Alien }),
	flag("tool_repeat_id", "id and name in each delta of a call", func(s *Script) *bool { return &s.ToolRepeatID }),
	flag("tool_noindex", "tool deltas without index", func(s *Script) *bool { return &s.ToolNoIndex }),
	flag("tool_whole", "each call in one delta", func(s *Script) *bool { return &s.ToolWhole }),
	flag("tool_interleave", "fragments of parallel calls take turns", func(s *Script) *bool { return &s.ToolInterleave }),
	oneOf("usage", usages, "where usage is, asked for or not (default: trailer if asked for)", func(s *Script) *string { return &s.Usage }),
}

var endKeys = []Key{
	flag("nodone", "no [DONE]", func(s *Script) *bool { return &s.NoDone }),
	flag("nofinish", "no finish chunk", func(s *Script) *bool { return &s.NoFinish }),
	{"done_only", "", "same as nofinish", constant(func(s *Script) { s.NoFinish = true })},
	oneOf("after_done", afterDones, "bytes after [DONE]", func(s *Script) *string { return &s.AfterDone }),
	dur("hold", "keep the body open after [DONE]", func(s *Script) *time.Duration { return &s.Hold }),
	position("cut", "clean end of the body", func(s *Script) *At { return &s.Cut }),
	position("abort", "connection closed inside the body", func(s *Script) *At { return &s.Abort }),
	position("reset", "TCP reset", func(s *Script) *At { return &s.Reset }),
	{"stall", "AT[:DUR]", "silence until the client goes, or for DUR", func(s *Script, v string) error {
		at, d, ok := strings.Cut(v, ":")
		if ok {
			if err := setDuration(&s.StallFor, d); err != nil {
				return err
			}
		}
		return setAt(&s.Stall, at)
	}},
	flag("partial", "half of the next event precedes the cut, abort, reset or stall", func(s *Script) *bool { return &s.Partial }),
	{"malformed", "K[:N]", "a chunk (N chunks) of broken JSON after K deltas", setMalformed},
	{"malformed_run", "K:N", "same as malformed=K:N", setMalformed},
	flag("malformed_lossy", "the broken chunks take the place of deltas", func(s *Script) *bool { return &s.MalformedLossy }),
	{"giant", "K:SIZE", "delta K is one event of SIZE bytes (64KiB, 20MiB)", func(s *Script, v string) error {
		at, size, ok := strings.Cut(v, ":")
		if !ok {
			size = "1MiB"
		}
		if err := setSize(&s.GiantSize, size); err != nil {
			return err
		}
		return setCount(&s.Giant, at)
	}},
	{"error", "AT[:SHAPE]", "error inside the stream: " + strings.Join(eventShapes, ", "), func(s *Script, v string) error {
		at, shape, ok := strings.Cut(v, ":")
		if !ok {
			shape = "openai"
		}
		if !slices.Contains(eventShapes, shape) {
			return fmt.Errorf("no such shape: %q", shape)
		}
		s.ErrorShape = shape
		return setAt(&s.Error, at)
	}},
	oneOf("error_done", []string{"yes", "no"}, "[DONE] after that error (what the shape's server does)", func(s *Script) *string { return &s.ErrorDone }),
}

var errorKeys = []Key{
	{"status", "CODE", "answer with this status and an error body", func(s *Script, v string) (err error) {
		s.Status, err = parseStatus(v)
		return err
	}},
	oneOf("err", bodyShapes, "shape of that body (openai)", func(s *Script) *string { return &s.Err }),
	text("errtype", "T", "error.type", func(s *Script) *string { return &s.ErrType }),
	text("errcode", "C", "error.code", func(s *Script) *string { return &s.ErrCode }),
	text("errparam", "P", "error.param", func(s *Script) *string { return &s.ErrParam }),
	text("errmsg", "M", "error.message", func(s *Script) *string { return &s.ErrMessage }),
	{"context", "", "400 context_length_exceeded", constant(func(s *Script) {
		s.Status, s.ErrType, s.ErrCode, s.ErrParam = 400, "invalid_request_error", "context_length_exceeded", "messages"
		s.ErrMessage = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
	})},
	{"content_filter", "", "400 content_filter", constant(func(s *Script) {
		s.Status, s.ErrType, s.ErrCode, s.ErrParam = 400, "invalid_request_error", "content_filter", "prompt"
		s.ErrMessage = "The response was filtered due to the prompt triggering the content management policy."
	})},
	text("retry_after", "SECONDS", "Retry-After header", func(s *Script) *string { return &s.RetryAfter }),
	num("retry_after_ms", "MS", "retry-after-ms header", 1<<31-1, func(s *Script) *int { return &s.RetryAfterMS }, false),
	flag("html200", "status 200 with an HTML page", func(s *Script) *bool { return &s.HTML200 }),
	flag("json200", "status 200 with a JSON error body", func(s *Script) *bool { return &s.JSON200 }),
	{"fail", "N:CODE", "the first N calls with this script fail: a status, reset, abort, stall, cut or html", setFail},
	{"key", "NAME", "count calls under NAME instead of the script's text", func(*Script, string) error { return nil }},
	{"script", "NAME", "start from the registered script NAME", func(*Script, string) error { return nil }},
}

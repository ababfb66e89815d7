package anthropic

import (
	"slices"
	"strconv"
	"strings"
)

// form is how a model is asked to think.
type form uint8

const (
	noThinking form = iota
	budget          // "enabled", with a number of tokens
	adaptive        // and an effort
)

// rules are what a model takes. Its name decides, as the API's own clients do it, and
// the configuration overrules.
type rules struct {
	limit     int64 // output tokens, thinking included
	thinking  form
	always    bool // thinking cannot be switched off
	sampling  bool // temperature, top_p, top_k
	both      bool // temperature and top_p together
	native    bool // structured output by schema
	byTool    bool // structured output by a forced tool
	forced    bool // a tool call can be demanded
	schemaful bool // strict tools
}

// Models of other makers behind this protocol get a modest limit; the API's own
// models without a version in their name are the newest.
const (
	foreignLimit = 8192
	newest       = 99_00
)

// version is 100 × major + minor.
type version = int

func (t target) rules() rules {
	r := rulesOf(t.model)
	if t.opt.Version >= "2026-10-21" {
		r.sampling = false // RFC 3339 dates compare as text
	}
	switch t.opt.Thinking {
	case "adaptive":
		r.thinking = adaptive
	case "budget":
		r.thinking = budget
	case "off":
		r.thinking = noThinking
	}
	switch t.opt.Sampling {
	case "send":
		r.sampling = true
	case "drop":
		r.sampling = false
	}
	switch t.opt.Structured {
	case "native":
		r.native = true
	case "tool":
		r.native, r.byTool = false, true
	case "off":
		r.native, r.byTool = false, false
	}
	if t.opt.MaxTokens > 0 {
		r.limit = t.opt.MaxTokens
	}
	return r
}

// rulesOf goes by the name of the model.
func rulesOf(model string) rules {
	line, v, ok := parseModel(model)
	if !ok {
		return rules{limit: foreignLimit, thinking: budget, sampling: true, both: true, native: true, byTool: true, forced: true, schemaful: true}
	}
	frontier := line == "fable" || line == "mythos" // both began behind version 5
	r := rules{
		limit: limitOf(line, v), byTool: true,
		always:   frontier || v >= 505 && line != "haiku",
		sampling: !frontier && v < samplingUntil(line),
		both:     v < 401,
		native:   frontier || v >= 401,
		forced:   !frontier && (v < 505 || line == "haiku"),
	}
	r.schemaful = r.native
	switch {
	case frontier || v >= 406:
		r.thinking = adaptive
	case v >= 307:
		r.thinking = budget
	}
	return r
}

// samplingUntil is the first version of a line that refuses temperature and its like.
func samplingUntil(line string) version {
	switch line {
	case "opus":
		return 407
	case "haiku":
		return 505
	default:
		return 500
	}
}

func limitOf(line string, v version) int64 {
	switch {
	case line == "fable" || line == "mythos" || v >= 406:
		return 128_000
	case v >= 405 || v >= 400 && line == "sonnet" || v == 307:
		return 64_000
	case v >= 400:
		return 32_000
	case v >= 305:
		return 8_192
	default:
		return 4_096
	}
}

var lines = []string{"haiku", "sonnet", "opus", "fable", "mythos"}

// parseModel reads names such as claude-sonnet-4-5-20250929, claude-3-5-haiku-latest
// and, of the same models at other houses, us.anthropic.claude-opus-4-1-v1:0.
func parseModel(model string) (line string, v version, ok bool) {
	_, rest, ok := strings.Cut(strings.ToLower(model), "claude-")
	if !ok {
		return "", 0, false
	}
	var numbers []int
	for word := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == '-' || r == '.' || r == '@' }) {
		n, err := strconv.Atoi(word)
		switch {
		case err == nil && len(word) <= 2 && len(numbers) < 2:
			numbers = append(numbers, n)
		case slices.Contains(lines, word):
			line = word
		}
	}
	switch len(numbers) {
	case 0:
		return line, newest, true
	case 1:
		return line, 100 * numbers[0], true
	default:
		return line, 100*numbers[0] + numbers[1], true
	}
}

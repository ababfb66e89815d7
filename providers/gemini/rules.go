package gemini

import (
	"fmt"
	"strconv"
	"strings"
)

// form is how a model is asked to think.
type form uint8

const (
	noThinking form = iota
	budget          // a number of tokens
	level           // a word
)

// rules are what a model takes. Its name decides, and the configuration overrules.
type rules struct {
	thinking  form
	always    bool // thinking cannot be switched off
	signed    bool // a call of the history needs a signature
	system    bool // it takes system instructions
	penalties bool
}

// newest stands for names without a version, such as gemini-flash-latest.
const newest = 99_00

// version is 100 × major + minor.
type version = int

func (t target) rules() rules {
	r := rulesOf(t.model)
	switch t.opt.Thinking {
	case "level":
		r.thinking = level
	case "budget":
		r.thinking = budget
	case "off":
		r.thinking = noThinking
	}
	return r
}

func rulesOf(model string) rules {
	name := strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	v, ok := parseVersion(name)
	switch {
	case strings.HasPrefix(name, "gemma"):
		return rules{penalties: true}
	case !ok:
		return rules{thinking: budget, system: true, penalties: true}
	case v >= 300:
		return rules{thinking: level, always: true, signed: true, system: true, penalties: true}
	case v >= 205:
		return rules{thinking: budget, always: strings.Contains(name, "pro"), system: true}
	default:
		return rules{system: true, penalties: true}
	}
}

// parseVersion reads names such as gemini-2.5-flash-lite and gemini-3-pro-preview.
func parseVersion(name string) (v version, ok bool) {
	rest, ok := strings.CutPrefix(name, "gemini-")
	if !ok {
		return 0, false
	}
	for word := range strings.SplitSeq(rest, "-") {
		major, minor, _ := strings.Cut(word, ".")
		m, err := strconv.Atoi(major)
		if err != nil {
			continue
		}
		n, _ := strconv.Atoi(minor)
		return 100*m + n, true
	}
	return newest, true
}

// thinking is thinkingConfig. A budget of 0 switches it off, so it must not be left out.
type thinking struct {
	Include bool   `json:"includeThoughts,omitempty"`
	Budget  *int64 `json:"thinkingBudget,omitempty"`
	Level   string `json:"thinkingLevel,omitempty"`
}

var levels = map[string]string{"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}

// think translates reasoning_effort, and asks for a summary of the thoughts with it.
func (r *request) think() error {
	effort, err := r.asked.Effort()
	if err != nil || effort == "" {
		return err
	}
	switch {
	case effort == "none":
		return r.doNotThink()
	case r.thinking == level:
		r.out.Config.Thinking = &thinking{Include: true, Level: levels[effort]}
	case r.thinking == budget:
		n := r.budgetOf(effort)
		r.out.Config.Thinking = &thinking{Include: true, Budget: &n}
	default:
		return r.asked.Cannot("reasoning_effort", "has no thinking for this model")
	}
	return nil
}

func (r *request) budgetOf(effort string) int64 {
	switch effort {
	case "minimal", "low":
		return r.opt.Budgets.Low
	case "medium":
		return r.opt.Budgets.Medium
	default:
		return r.opt.Budgets.High
	}
}

func (r *request) doNotThink() error {
	switch {
	case r.thinking == noThinking:
		return nil
	case r.always:
		return r.asked.Cannot("reasoning_effort", fmt.Sprintf("cannot keep this model from thinking: %q is the least", "minimal"))
	}
	none := int64(0)
	r.out.Config.Thinking = &thinking{Budget: &none}
	return nil
}

package anthropic

import (
	"encoding/json"

	"sluice/providers"
)

// thinking is the parameter of this name.
type thinking struct {
	Type    string `json:"type"`
	Budget  int64  `json:"budget_tokens,omitempty"`
	Display string `json:"display,omitempty"`
}

// minBudget is the least that the API lets a model think, in tokens.
const minBudget = 1024

// effortOf reads reasoning_effort, or the effort in a reasoning object.
func (a *request) effortOf() (err error) {
	a.effort, err = a.asked.Effort()
	return err
}

// think translates the effort. A caller who knows this API may send its thinking
// parameter instead, which goes as it is.
func (a *request) think() error {
	effort := a.effort
	if own := a.fields["thinking"]; own != nil {
		return a.thinkAsTold(own, effort)
	}
	switch {
	case effort == "":
		return nil
	case effort == "none":
		return a.doNotThink()
	case a.rules.thinking == adaptive:
		return a.adapt(effort)
	case a.rules.thinking == budget:
		return a.spend(effort)
	default:
		return a.unsupported("reasoning_effort", "has no thinking for this model")
	}
}

func (a *request) thinkAsTold(own []byte, effort string) error {
	var t thinking
	if json.Unmarshal(own, &t) != nil || t.Type == "" {
		return providers.Invalid("thinking", `thinking must be an object such as {"type":"adaptive"}.`)
	}
	a.out.Thinking, a.thinks = json.RawMessage(own), t.Type != "disabled"
	if effort != "" && effort != "none" && a.rules.thinking == adaptive {
		a.setEffort(effort)
	}
	return nil
}

func (a *request) doNotThink() error {
	if a.always {
		return a.unsupported("reasoning_effort", `cannot keep this model from thinking: "low" is the least`)
	}
	if a.rules.thinking == adaptive {
		a.out.Thinking = thinking{Type: "disabled"}
	}
	return nil
}

func (a *request) setEffort(effort string) {
	if effort == "minimal" {
		effort = "low"
	}
	if a.out.Output == nil {
		a.out.Output = &output{}
	}
	a.out.Output.Effort = effort
}

// adapt lets the model decide how much it thinks. Where a tool call is demanded the API
// refuses thinking, and the effort holds for the answer alone.
func (a *request) adapt(effort string) error {
	a.setEffort(effort)
	if !a.forces {
		a.out.Thinking, a.thinks = thinking{Type: "adaptive", Display: "summarized"}, true
	}
	return nil
}

// spend sets a number of tokens. It stays within the caller's bound of the answer, in
// which it counts, and leaves half of it to the answer itself.
func (a *request) spend(effort string) error {
	tokens := map[string]int64{"minimal": minBudget, "low": a.opt.Budgets.Low, "medium": a.opt.Budgets.Medium}[effort]
	if tokens == 0 {
		tokens = a.opt.Budgets.High
	}
	tokens = min(max(tokens, minBudget), a.out.MaxTokens/2)
	if tokens < minBudget || a.forces || a.mayNotBegin() {
		a.drop("reasoning_effort")
		return nil
	}
	a.out.Thinking, a.thinks = thinking{Type: "enabled", Budget: tokens}, true
	return nil
}

// mayNotBegin reports whether the API would refuse a budget: the model is to go on with
// a turn that it did not begin with thinking, or whose thinking nobody has kept.
func (a *request) mayNotBegin() bool {
	n := len(a.out.Messages)
	if a.out.Messages[n-1].Role == "assistant" {
		return true
	}
	if n < 2 || a.out.Messages[n-1].Content[0].Type != "tool_result" {
		return false
	}
	first := a.out.Messages[n-2].Content[0].Type
	return first != "thinking" && first != "redacted_thinking"
}

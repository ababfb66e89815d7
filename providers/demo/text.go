package demo

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
)

// The pace of demo-slow, and how long it may be asked to be silent.
const (
	slowFirst   = 2 * time.Second
	slowBetween = 500 * time.Millisecond
	maxPatience = 10 * time.Minute
)

func echoText(said string, n int) string {
	switch {
	case said == "":
		return "Hello from Sluice's built-in demo! Say something and I will repeat it."
	case n == 0:
		return "Hello from Sluice's built-in demo! You said: " + said
	default:
		return fmt.Sprintf("Hello once more (answer %d) from Sluice's built-in demo! You said: %s", n+1, said)
	}
}

func slowText(said string, n int) string {
	return "Thank you for waiting. " + echoText(said, n)
}

// fill makes the n choices of each prompt; text says the n-th answer to what was said.
func (a *ask) fill(pl *plan, text func(said string, n int) string) {
	said := a.prompts
	if len(a.messages) > 0 {
		said = []string{a.last()}
	}
	for _, s := range said {
		for n := range a.n {
			pl.choices = append(pl.choices, a.say(text(s, n)))
		}
	}
}

var waitFor = regexp.MustCompile(`(?i)\bwait (?:for )?(\d{1,9}(?:\.\d{1,9})?) ?(ms|s|sec|seconds?|m|min|minutes?)\b`)

// patience is the silence before the first token, "wait 20s" in the prompt.
func (a *ask) patience() time.Duration {
	m := waitFor.FindStringSubmatch(a.last())
	if m == nil {
		return slowFirst
	}
	unit := time.Second
	switch strings.ToLower(m[2]) {
	case "ms":
		unit = time.Millisecond
	case "m", "min", "minute", "minutes":
		unit = time.Minute
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n*unit.Seconds() > maxPatience.Seconds() {
		return maxPatience
	}
	return time.Duration(n * float64(unit))
}

var (
	statusWord = regexp.MustCompile(`\b(400|401|403|404|408|409|413|422|429|500|502|503|504)\b`)
	cutWord    = regexp.MustCompile(`(?i)\bcut\b`)
	stallWord  = regexp.MustCompile(`(?i)\bstall\b`)
)

// maxStall ends a stall that nobody else ends.
const maxStall = maxPatience

// fault fails as the prompt says: with a status before the first token, or after
// some tokens by a cut, a stall or a server error.
func (a *ask) fault(pl *plan) error {
	said := a.last()
	if status := statusWord.FindString(said); status != "" {
		code, err := strconv.Atoi(status)
		if err != nil {
			return fmt.Errorf("reading the status: %w", err)
		}
		return statusError(code)
	}
	a.stops, a.max = nil, maxTokens
	a.fill(pl, func(string, int) string { return "This answer of Sluice's built-in demo will not be finished, because" })
	switch {
	case cutWord.MatchString(said):
		pl.after = func(context.Context) error {
			return &providers.Error{Kind: providers.Truncated, Message: "The demo cut this answer off, as it was asked to."}
		}
	case stallWord.MatchString(said):
		pl.after = func(ctx context.Context) error {
			if err := wait(ctx, maxStall); err != nil {
				return err
			}
			return &providers.Error{Kind: providers.Timeout, Message: "The demo was silent for as long as it may be."}
		}
	default:
		pl.after = func(context.Context) error { return statusError(http.StatusInternalServerError) }
	}
	return nil
}

// statusError is what an upstream that answers with this status leads to.
func statusError(status int) error {
	e := &providers.Error{Kind: providers.Passed, Status: status, Type: "invalid_request_error", Code: "demo_error",
		Message: fmt.Sprintf("The demo failed with status %d %s, as it was asked to.", status, http.StatusText(status))}
	switch {
	case status == http.StatusTooManyRequests:
		e.Kind, e.Type, e.RetryAfter = providers.RateLimited, "requests", time.Second
	case status == http.StatusServiceUnavailable:
		e.Kind, e.Type, e.RetryAfter = providers.Overloaded, "service_unavailable_error", time.Second
	case status >= 500:
		e.Kind, e.Type = providers.UpstreamFailed, "server_error"
	}
	return e
}

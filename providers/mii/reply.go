package mii

import (
	"fmt"
	"strings"

	"sluice/providers"
)

// reply is one message of a stream, or one answer, whatever the generation.
type reply struct {
	text string
	// finish is the reason to end in OpenAI's words; "" while the answer runs.
	finish string
	// counted says that the server told its tokens: those of the prompt, and those of the
	// answer so far.
	counted           bool
	prompt, generated int64
}

// finishReason reads the server's word. Old versions print the name of the constant
// instead of its value: GenerationFinishReason.STOP.
func finishReason(word string) (reason string, ok bool) {
	_, name, dotted := strings.Cut(word, ".")
	if !dotted {
		name = word
	}
	switch name = strings.ToLower(name); name {
	case "stop", "length":
		return name, true
	case "none":
		return "", true
	default:
		return "", false
	}
}

// strange is a reply that is not of the protocol.
func (o *Options) strange(what string) *providers.Error {
	return &providers.Error{Kind: providers.Protocol, Target: o.Upstream.Name, Message: fmt.Sprintf(
		"expected a reply of DeepSpeed-MII's generation %q, and got %s; does mii.generation name the version of the server, and base_url its port?", o.Generation, what)}
}

// told makes a reply of what every generation with token counts sends.
func (o *Options) told(text, finish string, prompt, generated int64) (reply, error) {
	reason, ok := finishReason(finish)
	if !ok {
		return reply{}, o.strange(fmt.Sprintf("the finish_reason %q", finish))
	}
	return reply{text: text, finish: reason, counted: true, prompt: prompt, generated: generated}, nil
}

// untold makes replies of texts alone, which old servers send: that they have ended is
// all that is known of them. Their texts repeat the prompt.
func untold(texts, prompts []string) []reply {
	replies := make([]reply, 0, len(texts))
	for i, text := range texts {
		if i < len(prompts) {
			text = strings.TrimPrefix(text, prompts[i])
		}
		replies = append(replies, reply{text: text, finish: "stop"})
	}
	return replies
}

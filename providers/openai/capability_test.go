package openai

import (
	"testing"

	"sluice/providers"
)

func TestTold(t *testing.T) {
	const tools, vision, chat = providers.Tools, providers.Vision, providers.ChatRoute
	for raw, want := range map[string]providers.Capabilities{
		`{"id":"m","object":"model"}`: {},
		`{"id":"m","capabilities":{"tools":true,"vision":false,"telepathy":true}}`:                                        {Yes: tools, No: vision},
		`{"id":"m","capabilities":{"completion_chat":true,"function_calling":false,"vision":true,"completion_fim":true}}`: {Yes: chat | vision | providers.Suffix, No: tools},
		`{"id":"m","capabilities":["completion"]}`:                                                                        {},
		`{"id":"m","capabilities":{"tools":{"supported":true}}}`:                                                          {},
		`{"id":"m","architecture":{"input_modalities":["text","image"]},"supported_parameters":["tools","logprobs","response_format","structured_outputs","reasoning","top_k"]}`: {
			Yes: tools | vision | providers.Logprobs | providers.JSONObject | providers.JSONSchema | providers.Reasoning, No: providers.Audio},
		`{"id":"m","supported_parameters":["max_tokens"]}`:                                             {No: tools},
		`{"id":"m","supports_chat":true,"supports_image_input":false,"supports_tools":null}`:           {Yes: chat, No: vision},
		`{"id":"m","architecture":"llama","supports_tools":true,"capabilities":{"tools":true},"n":[]}`: {Yes: tools},
		``: {}, `[]`: {},
	} {
		want.Model = want.No
		if got := new(Provider).Told(&providers.Model{Raw: []byte(raw)}); got != want {
			t.Errorf("%s: %+v, want %+v", raw, got, want)
		}
	}
}

package wall_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"

	"sluice/providers/providertest/wall"
)

// These tests read the wall with a client that people use, to prove that its answers have the shapes of the API.

func client(t *testing.T, options ...wall.Option) (*openai.Client, *wall.Wall) {
	base, w := wall.Start(t, options...)
	cfg := openai.DefaultConfig("key")
	cfg.BaseURL = base
	return openai.NewClientWithConfig(cfg), w
}

func request(spec string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: "m", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "a b c [[wall " + spec + "]]"}}}
}

func TestClientChatStream(t *testing.T) {
	c, _ := client(t)
	req := request("tokens=20 reasoning=3 tools=2 args=5 tool_interleave prompt=9 seed=q")
	req.N = 2
	req.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	stream, err := c.CreateChatCompletionStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	text, reasoning, args, finish := map[int]string{}, map[int]string{}, map[string]string{}, map[int]openai.FinishReason{}
	var usage *openai.Usage
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Usage != nil {
			usage = chunk.Usage
		}
		for _, ch := range chunk.Choices {
			text[ch.Index] += ch.Delta.Content
			reasoning[ch.Index] += ch.Delta.ReasoningContent
			for _, tc := range ch.Delta.ToolCalls {
				args[fmt.Sprint(ch.Index, *tc.Index)] += tc.Function.Arguments
			}
			if ch.FinishReason != "" {
				finish[ch.Index] = ch.FinishReason
			}
		}
	}
	for i := range 2 {
		chain := wall.Chain{Seed: "q"}.Choice(i)
		if n, err := chain.Verify(text[i]); n != 20 || err != nil {
			t.Errorf("text %d: %d, %v", i, n, err)
		}
		if n, err := chain.Reasoning().Verify(reasoning[i]); n != 3 || err != nil {
			t.Errorf("reasoning %d: %d, %v", i, n, err)
		}
		for j := range 2 {
			if n, err := chain.VerifyArgs(j, args[fmt.Sprint(i, j)]); n != 5 || err != nil {
				t.Errorf("tool %d of %d: %d, %v", j, i, n, err)
			}
		}
		if finish[i] != openai.FinishReasonToolCalls {
			t.Errorf("finish %d: %q", i, finish[i])
		}
	}
	want := 2 * (20 + 3 + 2*(5+3))
	if usage == nil || usage.PromptTokens != 9 || usage.CompletionTokens != want || usage.TotalTokens != 9+want {
		t.Errorf("usage: %+v", usage)
	}
}

func TestClientChat(t *testing.T) {
	c, w := client(t)
	req := request("tokens=20 tools=1 args=2 reasoning=2")
	req.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "look"}}}
	res, err := c.CreateChatCompletion(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	m := res.Choices[0].Message
	if m.Content != wall.Text("wall", 20) || m.ToolCalls[0].Function.Name != "look" || m.ToolCalls[0].Function.Arguments != (wall.Chain{Seed: "wall"}).Args(0, 2) {
		t.Errorf("%+v", m)
	}
	if res.Usage.CompletionTokens != 27 || res.Usage.CompletionTokensDetails.ReasoningTokens != 2 {
		t.Errorf("%+v", res.Usage)
	}
	req = request("tokens=20")
	//lint:ignore SA1019 the old name must work too
	req.MaxTokens = 7
	if res, err = c.CreateChatCompletion(t.Context(), req); err != nil || res.Choices[0].FinishReason != "length" || res.Choices[0].Message.Content != wall.Text("wall", 7) {
		t.Errorf("max_tokens: %v %+v", err, res)
	}
	req = request("prefill=continue tokens=20")
	req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: "assistant", Content: wall.Text("wall", 12)})
	if res, err = c.CreateChatCompletion(t.Context(), req); err != nil || wall.Text("wall", 12)+res.Choices[0].Message.Content != wall.Text("wall", 20) {
		t.Errorf("continue: %v %+v", err, res)
	}
	req = request("prefill=reject")
	req.Messages = append(req.Messages, openai.ChatCompletionMessage{Role: "assistant", Content: "x"})
	var api *openai.APIError
	if _, err = c.CreateChatCompletion(t.Context(), req); !errors.As(err, &api) || api.HTTPStatusCode != 400 {
		t.Errorf("reject: %v", err)
	}
	if got := w.Requests(); len(got) != 4 || got[0].Header.Get("Authorization") != "Bearer key" {
		t.Errorf("%d calls kept", len(got))
	}
}

func TestClientCompletions(t *testing.T) {
	c, _ := client(t)
	req := openai.CompletionRequest{Model: "gpt-3.5-turbo-instruct", Prompt: "x [[wall tokens=9]]", StreamOptions: &openai.StreamOptions{IncludeUsage: true}}
	res, err := c.CreateCompletion(t.Context(), req)
	if err != nil || res.Choices[0].Text != wall.Text("wall", 9) || res.Usage.CompletionTokens != 9 {
		t.Fatalf("%v %+v", err, res)
	}
	stream, err := c.CreateCompletionStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	text, total := "", 0
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if res.Usage != nil {
			total = res.Usage.CompletionTokens
		}
		for _, ch := range res.Choices {
			text += ch.Text
		}
	}
	if text != wall.Text("wall", 9) || total != 9 {
		t.Errorf("%q, %d", text, total)
	}
}

func TestClientResponses(t *testing.T) {
	c, _ := client(t)
	req := openai.CreateResponseRequest{Model: "m", Input: "x [[wall tokens=9 reasoning=2 tools=1]]"}
	res, err := c.CreateResponse(t.Context(), req)
	if err != nil || len(res.Output) != 3 || res.Usage.OutputTokens != 9+2+7 {
		t.Fatalf("%v %+v", err, res)
	}
	stream, err := c.CreateResponseStream(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	text, args, last := "", "", ""
	for n := 0; ; n++ {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if ev.SequenceNumber != n {
			t.Fatalf("event %d has number %d", n, ev.SequenceNumber)
		}
		switch last = string(ev.Type); last {
		case "response.output_text.delta":
			text += ev.Delta
		case "response.function_call_arguments.delta":
			args += ev.Delta
		}
	}
	if text != wall.Text("wall", 9) || args != (wall.Chain{Seed: "wall"}).Args(0, 4) || last != "response.completed" {
		t.Errorf("%q %q %s", text, args, last)
	}
}

func TestClientResponsesFaults(t *testing.T) {
	c, w := client(t)
	for spec, want := range map[string]struct {
		last string
		end  wall.End
	}{
		"error=4":            {"error", wall.Failed},
		"error=4:failed":     {"response.failed", wall.Failed},
		"error=4:incomplete": {"response.incomplete", wall.Failed},
		"cut=4":              {"response.output_text.delta", wall.Cut},
		"stall=4:30ms comments=10ms ping=delta cut=6": {"response.output_text.delta", wall.Cut},
		"nofinish":      {"response.output_item.done", wall.Complete},
		"finish=length": {"response.incomplete", wall.Complete},
	} {
		t.Run(spec, func(t *testing.T) {
			stream, err := c.CreateResponseStream(t.Context(), openai.CreateResponseRequest{Model: "m", Input: "[[wall " + spec + "]]"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.Close() }()
			last := ""
			for n := 0; ; n++ {
				ev, err := stream.Recv()
				if err != nil {
					break
				}
				if ev.SequenceNumber != n {
					t.Errorf("event %d has number %d", n, ev.SequenceNumber)
				}
				last = string(ev.Type)
			}
			q, err := w.Await(t.Context(), func(q wall.Request) bool { return strings.TrimSpace(q.Key) == spec && q.End != "" })
			if err != nil || last != want.last || q.End != want.end {
				t.Errorf("last %q, end %q, %v", last, q.End, err)
			}
		})
	}
}

func TestClientEmbeddings(t *testing.T) {
	c, _ := client(t)
	for _, format := range []openai.EmbeddingEncodingFormat{"float", "base64", ""} {
		req := openai.EmbeddingRequestStrings{Input: []string{"one two", "three"}, Model: "m", EncodingFormat: format, Dimensions: 20}
		res, err := c.CreateEmbeddings(t.Context(), req)
		if err != nil || len(res.Data) != 2 || res.Usage.PromptTokens != 3 {
			t.Fatalf("%s: %v %+v", format, err, res)
		}
		sum := 0.0
		for i, x := range wall.Embedding("three", 20) {
			sum += float64(x) * float64(x)
			if res.Data[1].Embedding[i] != x {
				t.Fatalf("%s: element %d is %v, want %v", format, i, res.Data[1].Embedding[i], x)
			}
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Errorf("length %v", sum)
		}
	}
}

func TestClientOtherEndpoints(t *testing.T) {
	c, w := client(t, wall.Models("org/m:x"))
	w.Script("named", wall.Script{})
	ctx := t.Context()
	models, err := c.ListModels(ctx)
	if err != nil || len(models.Models) != 3 {
		t.Errorf("models: %v %+v", err, models)
	}
	if m, err := c.GetModel(ctx, "org%2Fm:x"); err != nil || m.ID != "org/m:x" {
		t.Errorf("model: %v %+v", err, m)
	}
	if res, err := c.Moderations(ctx, openai.ModerationRequest{Input: "violence", Model: "omni-moderation-latest"}); err != nil || !res.Results[0].Flagged {
		t.Errorf("moderation: %v %+v", err, res)
	}
	speech, err := c.CreateSpeech(ctx, openai.CreateSpeechRequest{Model: "tts-1", Input: "[[wall tokens=3 seed=v]]", Voice: "alloy"})
	if err != nil {
		t.Fatal(err)
	}
	audio, err := io.ReadAll(speech)
	if err != nil || !bytes.Equal(audio, wall.Speech("v", 3<<10)) {
		t.Errorf("speech: %v, %d bytes", err, len(audio))
	}
	_ = speech.Close()
	said, err := c.CreateTranscription(ctx, openai.AudioRequest{Model: "whisper-1", FilePath: "a.wav", Reader: strings.NewReader("RIFF"), Prompt: "[[wall tokens=4]]"})
	if err != nil || said.Text != wall.Text("wall", 4) {
		t.Errorf("transcription: %v %+v", err, said)
	}
	if res, err := c.CreateImage(ctx, openai.ImageRequest{Model: "m", Prompt: "x", N: 2}); err != nil || len(res.Data) != 2 {
		t.Errorf("images: %v %+v", err, res)
	}
}

func TestClientSeesErrors(t *testing.T) {
	c, _ := client(t)
	var api *openai.APIError
	if _, err := c.CreateChatCompletionStream(t.Context(), request("status=429 retry_after=3")); !errors.As(err, &api) || api.HTTPStatusCode != 429 || api.Code != "rate_limit_exceeded" {
		t.Errorf("status: %v", err)
	}
	stream, err := c.CreateChatCompletionStream(t.Context(), request("error=2"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.As(err, &api) || api.Message != "boom" {
		t.Errorf("in the stream: %v", err)
	}
}

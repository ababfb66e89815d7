// The tasks by means of github.com/openai/openai-go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"clients/task"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/shared"
)

func main() {
	task.Run(map[string]func(context.Context, *task.Job) error{
		"models": models, "model": model, "chat": chat, "stream": stream, "assemble": assemble,
		"completion": completion, "completion_stream": completionStream, "embeddings": embeddings,
	}, describe)
}

func connect(j *task.Job) openai.Client {
	return openai.NewClient(option.WithBaseURL(j.BaseURL), option.WithAPIKey(j.APIKey), option.WithMaxRetries(0))
}

func describe(err error) *task.Error {
	e := &task.Error{Kind: fmt.Sprintf("%T", err), Message: err.Error()}
	var api *openai.Error
	if errors.As(err, &api) {
		e.Message, e.Status, e.Type, e.Code = api.Message, api.StatusCode, api.Type, api.Code
	}
	return e
}

func usageOf(u openai.CompletionUsage) *task.Usage {
	if u.TotalTokens == 0 {
		return nil
	}
	return &task.Usage{Prompt: u.PromptTokens, Completion: u.CompletionTokens, Total: u.TotalTokens}
}

func models(ctx context.Context, j *task.Job) error {
	client := connect(j)
	pages := client.Models.ListAutoPaging(ctx)
	for pages.Next() {
		j.Report.Models = append(j.Report.Models, pages.Current().ID)
	}
	return pages.Err()
}

func model(ctx context.Context, j *task.Job) error {
	client := connect(j)
	m, err := client.Models.Get(ctx, j.Model)
	if err != nil {
		return err
	}
	j.Report.Models = []string{m.ID}
	return nil
}

func chatBody(j *task.Job, stream bool) openai.ChatCompletionNewParams {
	body := openai.ChatCompletionNewParams{
		Model:    j.Model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(j.Prompt)},
	}
	if j.N > 0 {
		body.N = param.NewOpt(int64(j.N))
	}
	for _, name := range j.Task.Tools {
		body.Tools = append(body.Tools, openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: name, Parameters: task.Parameters}))
	}
	if stream {
		body.StreamOptions = askUsage()
	}
	return body
}

func askUsage() openai.ChatCompletionStreamOptionsParam {
	return openai.ChatCompletionStreamOptionsParam{IncludeUsage: param.NewOpt(true)}
}

func readWhole(j *task.Job, answer *openai.ChatCompletion) {
	for _, c := range answer.Choices {
		j.Text(int(c.Index), c.Message.Content)
		j.Finish(int(c.Index), c.FinishReason)
		for i, t := range c.Message.ToolCalls {
			j.Tool(i, task.Tool{ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments})
		}
	}
	j.Report.Usage = usageOf(answer.Usage)
}

func chat(ctx context.Context, j *task.Job) error {
	client := connect(j)
	answer, err := client.Chat.Completions.New(ctx, chatBody(j, false))
	if err != nil {
		return err
	}
	readWhole(j, answer)
	return nil
}

func open(ctx context.Context, j *task.Job) *ssestream.Stream[openai.ChatCompletionChunk] {
	client := connect(j)
	return client.Chat.Completions.NewStreaming(ctx, chatBody(j, true))
}

func stream(ctx context.Context, j *task.Job) error {
	s := open(ctx, j)
	defer s.Close()
	for s.Next() {
		chunk := s.Current()
		if u := usageOf(chunk.Usage); u != nil {
			j.Report.Usage = u
		}
		for _, c := range chunk.Choices {
			j.Finish(int(c.Index), c.FinishReason)
			for _, t := range c.Delta.ToolCalls {
				j.Tool(int(t.Index), task.Tool{ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments})
			}
			if j.Text(int(c.Index), c.Delta.Content) {
				return nil
			}
		}
	}
	return s.Err()
}

// assemble uses the accumulator, which is stricter than the plain loop.
func assemble(ctx context.Context, j *task.Job) error {
	s := open(ctx, j)
	defer s.Close()
	var all openai.ChatCompletionAccumulator
	for s.Next() {
		if chunk := s.Current(); !all.AddChunk(chunk) {
			return fmt.Errorf("the accumulator refused %s", chunk.RawJSON())
		}
	}
	readWhole(j, &all.ChatCompletion)
	return s.Err()
}

func completionBody(j *task.Job) openai.CompletionNewParams {
	return openai.CompletionNewParams{
		Model:  openai.CompletionNewParamsModel(j.Model),
		Prompt: openai.CompletionNewParamsPromptUnion{OfString: param.NewOpt(j.Prompt)},
	}
}

func completion(ctx context.Context, j *task.Job) error {
	client := connect(j)
	answer, err := client.Completions.New(ctx, completionBody(j))
	if err != nil {
		return err
	}
	j.Text(0, answer.Choices[0].Text)
	j.Finish(0, string(answer.Choices[0].FinishReason))
	j.Report.Usage = usageOf(answer.Usage)
	return nil
}

func completionStream(ctx context.Context, j *task.Job) error {
	client, body := connect(j), completionBody(j)
	body.StreamOptions = askUsage()
	s := client.Completions.NewStreaming(ctx, body)
	defer s.Close()
	for s.Next() {
		chunk := s.Current()
		if u := usageOf(chunk.Usage); u != nil {
			j.Report.Usage = u
		}
		for _, c := range chunk.Choices {
			j.Text(int(c.Index), c.Text)
			j.Finish(int(c.Index), string(c.FinishReason))
		}
	}
	return s.Err()
}

// embeddings reads the vectors as they came: not every version decodes base64.
func embeddings(ctx context.Context, j *task.Job) error {
	client := connect(j)
	answer, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{
		Model: j.Model, EncodingFormat: openai.EmbeddingNewParamsEncodingFormat(j.Encoding),
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: j.Input},
	})
	if err != nil {
		return err
	}
	for _, d := range answer.Data {
		var raw struct{ Embedding json.RawMessage }
		err := json.Unmarshal([]byte(d.RawJSON()), &raw)
		if err == nil {
			err = j.Vector(raw.Embedding)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

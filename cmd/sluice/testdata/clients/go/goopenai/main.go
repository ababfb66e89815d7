// The tasks by means of github.com/sashabaranov/go-openai.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"clients/task"

	"github.com/sashabaranov/go-openai"
)

func main() {
	task.Run(map[string]func(context.Context, *task.Job) error{
		"models": models, "model": model, "chat": chat, "stream": stream,
		"completion": completion, "completion_stream": completionStream, "embeddings": embeddings,
	}, describe)
}

func connect(j *task.Job) *openai.Client {
	config := openai.DefaultConfig(j.APIKey)
	config.BaseURL = j.BaseURL
	return openai.NewClientWithConfig(config)
}

func describe(err error) *task.Error {
	e := &task.Error{Kind: fmt.Sprintf("%T", err), Message: err.Error()}
	var api *openai.APIError
	if errors.As(err, &api) {
		e.Message, e.Status, e.Type = api.Message, api.HTTPStatusCode, api.Type
		if api.Code != nil {
			e.Code = fmt.Sprint(api.Code)
		}
	}
	var request *openai.RequestError
	if errors.As(err, &request) {
		e.Status = request.HTTPStatusCode
	}
	return e
}

func usageOf(u *openai.Usage) *task.Usage {
	if u == nil {
		return nil
	}
	return &task.Usage{Prompt: int64(u.PromptTokens), Completion: int64(u.CompletionTokens), Total: int64(u.TotalTokens)}
}

func models(ctx context.Context, j *task.Job) error {
	list, err := connect(j).ListModels(ctx)
	for _, m := range list.Models {
		j.Report.Models = append(j.Report.Models, m.ID)
	}
	return err
}

func model(ctx context.Context, j *task.Job) error {
	m, err := connect(j).GetModel(ctx, j.Model)
	j.Report.Models = []string{m.ID}
	return err
}

func chatBody(j *task.Job) openai.ChatCompletionRequest {
	body := openai.ChatCompletionRequest{
		Model: j.Model, N: j.N,
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: j.Prompt}},
	}
	for _, name := range j.Task.Tools {
		body.Tools = append(body.Tools, openai.Tool{
			Type: openai.ToolTypeFunction, Function: &openai.FunctionDefinition{Name: name, Parameters: task.Parameters},
		})
	}
	return body
}

func chat(ctx context.Context, j *task.Job) error {
	answer, err := connect(j).CreateChatCompletion(ctx, chatBody(j))
	if err != nil {
		return err
	}
	for _, c := range answer.Choices {
		j.Text(c.Index, c.Message.Content)
		j.Finish(c.Index, string(c.FinishReason))
		for i, t := range c.Message.ToolCalls {
			j.Tool(i, task.Tool{ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments})
		}
	}
	j.Report.Usage = usageOf(&answer.Usage)
	return nil
}

func stream(ctx context.Context, j *task.Job) error {
	body := chatBody(j)
	body.StreamOptions = &openai.StreamOptions{IncludeUsage: true}
	s, err := connect(j).CreateChatCompletionStream(ctx, body)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if u := usageOf(chunk.Usage); u != nil {
			j.Report.Usage = u
		}
		for _, c := range chunk.Choices {
			j.Finish(c.Index, string(c.FinishReason))
			for _, t := range c.Delta.ToolCalls {
				j.Tool(*t.Index, task.Tool{ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments})
			}
			if j.Text(c.Index, c.Delta.Content) {
				return nil
			}
		}
	}
}

func completion(ctx context.Context, j *task.Job) error {
	answer, err := connect(j).CreateCompletion(ctx, openai.CompletionRequest{Model: j.Model, Prompt: j.Prompt})
	if err != nil {
		return err
	}
	j.Text(0, answer.Choices[0].Text)
	j.Finish(0, answer.Choices[0].FinishReason)
	j.Report.Usage = usageOf(answer.Usage)
	return nil
}

func completionStream(ctx context.Context, j *task.Job) error {
	s, err := connect(j).CreateCompletionStream(ctx, openai.CompletionRequest{
		Model: j.Model, Prompt: j.Prompt, StreamOptions: &openai.StreamOptions{IncludeUsage: true},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if u := usageOf(chunk.Usage); u != nil {
			j.Report.Usage = u
		}
		for _, c := range chunk.Choices {
			j.Text(c.Index, c.Text)
			j.Finish(c.Index, c.FinishReason)
		}
	}
}

func embeddings(ctx context.Context, j *task.Job) error {
	answer, err := connect(j).CreateEmbeddings(ctx, openai.EmbeddingRequestStrings{
		Input: j.Input, Model: openai.EmbeddingModel(j.Model), EncodingFormat: openai.EmbeddingEncodingFormat(j.Encoding),
	})
	if err != nil {
		return err
	}
	for _, d := range answer.Data {
		raw, err := json.Marshal(d.Embedding)
		if err == nil {
			err = j.Vector(raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

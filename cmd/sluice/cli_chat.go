package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/sashabaranov/go-openai"
	"github.com/spf13/cobra"
)

// maxPrompt bounds a prompt from standard input.
const maxPrompt = 10 << 20

func (a *app) chatCommand() *cobra.Command {
	var f targetFlags
	var system string
	cmd := &cobra.Command{
		Use:   "chat [PROMPT...]",
		Short: "Ask a model and watch the answer arrive",
		Long: `Ask a model and watch the answer arrive, token by token. The prompt is the
arguments, or else standard input. Ctrl-C cancels the answer at the server too.

Exit codes: 0 whole answer, 1 failed or cut, 130 cancelled.`,
		Example: `  sluice chat 'What is a sluice?'
  git diff | sluice chat --model assistant --system 'Review this change.'
  sluice chat --url http://127.0.0.1:11434 --model llama3.1 'Hello'`,
		GroupID: "client",
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.target(cmd, &f)
			if err != nil {
				return err
			}
			prompt, err := a.prompt(args)
			if err == nil {
				err = a.chat(cmd.Context(), t, f.model, system, prompt)
			}
			switch {
			case err == nil:
				return nil
			case cmd.Context().Err() != nil:
				return &exitError{exitInterrupted, errors.New("cancelled")}
			default:
				return &exitError{exitFailure, err}
			}
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&system, "system", "", "system `message` before the prompt")
	return cmd
}

// prompt is the arguments, or standard input to its end.
func (a *app) prompt(args []string) (string, error) {
	if len(args) > 0 && (len(args) != 1 || args[0] != "-") {
		return strings.Join(args, " "), nil
	}
	if f, ok := a.stdin.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(a.stderr, "Type the prompt; Ctrl-D ends it.")
		}
	}
	data, err := io.ReadAll(io.LimitReader(a.stdin, maxPrompt+1))
	if err != nil {
		return "", fmt.Errorf("read the prompt: %w", err)
	}
	if len(data) > maxPrompt {
		return "", fmt.Errorf("the prompt is larger than %s", Size(maxPrompt))
	}
	if text := strings.TrimSpace(string(data)); text != "" {
		return text, nil
	}
	return "", errors.New("the prompt is empty")
}

func (a *app) chat(ctx context.Context, t target, model, system, prompt string) error {
	client := t.client()
	if model == "" {
		var err error
		if model, err = pickModel(ctx, client); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "(model %s)\n", model)
	}
	var messages []openai.ChatCompletionMessage
	if system != "" {
		messages = append(messages, openai.ChatCompletionMessage{Role: openai.ChatMessageRoleSystem, Content: system})
	}
	messages = append(messages, openai.ChatCompletionMessage{Role: openai.ChatMessageRoleUser, Content: prompt})
	stream, err := client.CreateChatCompletionStream(ctx, openai.ChatCompletionRequest{Model: model, Messages: messages})
	if err != nil {
		return plainError(err)
	}
	defer stream.Close()
	finish, err := a.show(stream)
	if err != nil {
		return err
	}
	if finish != openai.FinishReasonStop {
		fmt.Fprintf(a.stderr, "(ended by %s)\n", finish)
	}
	return nil
}

// show writes an answer as it arrives: its text to stdout, its reasoning to
// stderr. An end without a finish reason is a cut, whatever the server says.
func (a *app) show(stream *openai.ChatCompletionStream) (finish openai.FinishReason, err error) {
	wrote := false
	defer func() {
		if wrote {
			fmt.Fprintln(a.stdout)
		}
	}()
	for {
		chunk, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && finish != "":
			return finish, nil
		case errors.Is(err, io.EOF):
			return "", errors.New("the answer was cut: the stream ended without a finish reason")
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", errors.New("the answer was cut: the connection broke")
		case err != nil:
			return "", fmt.Errorf("the answer was cut: %w", plainError(err))
		}
		for _, choice := range chunk.Choices {
			fmt.Fprint(a.stderr, choice.Delta.ReasoningContent)
			if choice.Delta.Content != "" {
				wrote = true
				fmt.Fprint(a.stdout, choice.Delta.Content)
			}
			if choice.FinishReason != "" {
				finish = choice.FinishReason
			}
		}
	}
}

// dataOnly takes comments and other fields out of event streams. go-openai
// keeps such lines for its error message, and then fails to read the error
// event that follows a heartbeat.
type dataOnly struct{ client *http.Client }

func (d dataOnly) Do(req *http.Request) (*http.Response, error) {
	resp, err := d.client.Do(req)
	if err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		resp.Body = &dataLines{body: resp.Body, r: bufio.NewReader(resp.Body)}
	}
	return resp, err
}

// dataLines reads the data lines of an event stream.
type dataLines struct {
	body io.ReadCloser
	r    *bufio.Reader
	left []byte // of the present line, in the reader's buffer
	keep bool   // whether the present line is passed on
	mid  bool   // whether the next read continues the present line
}

func (d *dataLines) Read(p []byte) (int, error) {
	for len(d.left) == 0 {
		part, err := d.r.ReadSlice('\n')
		if !d.mid {
			d.keep = bytes.HasPrefix(part, []byte("data"))
		}
		d.mid = errors.Is(err, bufio.ErrBufferFull)
		if d.keep {
			d.left = part
		}
		if err != nil && !d.mid && len(d.left) == 0 {
			return 0, err
		}
	}
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, nil
}

func (d *dataLines) Close() error { return d.body.Close() }

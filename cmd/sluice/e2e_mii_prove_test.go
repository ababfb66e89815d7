//go:build prove

package main

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// realMIIText is what the engine under the real servers says.
const realMIIText = " Tokens flow, one by one. Ünïcödé 日本 🙂"

// TestMIIReal drives DeepSpeed-MII's own load balancer and replica, over an engine that
// needs no GPU.
func TestMIIReal(t *testing.T) {
	python := pythonWith(t, "mii-real", "testdata/mii/requirements-real.txt", "--no-deps")
	m := startMII(t, python, "testdata/mii/real.py")
	g := boot(t, overMII(m.grpc, "[upstreams.mii]\neos = [\"</s>\"]\n"))
	c := sdkOf(g)
	t.Run("streamed", func(t *testing.T) {
		got, err := sdkStream(t, c, miiChat(""))
		if err != nil || got.text != realMIIText || got.finish != "stop" || got.usage == nil || got.usage.CompletionTokens != 9 {
			t.Errorf("%+v, %v, usage %+v", got, err, got.usage)
		}
	})
	t.Run("whole", func(t *testing.T) {
		res, err := c.CreateChatCompletion(t.Context(), miiChat(""))
		if err != nil || res.Choices[0].Message.Content != realMIIText || res.Choices[0].FinishReason != "stop" || res.Usage.CompletionTokens != 9 {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("bounded, greedy", func(t *testing.T) {
		req := miiChat("tokens=50 ")
		req.MaxCompletionTokens, req.Temperature = 3, 1e-5
		if got, err := sdkStream(t, c, req); err != nil || got.text != " Tokens flow, one" || got.finish != "length" || got.usage.CompletionTokens != 3 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("stop sequence", func(t *testing.T) {
		req := miiChat("")
		req.Stop = []string{"y one"}
		if got, err := sdkStream(t, c, req); err != nil || got.text != " Tokens flow, one b" || got.finish != "stop" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("several prompts", func(t *testing.T) {
		res, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "mistral", Prompt: []string{"tokens=1 ", "tokens=2 "}, MaxTokens: 9})
		if err != nil || len(res.Choices) != 2 || res.Choices[0].Text != " Tokens" || res.Choices[1].Text != " Tokens flow," {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("a prompt too long for the engine", func(t *testing.T) {
		_, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "mistral", Prompt: strings.Repeat("a ", 600)})
		if e := new(openai.APIError); !errors.As(err, &e) || e.HTTPStatusCode != http.StatusBadRequest || e.Code != "context_length_exceeded" {
			t.Errorf("%+v", err)
		}
	})
	t.Run("cancel is not handed on", func(t *testing.T) {
		stream, err := c.CreateChatCompletionStream(t.Context(), miiChat("tokens=60 slowly"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		_ = stream.Close()
		left := time.Now()
		g.awaitLine(t, "the call that was left", func(l map[string]string) bool { return l["msg"] == "answer" && l["end"] == "client_gone" })
		if took := time.Since(left); took > soon {
			t.Errorf("settled after %v", took)
		}
		m.await(t, "generated", m.ask(t).Counts["generated"]+20)
	})
	if s := m.ask(t); s.Counts["key_sets"] != 1 {
		t.Errorf("calls came with different sets of parameters: %+v", s)
	}
}

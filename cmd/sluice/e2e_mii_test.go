package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
)

// pythonWith returns an interpreter with the packages of a requirements file.
func pythonWith(t *testing.T, name, requirements string, flags ...string) string {
	t.Helper()
	dir := installed(t, name, toolVersion(t, "python3", "--version"), []string{requirements},
		func(ctx context.Context, dir string) ([]byte, error) {
			if output, err := exec.CommandContext(ctx, "python3", "-m", "venv", dir).CombinedOutput(); err != nil {
				return output, err
			}
			args := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"}, flags...)
			pip := exec.CommandContext(ctx, filepath.Join(dir, "bin", "python"), append(args, "--requirement", requirements)...)
			pip.WaitDelay = time.Second
			return pip.CombinedOutput()
		})
	return filepath.Join(dir, "bin", "python")
}

// miiServer is a load balancer in Python, with grpcio and the published field numbers.
type miiServer struct{ grpc, state string } // base URLs

// startMII runs a script that prints where it listens, until the test ends.
func startMII(t *testing.T, python, script string, args ...string) miiServer {
	t.Helper()
	command := exec.Command(python, append([]string{"-B", script}, args...)...)
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var faults strings.Builder
	command.Stderr, command.WaitDelay = &faults, time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close() // the script ends with its input
		kill := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		_ = command.Wait() // how it ended is in what it wrote
		kill.Stop()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", script, faults.String())
		}
	})
	lines, ready := bufio.NewScanner(output), time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
	defer ready.Stop()
	for lines.Scan() {
		var rpc, state int
		if n, _ := fmt.Sscanf(lines.Text(), "ready %d %d", &rpc, &state); n == 2 {
			return miiServer{fmt.Sprintf("http://127.0.0.1:%d", rpc), fmt.Sprintf("http://127.0.0.1:%d", state)}
		}
	}
	_ = command.Process.Kill()
	t.Fatalf("%s is not ready", script)
	return miiServer{}
}

// miiState is what the server tells of itself.
type miiState struct {
	Counts map[string]int
	Dead   bool
	Last   struct {
		Prompts []string
		Kwargs  map[string]any
	}
}

func (m miiServer) ask(t *testing.T) (s miiState) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.state, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until the server has counted so many of something.
func (m miiServer) await(t *testing.T, what string, count int) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for end := time.Now().Add(patience); m.ask(t).Counts[what] < count; <-poll.C {
		if time.Now().After(end) {
			t.Fatalf("%s: %v, want %d", what, m.ask(t).Counts, count)
		}
	}
}

func overMII(base, more string) string {
	return fmt.Sprintf("[demo]\nenabled = false\n[retry]\ntries = 1\n[[upstreams]]\nname = \"mii\"\nkind = \"mii\"\nbase_url = %q\nmodels = [\"mistral\"]\nlocal = true\n%s\n", base, more)
}

func miiChat(script string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: "mistral", Messages: []openai.ChatCompletionMessage{
		{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Hello there " + script}}}
}

// miiText is what the scripted engine answers, and how many tokens that is with the end.
const miiText, miiTokens = " Tokens flow, one by one. Ünïcödé 日本 🙂", 9

// TestMII drives a grpcio server through the gateway with OpenAI's API.
func TestMII(t *testing.T) {
	python := pythonWith(t, "mii", "testdata/mii/requirements.txt")
	t.Parallel()
	m := startMII(t, python, "testdata/mii/server.py", "1.5")
	g := boot(t, overMII(m.grpc, "[upstreams.mii]\nmax_new_tokens = 100\nmax_prompt = \"2KiB\"\n"))
	c := sdkOf(g)
	t.Run("streamed", func(t *testing.T) {
		got, err := sdkStream(t, c, miiChat(""))
		if err != nil || got.text != miiText || got.finish != "stop" || got.usage == nil || got.usage.CompletionTokens != miiTokens || got.usage.PromptTokens == 0 {
			t.Errorf("%+v, %v, usage %+v", got, err, got.usage)
		}
		last := m.ask(t).Last
		if want := "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello there <|im_end|>\n<|im_start|>assistant\n"; len(last.Prompts) != 1 || last.Prompts[0] != want {
			t.Errorf("the prompt was %q", last.Prompts)
		}
		if last.Kwargs["stream"] != true || last.Kwargs["max_new_tokens"] != 100.0 {
			t.Errorf("parameters %v", last.Kwargs)
		}
	})
	t.Run("whole", func(t *testing.T) {
		res, err := c.CreateChatCompletion(t.Context(), miiChat(""))
		if err != nil || res.Choices[0].Message.Content != miiText || res.Choices[0].FinishReason != "stop" || res.Usage.CompletionTokens != miiTokens {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("bounded", func(t *testing.T) {
		req := miiChat("@tokens=50")
		req.MaxCompletionTokens = 7
		if got, err := sdkStream(t, c, req); err != nil || got.text != " 0 1 2 3 4 5 6" || got.finish != "length" || got.usage.CompletionTokens != 7 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("stop sequence", func(t *testing.T) {
		for _, stream := range []bool{true, false} {
			req := miiChat("")
			req.Stop = []string{"y one", "never"}
			var got sdkAnswer
			var err error
			if stream {
				got, err = sdkStream(t, c, req)
			} else if res, failed := c.CreateChatCompletion(t.Context(), req); failed != nil {
				err = failed
			} else {
				got = sdkAnswer{text: res.Choices[0].Message.Content, finish: string(res.Choices[0].FinishReason), usage: &res.Usage}
			}
			if err != nil || got.text != " Tokens flow, one b" || got.finish != "stop" || got.usage == nil || got.usage.CompletionTokens != 5 {
				t.Errorf("streamed %t: %+v, %v, usage %+v", stream, got, err, got.usage)
			}
		}
	})
	t.Run("several prompts", func(t *testing.T) {
		res, err := c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "mistral", Prompt: []string{"one @tokens=2", "two @tokens=3"}, MaxTokens: 3})
		if err != nil || len(res.Choices) != 2 || res.Choices[0].Text != " 0 1" || res.Choices[1].Text != " 0 1 2" || res.Choices[1].FinishReason != "length" || res.Usage.CompletionTokens != 6 {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("models", func(t *testing.T) {
		list, err := c.ListModels(t.Context())
		if err != nil || len(list.Models) != 1 || list.Models[0].ID != "mistral" {
			t.Errorf("%+v, %v", list, err)
		}
	})
	t.Run("tokens come one by one", func(t *testing.T) { miiFlows(t, c) })
	t.Run("refused", func(t *testing.T) { miiRefusals(t, c, m) })
	t.Run("failures", func(t *testing.T) { miiFailures(t, c, m) })
	t.Run("cancel", func(t *testing.T) { miiCancel(t, g, c, m) })
	s := m.ask(t)
	if s.Dead || s.Counts["terminated"]+s.Counts["poisoned"] > 0 {
		t.Errorf("the server was harmed: %+v", s)
	}
	if kinds := slices.Collect(func(yield func(string) bool) {
		for name := range s.Counts {
			if strings.HasPrefix(name, "kwargs ") && !yield(name) {
				return
			}
		}
	}); len(kinds) != 1 {
		t.Errorf("calls came with different sets of parameters: %v", kinds)
	}
}

// miiFlows: what the engine makes slowly is not collected on the way.
func miiFlows(t *testing.T, c *openai.Client) {
	stream, err := c.CreateChatCompletionStream(t.Context(), miiChat("@tokens=20,delay=0.05"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var first, last time.Time
	for {
		chunk, err := stream.Recv()
		if err != nil {
			break
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			if last = time.Now(); first.IsZero() {
				first = last
			}
		}
	}
	if took := last.Sub(first); took < 500*time.Millisecond {
		t.Errorf("twenty tokens, 50ms apart, came within %v", took)
	}
}

// miiRefusals: what the server cannot do is refused here, by name, and never sent.
func miiRefusals(t *testing.T, c *openai.Client, m miiServer) {
	calls := m.ask(t).Counts["calls"]
	seed := 1
	for param, change := range map[string]func(*openai.ChatCompletionRequest){
		"tools": func(r *openai.ChatCompletionRequest) {
			r.Tools = []openai.Tool{{Type: "function", Function: &openai.FunctionDefinition{Name: "f"}}}
		},
		"response_format": func(r *openai.ChatCompletionRequest) {
			r.ResponseFormat = &openai.ChatCompletionResponseFormat{Type: "json_object"}
		},
		"logprobs":         func(r *openai.ChatCompletionRequest) { r.LogProbs = true },
		"seed":             func(r *openai.ChatCompletionRequest) { r.Seed = &seed },
		"presence_penalty": func(r *openai.ChatCompletionRequest) { r.PresencePenalty = 1 },
		"messages[1].content[0]": func(r *openai.ChatCompletionRequest) {
			r.Messages[1] = openai.ChatCompletionMessage{Role: "user", MultiContent: []openai.ChatMessagePart{{Type: "image_url", ImageURL: &openai.ChatMessageImageURL{URL: "data:image/png;base64,AA=="}}}}
		},
		"messages": func(r *openai.ChatCompletionRequest) { r.Messages[1].Content = strings.Repeat("long ", 500) },
	} {
		req := miiChat("")
		change(&req)
		_, err := c.CreateChatCompletion(t.Context(), req)
		e := new(openai.APIError)
		if !errors.As(err, &e) || e.HTTPStatusCode != http.StatusBadRequest || e.Param == nil || *e.Param != param || !strings.Contains(e.Message, "mistral") {
			t.Errorf("%s: %+v", param, err)
		}
	}
	if now := m.ask(t).Counts["calls"]; now != calls {
		t.Errorf("%d refused calls reached the server", now-calls)
	}
}

// miiFailures: what breaks in the engine is told, also where the load balancer hides it.
func miiFailures(t *testing.T, c *openai.Client, m miiServer) {
	e := new(openai.APIError)
	_, err := c.CreateChatCompletion(t.Context(), miiChat("@fail=2"))
	if !errors.As(err, &e) || e.HTTPStatusCode != http.StatusBadGateway || e.Message != "CUDA error: device-side assert triggered" {
		t.Errorf("a failure that is told: %+v", err)
	}
	_, err = c.CreateCompletion(t.Context(), openai.CompletionRequest{Model: "mistral", Prompt: strings.Repeat("a ", 600)})
	if !errors.As(err, &e) || e.HTTPStatusCode != http.StatusBadRequest || e.Code != "context_length_exceeded" {
		t.Errorf("a prompt too long for the engine: %+v", err)
	}
	for script, before := range map[string]string{"@tokens=9,fail=4": " 0 1 2", "@fail=1": "", "@tokens=9,silent=3": " 0 1"} {
		got, err := sdkStream(t, c, miiChat(script))
		if err == nil || got.finish != "" || got.text != before || !strings.Contains(err.Error(), "finish_reason") {
			t.Errorf("%s: %+v, %v", script, got, err)
		}
	}
	if m.ask(t).Counts["hidden_errors"] < 2 {
		t.Error("the server has hidden no error, so that nothing was proven")
	}
}

// miiCancel: the load balancer knows soon that its caller has gone; that the engine goes
// on nevertheless is its way.
func miiCancel(t *testing.T, g *gatewayUnderTest, c *openai.Client, m miiServer) {
	before := m.ask(t).Counts["streams_ended"]
	stream, err := c.CreateChatCompletionStream(t.Context(), miiChat("@tokens=90,delay=0.02"))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	left := time.Now()
	_ = stream.Close()
	m.await(t, "streams_ended", before+1)
	if took := time.Since(left); took > soon {
		t.Errorf("the load balancer knew after %v", took)
	}
	m.await(t, "after_cancel", 3)
	line := g.awaitLine(t, "the call that was left", func(l map[string]string) bool { return l["msg"] == "answer" && l["end"] == "client_gone" })
	if line["completion_tokens"] == "0" {
		t.Errorf("access line: %v", line)
	}
}

// A gateway that calls a server of another kind, or none, says what it expected.
func TestMIIWrongServer(t *testing.T) {
	t.Parallel()
	g := boot(t, overMII("http://127.0.0.1:1", ""))
	if a := g.whole(t, "mistral", ""); a.status != http.StatusBadGateway || readError(t, a.body).Code != "upstream_unreachable" {
		t.Errorf("%d %s", a.status, a.body)
	}
	own := strings.TrimSuffix(g.URL, "/v1") // speaks HTTP, and no gRPC
	g = boot(t, overMII(own, ""))
	if a := g.whole(t, "mistral", ""); a.status != http.StatusBadGateway || !strings.Contains(readError(t, a.body).Message, "ModelResponse of DeepSpeed-MII") {
		t.Errorf("%d %s", a.status, a.body)
	}
	g = boot(t, overMII(own, "[upstreams.mii]\ntransport = \"rest\"\ndeployment = \"org/m\"\n"))
	if a := g.chat(t, "mistral", ""); a.status != http.StatusBadGateway || !strings.Contains(readError(t, a.body).Message, `deployment \"org/m\"`) && !strings.Contains(readError(t, a.body).Message, `deployment "org/m"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Whatever template is configured, the marks that models are known to end with are cut
// off, unless the configuration lists its own.
func TestMIIEndMarks(t *testing.T) {
	for _, c := range []struct {
		members string
		has, no []string
	}{
		{"", []string{"</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"}, []string{"", "### Instruction:"}},
		{"template = \"alpaca\"\n", []string{"</s>", "<|im_end|>"}, []string{"", "### Instruction:"}},
		{"eos = [\"<END>\"]\n", []string{"<END>"}, []string{"</s>", "<|im_end|>"}},
	} {
		config, _, err := loadText(t, "[[upstreams]]\nname = \"u\"\nkind = \"mii\"\nbase_url = \"http://127.0.0.1:50050\"\nmodels = [\"m\"]\n[upstreams.mii]\n"+c.members, nil)
		if err != nil {
			t.Fatal(err)
		}
		marks := config.Upstreams[0].MII.endMarks()
		for _, mark := range c.has {
			if !slices.Contains(marks, mark) {
				t.Errorf("%q: %q lack %q", c.members, marks, mark)
			}
		}
		for _, mark := range c.no {
			if slices.Contains(marks, mark) {
				t.Errorf("%q: %q have %q", c.members, marks, mark)
			}
		}
	}
}

func TestMIIConfig(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]string{
		"": "models",
		"models = [\"m\"]\n[upstreams.mii]\ntemplate = \"chatm\"":                          "there is no chat template",
		"models = [\"m\"]\n[upstreams.mii]\ntemplate = \"./none.tmpl\"":                    "none.tmpl",
		"models = [\"m\"]\n[upstreams.mii]\ntransport = \"rest\"":                          "deployment",
		"models = [\"m\"]\n[upstreams.mii]\ntransport = \"rest\"\ndeployment = \"a/../b\"": "folder",
		"models = [\"m\"]\n[upstreams.mii]\nmax_new_tokens = 9000":                         "max_new_tokens_limit",
		"models = [\"m\"]\n[upstreams.mii]\ngeneration = \"0.2\"":                          "generation",
		"models = [\"m\"]\nproxy = \"http://127.0.0.1:9\"":                                 "gRPC",
	} {
		_, _, err := loadText(t, "[[upstreams]]\nname = \"u\"\nkind = \"mii\"\nbase_url = \"http://127.0.0.1:50050\"\n"+more+"\n", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
	if _, _, err := loadText(t, "[[upstreams]]\nname = \"u\"\nkind = \"mii\"\nbase_url = \"http://127.0.0.1:50050/mii\"\nmodels = [\"m\"]\n", nil); err == nil || !strings.Contains(err.Error(), "no path") {
		t.Errorf("a path: %v", err)
	}
}

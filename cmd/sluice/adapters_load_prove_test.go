//go:build prove

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/providers/kserve/kservetest"
	"sluice/providers/kserve/oip"
	miiwire "sluice/providers/mii/wire"
)

// asAdapterLoad makes a child process of the tests the load of TestAdapterCPU.
const asAdapterLoad = "SLUICE_TEST_ADAPTER_LOAD"

// TestAdapterLoad is the load process: it serves upstreams of all kinds on one port, and
// asks the gateway as each line of its input says.
func TestAdapterLoad(t *testing.T) {
	if os.Getenv(asAdapterLoad) == "" {
		t.Skip("only a child of TestAdapterCPU")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &allUpstreams{answers: allAnswers(t)}
	srv := &http.Server{Handler: u, Protocols: new(http.Protocols), ErrorLog: log.New(os.Stderr, "", 0)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	fmt.Println("http://" + l.Addr().String())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var j loadJob
		if err := json.Unmarshal(in.Bytes(), &j); err != nil {
			t.Fatal(err)
		}
		u.job = j
		fmt.Println(runJob(client, j))
	}
}

// runJob reads all streams of a job to their ends and returns "ok", or what was wrong.
func runJob(client *http.Client, j loadJob) string {
	var all sync.WaitGroup
	faults := make(chan string, j.Streams)
	for i := range j.Streams {
		all.Go(func() {
			time.Sleep(j.Gap * time.Duration(i) / time.Duration(j.Streams)) // the load is even
			if err := readTokens(client, j); err != nil {
				faults <- err.Error()
			}
		})
	}
	all.Wait()
	select {
	case f := <-faults:
		return strings.ReplaceAll(f, "\n", " ")
	default:
		return "ok"
	}
}

func readTokens(client *http.Client, j loadJob) error {
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"Hi"}]}`, j.Model)
	req, err := http.NewRequest(http.MethodPost, j.URL, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+j.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if n := bytes.Count(text, []byte(`"content":" token"`)); n != j.Tokens || !bytes.HasSuffix(text, []byte("data: [DONE]\n\n")) {
		return fmt.Errorf("%d tokens of %d, status %d, ends in %q", n, j.Tokens, resp.StatusCode, text[max(0, len(text)-300):])
	}
	return nil
}

// allAnswer is what one kind of server sends.
type allAnswer struct {
	kind              string // Content-Type
	head, token, tail []byte
}

// allUpstreams serve every kind; one job runs at a time.
type allUpstreams struct {
	job     loadJob
	answers map[string]allAnswer
}

func (u *allUpstreams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := u.answers[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if a.kind == "application/grpc" { // a message, behind which its caller's stream may stay open
		_, _ = io.ReadFull(r.Body, make([]byte, 5))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	} else {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	w.Header().Set("Content-Type", a.kind)
	flush := http.NewResponseController(w).Flush
	_, _ = w.Write(a.head)
	_ = flush()
	if u.job.Gap == 0 {
		const each = 100
		block := bytes.Repeat(a.token, each)
		for range u.job.Tokens / each {
			_, _ = w.Write(block)
		}
	} else {
		for range u.job.Tokens {
			time.Sleep(u.job.Gap)
			_, _ = w.Write(a.token)
			_ = flush()
		}
	}
	_, _ = w.Write(a.tail)
}

// allAnswers are events as the servers write them.
func allAnswers(t *testing.T) map[string]allAnswer {
	raw := func(delta, finish string) string {
		return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","system_fingerprint":"fp_1","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + "}]}\n\n"
	}
	event := func(name, more string) string {
		return "event: " + name + "\ndata: {\"type\":\"" + name + "\"" + more + "}\n\n"
	}
	gemini := func(text, more string) string {
		return `data: {"candidates": [{"content": {"parts": [{"text": "` + text + `"}],"role": "model"}` + more + `,"index": 0}],"usageMetadata": {"promptTokenCount": 3,"candidatesTokenCount": 9,"totalTokenCount": 12},"modelVersion": "gemini-x","responseId": "abc"}` + "\r\n\r\n"
	}
	ollama := func(text, more string) string {
		return `{"model":"llama3.2:3b","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":"` + text + `"},"done":` + more + "}\n"
	}
	const sse = "text/event-stream"
	text := func(kind, head, token, tail string) allAnswer {
		return allAnswer{kind, []byte(head), []byte(token), []byte(tail)}
	}
	return map[string]allAnswer{
		"/v1/chat/completions": text(sse, raw(`{"role":"assistant","content":""}`, "null"), raw(`{"content":" token"}`, "null"), raw("{}", `"stop"`)+"data: [DONE]\n\n"),
		"/api/chat":            text("application/x-ndjson", "", ollama(" token", "false"), ollama("", `true,"done_reason":"stop","prompt_eval_count":3,"eval_count":9`)),
		"/generate_stream": text(sse, "", `data:{"index":1,"token":{"id":1000,"text":" token","logprob":-0.30078125,"special":false},"generated_text":null,"details":null}`+"\n\n",
			`data:{"index":9,"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},"generated_text":"x","details":{"finish_reason":"eos_token","generated_tokens":9,"seed":null,"input_length":3}}`+"\n\n"),
		"/anthropic/v1/messages": text(sse, event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":3,"output_tokens":1}}`)+
			event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`), event("content_block_delta", `,"index":0,"delta":{"type":"text_delta","text":" token"}`),
			event("content_block_stop", `,"index":0`)+event("message_delta", `,"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":9}`)+event("message_stop", "")),
		"/v1beta/models/gemini:streamGenerateContent": text(sse, "", gemini(" token", ""), gemini(".", `,"finishReason": "STOP"`)),
		"/v2/models/kserve-http/generate_stream": text(sse, "", `data: {"finish_reason":null,"model_name":"m","model_version":"1","text_output":" token"}`+"\n\n",
			`data: {"finish_reason":"stop","model_name":"m","model_version":"1","text_output":""}`+"\n\n"),
		"/" + oip.GRPCInferenceService_ServiceDesc.ServiceName + "/ModelStreamInfer": {"application/grpc", nil, tritonMessage(t, " token", "None", false), tritonMessage(t, "", "stop", true)},
		miiwire.ModelResponse_GeneratorReplyStream_FullMethodName:                    {"application/grpc", nil, miiMessage(t, " token", "none"), miiMessage(t, "", "stop")},
	}
}

// grpcFrame is a message as it stands in the body of a call.
func grpcFrame(t *testing.T, m proto.Message) []byte {
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

func miiMessage(t *testing.T, text, finish string) []byte {
	return grpcFrame(t, &miiwire.MultiGenerationReply{Response: []*miiwire.SingleGenerationReply{
		{Response: text, FinishReason: finish, PromptTokens: 3, GeneratedTokens: 9, TimeTaken: -1, ModelTimeTaken: -1}}})
}

func tritonMessage(t *testing.T, text, finish string, last bool) []byte {
	m := &oip.ModelInferResponse{ModelName: "m", ModelVersion: "1", Parameters: map[string]*oip.InferParameter{
		"triton_final_response": {ParameterChoice: &oip.InferParameter_BoolParam{BoolParam: last}}}}
	for name, value := range map[string]string{"text_output": text, "finish_reason": finish} {
		o := kservetest.Strings(name, value)
		m.Outputs = append(m.Outputs, &oip.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "BYTES", Shape: []int64{1}})
		m.RawOutputContents = append(m.RawOutputContents, o.Raw)
	}
	return grpcFrame(t, &oip.ModelStreamInferResponse{InferResponse: m})
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
	"google.golang.org/protobuf/proto"

	"sluice/providers/kserve/kservetest"
	"sluice/providers/kserve/oip"
)

// tensorModels are what the servers of these tests hold: an eye, a reader and a writer.
func tensorModels() map[string]kservetest.Model {
	return map[string]kservetest.Model{
		"eye": {Inputs: []kservetest.Tensor{{Name: "pixels", Datatype: "FP32", Shape: []int64{-1, 3, 4, 4}}}, Do: eye},
		"reader": {Inputs: []kservetest.Tensor{{Name: "texts", Datatype: "BYTES", Shape: []int64{-1}}}, Do: func(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
			texts := in["texts"]
			var v []float32
			for _, s := range texts.Strings() {
				v = append(v, float32(len(s)), 1)
			}
			return send(kservetest.Floats("vectors", []int64{int64(len(v) / 2), 2}, v...))
		}},
		"writer": {Decoupled: true, Inputs: []kservetest.Tensor{{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}}, {Name: "max_tokens", Datatype: "INT32", Shape: []int64{1}}}, Do: writeWords},
	}
}

// eye tells the mean of each channel.
func eye(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["pixels"]
	var means []float32
	for v := range slices.Chunk(t.Floats(), 16) {
		sum := float32(0)
		for _, x := range v {
			sum += x
		}
		means = append(means, sum/16)
	}
	return send(kservetest.Floats("scores", []int64{t.Shape[0], 3}, means...))
}

// writeWords repeats the prompt word by word. "wait" waits until its caller has gone,
// and "fail" fails.
func writeWords(ctx context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["text_input"]
	for _, word := range strings.Fields(t.Strings()[0]) {
		switch word {
		case "wait":
			<-ctx.Done()
			return ctx.Err()
		case "fail":
			return &kservetest.Fault{Status: http.StatusInternalServerError, Code: 13, Message: "CUDA error"}
		}
		if err := send(kservetest.Strings("text_output", word+" "), kservetest.Strings("finish_reason", "None")); err != nil {
			return err
		}
	}
	return send(kservetest.Strings("text_output", ""), kservetest.Strings("finish_reason", "length"))
}

const tensorSchemas = `
[[upstreams.kserve.models]]
name = "eye"
batch = 4
inputs = [{ name = "pixels", datatype = "FP32", shape = [-1, 3, 4, 4] }]
outputs = [{ name = "scores", as = "classes", labels = ["red", "green", "blue"], top = 1 }]
[[upstreams.kserve.models]]
name = "reader"
batch = 16
inputs = [{ name = "texts", datatype = "BYTES", shape = [-1], from = "text" }]
outputs = [{ name = "vectors", as = "embedding" }]
[[upstreams.kserve.models]]
name = "writer"
decoupled = true
inputs = [
  { name = "text_input", datatype = "BYTES", shape = [1], from = "text" },
  { name = "max_tokens", datatype = "INT32", shape = [1], from = "param", param = "max_tokens", value = "100" },
]
outputs = [{ name = "text_output", as = "text" }, { name = "finish_reason", as = "finish_reason" }]
`

// overTensors boots a gateway over a server for each transport.
func overTensors(t *testing.T, run func(t *testing.T, g *gatewayUnderTest, s *kservetest.Server)) {
	for _, transport := range []string{"http", "grpc"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := &kservetest.Server{Models: tensorModels()}
			web, rpc := s.Start(t)
			base := map[string]string{"http": web, "grpc": rpc}[transport]
			g := boot(t, fmt.Sprintf(`
[demo]
enabled = false
[retry]
tries = 1
[[upstreams]]
name = "tensors"
kind = "kserve"
base_url = %q
api_key = "sk-upstream"
local = true
[upstreams.kserve]
transport = %q
max_pixels = 1000000
%s`, base, transport, tensorSchemas))
			run(t, g, s)
		})
	}
}

// onePicture is a PNG of one colour.
func onePicture(t testing.TB, width, height int, c color.Color) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		m.Set(i%width, i/width, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var (
	pureRed  = color.NRGBA{255, 0, 0, 255}
	pureBlue = color.NRGBA{0, 0, 255, 255}
)

func pictureURL(data []byte) string {
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(data)
}

// askEye is a chat request about images.
func askEye(images ...[]byte) openai.ChatCompletionRequest {
	parts := []openai.ChatMessagePart{{Type: openai.ChatMessagePartTypeText, Text: "Which colour is it?"}}
	for _, data := range images {
		parts = append(parts, openai.ChatMessagePart{Type: openai.ChatMessagePartTypeImageURL, ImageURL: &openai.ChatMessageImageURL{URL: pictureURL(data)}})
	}
	return openai.ChatCompletionRequest{Model: "eye", Messages: []openai.ChatCompletionMessage{{Role: "user", MultiContent: parts}}}
}

// eyeLabels reads the labels out of an answer about images.
func eyeLabels(t *testing.T, text string) []string {
	t.Helper()
	var found struct {
		Results []struct{ Classes []struct{ Label string } }
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	var labels []string
	for _, r := range found.Results {
		labels = append(labels, r.Classes[0].Label)
	}
	return labels
}

func TestKServeChat(t *testing.T) {
	t.Parallel()
	overTensors(t, func(t *testing.T, g *gatewayUnderTest, s *kservetest.Server) {
		sdk := sdkOf(g)
		list, err := sdk.ListModels(t.Context())
		if err != nil || len(list.Models) != 3 {
			t.Fatalf("%v %v", list, err)
		}
		whole, err := sdk.CreateChatCompletion(t.Context(), askEye(onePicture(t, 9, 5, pureRed), onePicture(t, 3, 8, pureBlue)))
		if err != nil {
			t.Fatal(err)
		}
		if got := eyeLabels(t, whole.Choices[0].Message.Content); !slices.Equal(got, []string{"red", "blue"}) || whole.Choices[0].FinishReason != "stop" {
			t.Errorf("%v %+v", got, whole)
		}
		streamed, err := sdkStream(t, sdk, askEye(onePicture(t, 9, 5, pureBlue)))
		if err != nil || streamed.finish != "stop" || !slices.Equal(eyeLabels(t, streamed.text), []string{"blue"}) {
			t.Errorf("%+v %v", streamed, err)
		}
		if h := s.Headers()[0]; h.Get("Authorization") != "Bearer sk-upstream" {
			t.Errorf("the server got %v", h)
		}
		text, err := sdkStream(t, sdk, openai.ChatCompletionRequest{Model: "writer", MaxCompletionTokens: 7, Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "one two three END four"}}, Stop: []string{"END"}})
		if err != nil || text.text != "one two three " || text.finish != "stop" {
			t.Errorf("%+v %v", text, err)
		}
		text, err = sdkStream(t, sdk, openai.ChatCompletionRequest{Model: "writer", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "one two"}}})
		if err != nil || text.text != "one two " || text.finish != "length" || text.usage == nil {
			t.Errorf("%+v %v", text, err)
		}
	})
}

func TestKServeEmbeddings(t *testing.T) {
	t.Parallel()
	overTensors(t, func(t *testing.T, g *gatewayUnderTest, _ *kservetest.Server) {
		for _, format := range []openai.EmbeddingEncodingFormat{openai.EmbeddingEncodingFormatFloat, openai.EmbeddingEncodingFormatBase64} {
			got, err := sdkOf(g).CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "reader", Input: []string{"a", "bcd"}, EncodingFormat: format})
			if err != nil || len(got.Data) != 2 || got.Data[1].Embedding[0] != 3 || got.Data[0].Embedding[1] != 1 {
				t.Errorf("%s: %+v %v", format, got, err)
			}
		}
	})
}

// TestKServeInfer: the infer path in every form, and images.
func TestKServeInfer(t *testing.T) {
	t.Parallel()
	overTensors(t, func(t *testing.T, g *gatewayUnderTest, _ *kservetest.Server) {
		texts := kservetest.Strings("texts", "abcd")
		head := fmt.Sprintf(`{"inputs":[{"name":"texts","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}`, len(texts.Raw))
		message, err := proto.Marshal(&oip.ModelInferRequest{Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "texts", Datatype: "BYTES", Shape: []int64{1}}}, RawInputContents: [][]byte{texts.Raw}})
		if err != nil {
			t.Fatal(err)
		}
		post := func(model, kind, body string, headers ...string) answer {
			t.Helper()
			return g.do(t, http.MethodPost, "/models/"+model+"/infer", body, append(headers, "Content-Type: "+kind)...)
		}
		want := `"outputs":[{"name":"vectors","datatype":"FP32","shape":[1,2],"data":[4,1]}]`
		if a := post("reader", "application/json", `{"inputs":[{"name":"texts","datatype":"BYTES","shape":[1],"data":["abcd"]}]}`); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("JSON: %d %s", a.status, a.body)
		}
		if a := post("reader", "application/octet-stream", head+string(texts.Raw), fmt.Sprintf("Inference-Header-Content-Length: %d", len(head))); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("bytes: %d %s", a.status, a.body)
		}
		a := post("reader", "application/x-protobuf", string(message))
		m := new(oip.ModelInferResponse)
		vector := kservetest.Floats("vectors", nil, 4, 1)
		if err := proto.Unmarshal([]byte(a.body), m); err != nil || a.status != 200 || len(m.GetRawOutputContents()) != 1 || !bytes.Equal(m.GetRawOutputContents()[0], vector.Raw) {
			t.Errorf("a message: %d %v %v", a.status, m, err)
		}
		if a := post("eye", "image/png", string(onePicture(t, 5, 5, pureRed))); a.status != 200 || !slices.Equal(eyeLabels(t, a.body), []string{"red"}) {
			t.Errorf("an image: %d %s", a.status, a.body)
		}
		if a := post("nobody", "application/json", `{"inputs":[]}`); a.status != 404 {
			t.Errorf("an unknown model: %d %s", a.status, a.body)
		}
		if a := g.do(t, http.MethodPost, "/models/reader/infer", `{}`, "Authorization: Bearer wrong", "Content-Type: application/json"); a.status != 401 {
			t.Errorf("without a key: %d", a.status)
		}
	})
}

// TestKServeBadImages: broken images are refused with the field and the model.
func TestKServeBadImages(t *testing.T) {
	t.Parallel()
	overTensors(t, func(t *testing.T, g *gatewayUnderTest, s *kservetest.Server) {
		good := onePicture(t, 64, 64, pureRed)
		for name, data := range map[string][]byte{"a bomb": onePicture(t, 1200, 1000, pureRed), "cut short": good[:len(good)-40], "a GIF": []byte("GIF89a\x01\x00\x01\x00"), "nothing": {}} {
			_, err := sdkOf(g).CreateChatCompletion(t.Context(), askEye(data))
			e := new(openai.APIError)
			if !errors.As(err, &e) || e.HTTPStatusCode != 400 || e.Param == nil || *e.Param != "messages[0].content[1].image_url.url" {
				t.Errorf("%s: %v", name, err)
			}
			a := g.do(t, http.MethodPost, "/models/eye/infer", string(data), "Content-Type: image/png")
			if a.status != 400 || !strings.Contains(a.body, "eye") {
				t.Errorf("%s, as a body: %d %s", name, a.status, a.body)
			}
		}
		if n := len(s.Headers()); n != 0 {
			t.Errorf("%d calls came to the server", n)
		}
	})
}

// TestKServeFaults: a failure in the middle is told, and a caller who leaves frees the
// server within a second.
func TestKServeFaults(t *testing.T) {
	t.Parallel()
	overTensors(t, func(t *testing.T, g *gatewayUnderTest, s *kservetest.Server) {
		say := func(text string) openai.ChatCompletionRequest {
			return openai.ChatCompletionRequest{Model: "writer", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: text}}}
		}
		if got, err := sdkStream(t, sdkOf(g), say("one fail two")); err == nil || got.finish != "" || !strings.Contains(err.Error(), "CUDA error") {
			t.Errorf("%+v %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := sdkOf(g).CreateChatCompletionStream(ctx, say("one wait"))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		for {
			chunk, err := stream.Recv()
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
				break
			}
		}
		cancel()
		select {
		case <-s.Gone():
		case <-time.After(time.Second):
			t.Error("the server does not know after a second")
		}
	})
}

// TestKServeConfiguration: what is wrong with a schema is told where it stands.
func TestKServeConfiguration(t *testing.T) {
	const upstream = "[[upstreams]]\nname = \"t\"\nkind = \"kserve\"\nbase_url = \"http://127.0.0.1:1\"\n"
	model := func(text string) string {
		return upstream + "[[upstreams.kserve.models]]\nname = \"m\"\n" + text
	}
	const input = `inputs = [{ name = "x", datatype = "FP32", shape = [1, 3, 8, 8] }]` + "\n"
	for name, c := range map[string]struct{ text, says string }{
		"a channel too many": {model(`inputs = [{ name = "x", datatype = "FP32", shape = [1, 4, 8, 8] }]` + "\n" + `outputs = [{ name = "y" }]`), "inputs[0].shape"},
		"a wrong layout":     {model(`inputs = [{ name = "x", datatype = "FP32", shape = [1, 3, 8, 8], layout = "NHWC" }]` + "\n" + `outputs = [{ name = "y" }]`), "inputs[0].shape"},
		"a text of floats":   {model(`inputs = [{ name = "x", datatype = "FP32", shape = [1], from = "text" }]` + "\n" + `outputs = [{ name = "y" }]`), "inputs[0].datatype"},
		"a bad value":        {model(`inputs = [{ name = "x", datatype = "FP32", shape = [2], from = "value", value = "[1]" }]` + "\n" + `outputs = [{ name = "y" }]`), "inputs[0].value"},
		"no outputs":         {model(input), "outputs"},
		"no inputs":          {model(`outputs = [{ name = "y" }]`), "inputs"},
		"boxes of no rows":   {model(input + `outputs = [{ name = "y", as = "boxes" }]`), "outputs[0].rows"},
		"a lost part":        {model(input + `outputs = [{ name = "y", as = "boxes", rows = "box", scores = "z" }]`), "outputs[0].scores"},
		"an unknown meaning": {model(input + `outputs = [{ name = "y", as = "class" }]`), "outputs[0].as"},
		"two labels":         {model(input + `outputs = [{ name = "y", as = "classes", labels = ["a"], labels_file = "b" }]`), "labels_file"},
		"no labels":          {model(input + `outputs = [{ name = "y", as = "classes", labels_file = "missing.txt" }]`), "labels_file"},
		"a batch":            {model("batch = 2\n" + input + `outputs = [{ name = "y" }]`), "inputs[0].shape"},
		"a template":         {model("template = \"chatml2\"\n" + input + `outputs = [{ name = "y" }]`), "template"},
		"bytes as JSON":      {upstream + "[upstreams.kserve]\nbinary_tensors = false\n[[upstreams.kserve.models]]\nname = \"m\"\n" + `inputs = [{ name = "x", datatype = "BYTES", shape = [1], from = "encoded" }]` + "\n" + `outputs = [{ name = "y" }]`, "inputs[0].from"},
		"a path":             {strings.Replace(upstream, ":1\"", ":1/v2\"", 1) + "[upstreams.kserve]\ntransport = \"grpc\"\n", "base_url"},
	} {
		err := loadKinds(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "].kind") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := loadKinds(t, upstream+tensorSchemas); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// loadKinds loads a configuration with every kind of upstream known.
func loadKinds(t *testing.T, text string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := optionsFor(t, file, nil, nil)
	o.Kinds = knownKinds()
	_, _, err := loadConfig(o)
	return err
}

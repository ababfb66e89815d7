//go:build prove

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/color"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	openai "github.com/sashabaranov/go-openai"
	"google.golang.org/protobuf/proto"

	"sluice/providers/kserve/kservetest"
	"sluice/providers/kserve/oip"
)

// These tests go through the gateway to real servers of the KServe v2 protocol: NVIDIA's
// Triton (the binary in the package nvidia-pytriton) and Seldon's MLServer, both with
// the models of testdata/kserve.

// unusedPorts returns loopback ports that were free a moment ago.
func unusedPorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// runServer runs a server until the test ends, and waits until it says that it and
// the models that are needed are ready.
func runServer(t *testing.T, command *exec.Cmd, base string, models ...string) {
	t.Helper()
	log := new(bytes.Buffer) // read only when the server has ended
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.WaitDelay = 5 * time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait() // its log tells
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			t.Logf("the server wrote:\n%s", log.String()[max(0, log.Len()-4000):])
		}
	})
	paths := []string{"/v2/health/ready"}
	for _, m := range models {
		paths = append(paths, "/v2/models/"+m+"/ready")
	}
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for end := time.Now().Add(2 * time.Minute); !allReady(base, paths); {
		select {
		case <-ended:
			t.Fatal("the server ended before it was ready")
		case <-poll.C:
			if time.Now().After(end) {
				t.Fatal("the server is not ready after two minutes")
			}
		}
	}
}

func allReady(base string, paths []string) bool {
	client := http.Client{Timeout: time.Second}
	return !slices.ContainsFunc(paths, func(path string) bool {
		r, err := client.Get(base + path)
		if err != nil {
			return true
		}
		_ = r.Body.Close()
		return r.StatusCode != http.StatusOK
	})
}

// startTriton runs Triton with its Python backend. gone is the file in which the writer
// notes that its caller has left.
func startTriton(t *testing.T) (web, rpc, gone string) {
	t.Helper()
	venv := filepath.Dir(filepath.Dir(pythonWith(t, "kserve-triton", "testdata/kserve/triton.txt")))
	ask := func(code string) string {
		out, err := exec.Command(filepath.Join(venv, "bin", "python"), "-c", code).CombinedOutput()
		if err != nil {
			notInstalled(t, "Triton", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	site := ask("import sysconfig; print(sysconfig.get_path('purelib'))")
	version := ask("import sys; print('%d.%d' % sys.version_info[:2])")
	libpython := ask("import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")
	home := filepath.Join(site, "pytriton", "tritonserver")
	backends := filepath.Join(t.TempDir(), "backends")
	for _, from := range []string{filepath.Join(home, "backends", "python"), filepath.Join(home, "python_backend_stubs", version)} {
		if err := copyTree(filepath.Join(backends, "python"), from); err != nil {
			notInstalled(t, "Triton's Python backend for Python "+version, err, nil)
		}
	}
	libraries, err := filepath.Glob(filepath.Join(site, "*pytriton*.libs"))
	if err != nil {
		t.Fatal(err)
	}
	ports := unusedPorts(t, 2)
	gone = filepath.Join(t.TempDir(), "gone")
	repository := filepath.Join(t.TempDir(), "models") // the backend leaves compiled files beside the models
	if err := os.CopyFS(repository, os.DirFS("testdata/kserve/triton")); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(home, "bin", "tritonserver"), "--model-repository="+repository, "--backend-directory="+backends,
		"--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--http-port="+strconv.Itoa(ports[0]), "--grpc-port="+strconv.Itoa(ports[1]),
		"--allow-metrics=false", "--exit-timeout-secs=5")
	// The backend's interpreter finds its packages by the first python in PATH.
	command.Env = append(clientEnv(), "PATH="+filepath.Join(venv, "bin")+":"+os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1", "GONE="+gone,
		"LD_LIBRARY_PATH="+strings.Join(append(libraries, libpython), ":"))
	web, rpc = "http://127.0.0.1:"+strconv.Itoa(ports[0]), "http://127.0.0.1:"+strconv.Itoa(ports[1])
	runServer(t, command, web, "eye", "reader", "writer")
	return web, rpc, gone
}

func copyTree(to, from string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// overServer is a gateway over a real server.
func overServer(t *testing.T, base, settings, schemas string) *gatewayUnderTest {
	t.Helper()
	return boot(t, fmt.Sprintf("[demo]\nenabled = false\n[retry]\ntries = 1\n[[upstreams]]\nname = \"tensors\"\nkind = \"kserve\"\nbase_url = %q\nlocal = true\n[upstreams.kserve]\n%s\n%s",
		base, settings, schemas))
}

// realSchemas are tensorSchemas for Triton's models, whose texts have an axis more.
var realSchemas = strings.Replace(tensorSchemas, `datatype = "BYTES", shape = [-1]`, `datatype = "BYTES", shape = [-1, 1]`, 1)

// sees asks the eye about a red and a blue picture.
func sees(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	got, err := sdkOf(g).CreateChatCompletion(t.Context(), askEye(onePicture(t, 90, 51, pureRed), onePicture(t, 13, 8, pureBlue), onePicture(t, 4, 4, color.NRGBA{10, 200, 20, 255})))
	if err != nil {
		t.Fatal(err)
	}
	if labels := eyeLabels(t, got.Choices[0].Message.Content); !slices.Equal(labels, []string{"red", "blue", "green"}) {
		t.Errorf("%v", labels)
	}
	a := g.do(t, http.MethodPost, "/models/eye/infer", string(onePicture(t, 5, 5, pureRed)), "Content-Type: image/png")
	if a.status != 200 || !slices.Equal(eyeLabels(t, a.body), []string{"red"}) {
		t.Errorf("an image: %d %s", a.status, a.body)
	}
}

// reads asks for embeddings, more than a batch holds.
func reads(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	var texts []string
	for i := range 20 {
		texts = append(texts, strings.Repeat("ü", i+1))
	}
	got, err := sdkOf(g).CreateEmbeddings(t.Context(), openai.EmbeddingRequestStrings{Model: "reader", Input: texts, EncodingFormat: openai.EmbeddingEncodingFormatBase64})
	if err != nil || len(got.Data) != len(texts) {
		t.Fatalf("%+v %v", got, err)
	}
	for i, d := range got.Data {
		if d.Embedding[0] != float32(2*(i+1)) || d.Embedding[1] != 1 {
			t.Errorf("vector %d is %v", i, d.Embedding)
		}
	}
}

func listed(t *testing.T, g *gatewayUnderTest, want ...string) {
	t.Helper()
	list, err := sdkOf(g).ListModels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range list.Models {
		got = append(got, m.ID)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("models %v, want %v", got, want)
	}
}

func TestRealTriton(t *testing.T) {
	web, rpc, gone := startTriton(t)
	for name, c := range map[string]struct{ base, settings string }{
		"http":       {web, `transport = "http"`},
		"http, JSON": {web, "transport = \"http\"\nbinary_tensors = false"},
		"grpc":       {rpc, `transport = "grpc"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := overServer(t, c.base, c.settings, realSchemas)
			listed(t, g, "eye", "reader", "writer")
			sees(t, g)
			reads(t, g)
			writes(t, g)
			passes(t, g)
			refuses(t, g)
		})
	}
	t.Run("classification", func(t *testing.T) {
		for _, c := range []string{web + " http", rpc + " grpc"} {
			base, transport, _ := strings.Cut(c, " ")
			classes := strings.Replace(realSchemas, `labels = ["red", "green", "blue"], top = 1`, `classification = 2`, 1)
			sees(t, overServer(t, base, fmt.Sprintf("transport = %q", transport), classes))
		}
	})
	t.Run("cancel", func(t *testing.T) { cancels(t, overServer(t, rpc, `transport = "grpc"`, realSchemas), gone) })
}

// writes asks for text: streamed, whole, stopped, and failing.
func writes(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	say := func(text string, stop ...string) openai.ChatCompletionRequest {
		return openai.ChatCompletionRequest{Model: "writer", MaxTokens: 50, Stop: stop, Messages: []openai.ChatCompletionMessage{{Role: "user", Content: text}}}
	}
	streamed, err := sdkStream(t, sdkOf(g), say("eins zwei drei 世界"))
	if err != nil || streamed.text != "eins zwei drei 世界 " || streamed.finish != "length" {
		t.Errorf("%+v %v", streamed, err)
	}
	stopped, err := sdkStream(t, sdkOf(g), say("one two END three", "END"))
	if err != nil || stopped.text != "one two " || stopped.finish != "stop" {
		t.Errorf("%+v %v", stopped, err)
	}
	whole, err := sdkOf(g).CreateChatCompletion(t.Context(), say("one two"))
	if err != nil || whole.Choices[0].Message.Content != "one two " || whole.Choices[0].FinishReason != "length" {
		t.Errorf("%+v %v", whole, err)
	}
	if failed, err := sdkStream(t, sdkOf(g), say("one fail two")); err == nil || !strings.Contains(err.Error(), "CUDA error") || failed.finish != "" {
		t.Errorf("a failure in the middle: %+v %v", failed, err)
	}
}

// passes sends the same tensor in each form.
func passes(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	texts := kservetest.Strings("texts", "abcd")
	head := fmt.Sprintf(`{"id":"7","inputs":[{"name":"texts","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":%d}}],"outputs":[{"name":"vectors","parameters":{"binary_data":true}}]}`, len(texts.Raw))
	vector := kservetest.Floats("vectors", nil, 4, 1)
	a := g.do(t, http.MethodPost, "/models/reader/infer", `{"id":"7","inputs":[{"name":"texts","datatype":"BYTES","shape":[1,1],"data":["abcd"]}]}`)
	if a.status != 200 || !strings.Contains(a.body, `"id":"7"`) || !strings.Contains(strings.ReplaceAll(a.body, ".0", ""), `"data":[4,1]`) {
		t.Errorf("JSON: %d %s", a.status, a.body)
	}
	a = g.do(t, http.MethodPost, "/models/reader/infer", head+string(texts.Raw), "Content-Type: application/octet-stream", fmt.Sprintf("Inference-Header-Content-Length: %d", len(head)))
	length, err := strconv.Atoi(a.header.Get("Inference-Header-Content-Length"))
	if err != nil || a.status != 200 || len(a.body) < length || a.body[length:] != string(vector.Raw) {
		t.Errorf("bytes: %d %v %q", a.status, a.header, a.body)
	}
	message, err := proto.Marshal(&oip.ModelInferRequest{Id: "7", Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "texts", Datatype: "BYTES", Shape: []int64{1, 1}}}, RawInputContents: [][]byte{texts.Raw}})
	if err != nil {
		t.Fatal(err)
	}
	a = g.do(t, http.MethodPost, "/models/reader/infer", string(message), "Content-Type: application/x-protobuf")
	m := new(oip.ModelInferResponse)
	if err := proto.Unmarshal([]byte(a.body), m); err != nil || a.status != 200 || m.GetId() != "7" || !bytes.Equal(m.GetRawOutputContents()[0], vector.Raw) {
		t.Errorf("a message: %d %v %v", a.status, m, err)
	}
	pixels := string(kservetest.Floats("pixels", nil, make([]float32, 48)...).Raw)
	if a = g.do(t, http.MethodPost, "/models/eye/infer", pixels, "Content-Type: application/octet-stream"); a.status != 200 || a.header.Get("Inference-Header-Content-Length") == "" {
		t.Errorf("a bare tensor: %d %s", a.status, a.body)
	}
}

// refuses asks for what the server does not have.
func refuses(t *testing.T, g *gatewayUnderTest) {
	t.Helper()
	a := g.do(t, http.MethodPost, "/models/reader/infer", `{"inputs":[{"name":"nothing","datatype":"BYTES","shape":[1,1],"data":["a"]}]}`)
	if a.status != 400 || !strings.Contains(a.body, "nothing") {
		t.Errorf("an unknown input: %d %s", a.status, a.body)
	}
	if a = g.do(t, http.MethodPost, "/models/nobody/infer", `{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`); a.status != 404 {
		t.Errorf("an unknown model: %d %s", a.status, a.body)
	}
}

// cancels leaves in the middle of an answer and waits for what the model noticed.
func cancels(t *testing.T, g *gatewayUnderTest, gone string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := sdkOf(g).CreateChatCompletionStream(ctx, openai.ChatCompletionRequest{Model: "writer", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "one wait"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		chunk, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			break
		}
	}
	left := time.Now()
	cancel()
	g.eventually(t, "the model knows that its caller has left", func() bool {
		text, err := os.ReadFile(gone)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text) == "cancelled"
	})
	t.Logf("the model knew %v after its caller left", time.Since(left).Round(time.Millisecond))
	if took := time.Since(left); took > time.Second {
		t.Errorf("the model knew only after %v", took)
	}
}

func TestRealMLServer(t *testing.T) {
	venv := filepath.Dir(filepath.Dir(pythonWith(t, "kserve-mlserver", "testdata/kserve/mlserver.txt")))
	models := filepath.Join(t.TempDir(), "models")
	for _, name := range []string{"eye", "reader"} {
		if err := copyTree(filepath.Join(models, name), filepath.Join("testdata", "kserve", "mlserver", name)); err != nil {
			t.Fatal(err)
		}
	}
	ports := unusedPorts(t, 3)
	settings := fmt.Sprintf(`{"host":"127.0.0.1","http_port":%d,"grpc_port":%d,"metrics_port":%d,"parallel_workers":0}`, ports[0], ports[1], ports[2])
	if err := os.WriteFile(filepath.Join(models, "settings.json"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(venv, "bin", "python"), "-c", "from mlserver.cli import main; main()", "start", models)
	command.Env = append(clientEnv(), "PYTHONDONTWRITEBYTECODE=1")
	command.Dir = models
	web, rpc := "http://127.0.0.1:"+strconv.Itoa(ports[0]), "http://127.0.0.1:"+strconv.Itoa(ports[1])
	runServer(t, command, web, "eye", "reader")
	schemas := tensorSchemas[:strings.LastIndex(tensorSchemas, "[[upstreams.kserve.models]]")]
	for name, c := range map[string]struct{ base, settings string }{
		"http, JSON": {web, "transport = \"http\"\nbinary_tensors = false"},
		"grpc":       {rpc, "transport = \"grpc\"\nstreams = \"plain\""},
	} {
		t.Run(name, func(t *testing.T) {
			g := overServer(t, c.base, c.settings, schemas)
			listed(t, g, "eye", "reader")
			sees(t, g)
			reads(t, g)
			if a := g.do(t, http.MethodPost, "/models/nobody/infer", `{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`); a.status != 404 {
				t.Errorf("an unknown model: %d %s", a.status, a.body)
			}
		})
	}
	t.Run("plain streams", func(t *testing.T) {
		const speaker = "[[upstreams.kserve.models]]\nname = \"reader\"\ndecoupled = true\ninputs = [{ name = \"texts\", datatype = \"BYTES\", shape = [1], from = \"text\" }]\noutputs = [{ name = \"text_output\", as = \"text\" }]\n"
		g := overServer(t, rpc, "transport = \"grpc\"\nstreams = \"plain\"", speaker)
		got, err := sdkStream(t, sdkOf(g), openai.ChatCompletionRequest{Model: "reader", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "eins zwei 世界"}}})
		if err != nil || got.text != "eins zwei 世界 " || got.finish != "stop" {
			t.Errorf("%+v %v", got, err)
		}
	})
}

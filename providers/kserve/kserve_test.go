package kserve

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sluice/providers"
	"sluice/providers/kit/pixels"
	"sluice/providers/kserve/kservetest"
	"sluice/providers/kserve/oip"
	"sluice/streaming"
)

// transports are the ways to reach a server; every test goes all of them.
var transports = map[string]func(*Options){
	"http, binary": func(*Options) {},
	"http, json":   func(o *Options) { o.Binary = false },
	"grpc":         overGRPCOf(false),
}

// testServer is a server with a model of each sort.
func testServer() *kservetest.Server {
	return &kservetest.Server{Models: map[string]kservetest.Model{
		"colours":  {Do: meanColours},
		"detector": {Do: detect},
		"reader":   {Do: readTexts},
		"sizes":    {Do: measure},
		"echo":     {Inputs: []kservetest.Tensor{{Name: "x", Datatype: "FP32", Shape: []int64{-1}}}, Do: echo},
		"stream":   {Decoupled: true, Do: echo},
		"asleep":   {NotReady: true, Do: echo},
		"broken": {Do: func(context.Context, map[string]kservetest.Tensor, func(...kservetest.Tensor) error) error {
			return fmt.Errorf("CUDA error")
		}},
		"writer": {Do: writeOnce},
	}}
}

// meanColours gives the mean of each plane of each picture.
func meanColours(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["pixels"]
	plane := int(t.Shape[2] * t.Shape[3])
	v := t.Floats()
	var means []float32
	for ; len(v) >= plane; v = v[plane:] {
		sum := float32(0)
		for _, x := range v[:plane] {
			sum += x
		}
		means = append(means, sum/float32(plane))
	}
	return send(kservetest.Floats("scores", []int64{t.Shape[0], 3}, means...))
}

// detect finds always the same: rows of cx, cy, w, h, and a score for each of two
// classes, as columns.
func detect(_ context.Context, _ map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	nan := float32(math.NaN())
	rows := [][]float32{{32, 32, 16, 8, 0.9, 0.1}, {33, 32, 16, 8, 0.8, 0.1}, {32, 32, 16, 8, 0.1, 0.7}, {0, 32, 64, 64, 0.2, 0.1}, {1, 1, 1, 1, nan, nan}}
	var columns []float32
	for c := range rows[0] {
		for _, r := range rows {
			columns = append(columns, r[c])
		}
	}
	return send(kservetest.Floats("rows", []int64{1, 6, 5}, columns...))
}

// readTexts makes a vector of each text: its length, and 1.
func readTexts(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["texts"]
	var v []float32
	for _, s := range t.Strings() {
		v = append(v, float32(len(s)), 1)
	}
	return send(kservetest.Floats("vectors", []int64{int64(len(v) / 2), 2}, v...))
}

// measure tells how long the image is that it was sent.
func measure(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["image"]
	return send(kservetest.Strings("said", fmt.Sprint(len(t.Strings()[0]))), kservetest.Strings("best", "0.75:2:two", "0.25:0"))
}

func echo(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["x"]
	t.Name = "y"
	return send(t)
}

func writeOnce(_ context.Context, in map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
	t := in["text_input"]
	return send(kservetest.Strings("text_output", "You said: "+t.Strings()[0]))
}

// schemas are those of testServer's models.
func schemas(t testing.TB) []Model {
	t.Helper()
	all := []Model{
		{Name: "colours", Batch: 2,
			Inputs:  []Input{{Name: "pixels", Datatype: "FP32", Shape: []int64{-1, 3, 4, 4}, Source: FromImage, Layout: "NCHW"}},
			Outputs: []Output{{Name: "scores", Meaning: AsClasses, Labels: []string{"red", "green", "blue"}, Top: 2}}},
		{Name: "detector",
			Inputs:  []Input{{Name: "pixels", Datatype: "UINT8", Shape: []int64{1, 64, 64, 3}, Source: FromImage, Layout: "NHWC", Picture: pixels.Spec{Fit: pixels.Letterbox}}},
			Outputs: []Output{{Name: "rows", Meaning: AsBoxes, Rows: "box,classes", Box: "cxcywh", Transposed: true, Threshold: 0.25, NMS: 0.5, Labels: []string{"cat", "dog"}}}},
		{Name: "reader", Batch: 8,
			Inputs:  []Input{{Name: "texts", Datatype: "BYTES", Shape: []int64{-1}, Source: FromText}},
			Outputs: []Output{{Name: "vectors", Meaning: AsEmbedding}}},
		{Name: "sizes",
			Inputs:  []Input{{Name: "image", Datatype: "BYTES", Shape: []int64{1}, Source: FromEncoded}, {Name: "level", Datatype: "FP32", Shape: []int64{1}, Source: FromValue, Value: "0.5"}},
			Outputs: []Output{{Name: "said", Meaning: AsTensor, Key: "bytes"}, {Name: "best", Meaning: AsClasses, Classification: 2}}},
		{Name: "writer",
			Inputs:  []Input{{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}, Source: FromText}},
			Outputs: []Output{{Name: "text_output", Meaning: AsText}}},
		{Name: "broken",
			Inputs:  []Input{{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}, Source: FromText}},
			Outputs: []Output{{Name: "text_output", Meaning: AsTensor}}},
		{Name: "stream", Decoupled: true,
			Inputs:  []Input{{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}, Source: FromText}},
			Outputs: []Output{{Name: "text_output", Meaning: AsText}}},
		{Name: "missing",
			Inputs:  []Input{{Name: "text_input", Datatype: "BYTES", Shape: []int64{1}, Source: FromText}},
			Outputs: []Output{{Name: "text_output", Meaning: AsTensor}}},
	}
	for i := range all {
		if err := all[i].Check(); err != nil {
			t.Fatal(all[i].Name, err)
		}
	}
	return all
}

// each runs a test over every transport.
func each(t *testing.T, run func(t *testing.T, p *Provider, s *kservetest.Server)) {
	for name, change := range transports {
		t.Run(name, func(t *testing.T) {
			s := testServer()
			web, rpc := s.Start(t)
			base := web
			if name == "grpc" {
				base = rpc
			}
			p := newProvider(base, change, schemas(t)...)
			if g, ok := p.via.(*overGRPC); ok {
				t.Cleanup(func() { _ = g.cc.Close() })
			}
			run(t, p, s)
		})
	}
}

// picture is one colour, w x h, as a JPEG or PNG.
func picture(t testing.TB, format string, w, h int, c color.Color) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.Set(i%w, i/w, c)
	}
	var b bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&b, m)
	} else {
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dataURL(mediaType string, data []byte) string {
	return "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(data)
}

// chatWith is a chat request with images.
func chatWith(model, text string, urls ...string) string {
	parts := fmt.Sprintf(`{"type":"text","text":%q}`, text)
	for _, u := range urls {
		parts += fmt.Sprintf(`,{"type":"image_url","image_url":{"url":%q}}`, u)
	}
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":[%s]}]}`, model, parts)
}

// request sends a request and joins what came.
func request(t *testing.T, p *Provider, op providers.Op, path, model, body string) (text string, events []streaming.Event, err error) {
	t.Helper()
	req, err := providers.Parse(op, path, "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	req.ID = "req_1"
	return listen(t, p.Target(model).Stream(t.Context(), req, streaming.NewProgress(time.Now())))
}

func listen(t *testing.T, src streaming.Stream) (text string, events []streaming.Event, err error) {
	t.Helper()
	for batch, e := range src {
		if e != nil {
			return text, events, e
		}
		for i := range batch {
			text += batch[i].Text
			if batch[i].Kind == streaming.Whole || batch[i].Kind == streaming.Bytes {
				text += string(batch[i].Raw)
			}
			events = append(events, batch[i].Clone())
		}
	}
	return text, events, nil
}

func chat(t *testing.T, p *Provider, model, body string) (string, error) {
	t.Helper()
	text, _, err := request(t, p, providers.Chat, "/chat/completions", model, body)
	return text, err
}

// sameJSON compares as JSON, numbers to three digits.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprint(rounded(g)), fmt.Sprint(rounded(w)); a != b {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

func rounded(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = rounded(v[k])
		}
	case []any:
		for i := range v {
			v[i] = rounded(v[i])
		}
	case float64:
		return math.Round(v*1000) / 1000
	}
	return v
}

func TestClasses(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		red, green, blue := picture(t, "png", 8, 8, color.RGBA{255, 51, 0, 255}), picture(t, "png", 5, 9, color.RGBA{0, 255, 0, 255}), picture(t, "jpeg", 16, 4, color.RGBA{0, 0, 255, 255})
		got, err := chat(t, p, "colours", chatWith("colours", "Which colour?", dataURL("image/png", red), dataURL("image/png", green), dataURL("image/jpeg", blue)))
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, got, `{"model":"colours","results":[
			{"index":0,"width":8,"height":8,"classes":[{"label":"red","index":0,"score":1},{"label":"green","index":1,"score":0.2}]},
			{"index":1,"width":5,"height":9,"classes":[{"label":"green","index":1,"score":1},{"label":"red","index":0,"score":0}]},
			{"index":2,"width":16,"height":4,"classes":[{"label":"blue","index":2,"score":0.996},{"label":"red","index":0,"score":0}]}]}`)
	})
}

// TestBoxes: the boxes of a letterboxed input lie in the image, doubles are gone, what
// is no number is not told.
func TestBoxes(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		got, err := chat(t, p, "detector", chatWith("detector", "", dataURL("image/png", picture(t, "png", 128, 64, color.White))))
		if err != nil {
			t.Fatal(err)
		}
		// 128 x 64 stand in 64 x 64 at half the size, 16 rows down.
		sameJSON(t, got, `{"model":"detector","results":[{"index":0,"width":128,"height":64,"boxes":[
			{"label":"cat","index":0,"score":0.9,"box":[48,24,80,40]},
			{"label":"dog","index":1,"score":0.7,"box":[48,24,80,40]}]}]}`)
	})
}

func TestEncodedImage(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		if !p.opt.GRPC && !p.opt.Binary {
			t.Skip("JSON holds no bytes; the configuration refuses such a schema")
		}
		data := picture(t, "jpeg", 9, 7, color.Black)
		got, err := chat(t, p, "sizes", chatWith("sizes", "", dataURL("image/jpeg", data)))
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, got, fmt.Sprintf(`{"model":"sizes","results":[{"index":0,"width":9,"height":7,"bytes":{"name":"said","datatype":"BYTES","shape":[1],"data":["%d"]},
			"classes":[{"label":"two","index":2,"score":0.75},{"label":"0","index":0,"score":0.25}]}]}`, len(data)))
	})
}

func TestEmbeddings(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		got, events, err := request(t, p, providers.Embeddings, "/embeddings", "reader", `{"model":"alias","input":["a","bcd"]}`)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, got, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,1]},{"object":"embedding","index":1,"embedding":[3,1]}],"model":"reader","usage":{"prompt_tokens":3,"total_tokens":3}}`)
		if last := events[len(events)-1]; last.Kind != streaming.Whole || last.Usage == nil || !last.Usage.Estimated {
			t.Errorf("%+v", last)
		}
		got, _, err = request(t, p, providers.Embeddings, "/embeddings", "reader", `{"model":"reader","input":"abcd","encoding_format":"base64"}`)
		if err != nil {
			t.Fatal(err)
		}
		var packed struct{ Data []struct{ Embedding []byte } }
		if err := json.Unmarshal([]byte(got), &packed); err != nil {
			t.Fatal(err)
		}
		if b := packed.Data[0].Embedding; len(b) != 8 || math.Float32frombits(binary.LittleEndian.Uint32(b)) != 4 {
			t.Errorf("%v", b)
		}
	})
}

// TestManyEmbeddings: more texts than a batch holds, in order.
func TestManyEmbeddings(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		var texts []string
		for i := range 20 {
			texts = append(texts, fmt.Sprintf("%q", strings.Repeat("x", i+1)))
		}
		got, _, err := request(t, p, providers.Embeddings, "/embeddings", "reader", `{"model":"reader","input":[`+strings.Join(texts, ",")+`]}`)
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			Data []struct{ Embedding []float64 }
		}
		if err := json.Unmarshal([]byte(got), &list); err != nil {
			t.Fatal(err)
		}
		for i, d := range list.Data {
			if d.Embedding[0] != float64(i+1) {
				t.Errorf("vector %d is that of text %v", i, d.Embedding[0]-1)
			}
		}
		if n := len(s.Headers()); n != 3 || len(list.Data) != 20 {
			t.Errorf("%d calls for %d vectors", n, len(list.Data))
		}
	})
}

// TestWriterOnce: text of a model that is not decoupled.
func TestWriterOnce(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		got, events, err := request(t, p, providers.Completions, "/completions", "writer", `{"model":"writer","prompt":"Hé","stop":"zzz"}`)
		if err != nil || got != "You said: Hé" || events[len(events)-1].Stop != "stop" {
			t.Errorf("%q %v %v", got, events, err)
		}
	})
}

// TestCutWithinAnEvent: a model that tells no reason to end ends with the body, but not
// within an event.
func TestCutWithinAnEvent(t *testing.T) {
	m := writerSchema(t)
	m.Outputs = m.Outputs[:1]
	p := newProvider("http://127.0.0.1:1", nil, m)
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	first, second := "data: {\"text_output\":\"a\"}\n\n", "data: {\"text_output\":\"b\"}\n\n"
	for cut := range len(second) + 1 {
		p.via = &bodyTransport{&overHTTP{Options: &p.opt}, strings.NewReader(first + second[:cut])}
		_, events, err := listen(t, p.Target("m").Stream(t.Context(), req, streaming.NewProgress(time.Now())))
		whole := cut == 0 || cut == len(second)
		if e := providers.AsError(err); whole && (err != nil || events[len(events)-1].Stop != "stop") || !whole && (e == nil || e.Kind != providers.Truncated) {
			t.Errorf("behind %q: %v", second[:cut], err)
		}
	}
}

// TestRefusedRequests lists requests that get 400 before anything is sent; each names
// the field and the model.
func TestRefusedRequests(t *testing.T) {
	s := testServer()
	web, _ := s.Start(t)
	p := newProvider(web, nil, schemas(t)...)
	small := dataURL("image/png", picture(t, "png", 2, 2, color.White))
	bomb := "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x06\x00\x00\x00"
	const first = "messages[0].content[1].image_url.url"
	for name, c := range map[string]struct {
		op                providers.Op
		model, body       string
		param, says, more string
	}{
		"no image":           {providers.Chat, "colours", `{"model":"colours","messages":[{"role":"user","content":"What is it?"}]}`, "messages", "image", "colours"},
		"an address":         {providers.Chat, "colours", chatWith("colours", "", "https://example.com/a.png"), first, "does not fetch", ""},
		"bad base64":         {providers.Chat, "colours", chatWith("colours", "", "data:image/png;base64,%%%"), first, "base64", ""},
		"a GIF":              {providers.Chat, "colours", chatWith("colours", "", dataURL("image/gif", []byte("GIF89a"))), first, "not supported", `"colours"`},
		"a GIF in disguise":  {providers.Chat, "colours", chatWith("colours", "", dataURL("image/png", []byte("GIF89a......"))), first, "a GIF", `"colours"`},
		"another type":       {providers.Chat, "colours", chatWith("colours", "", strings.Replace(small, "image/png", "image/jpeg", 1)), first, "declared as image/jpeg", `"colours"`},
		"a bomb":             {providers.Chat, "colours", chatWith("colours", "", dataURL("image/png", []byte(bomb+"\x00\x00\x00\x00"))), first, "damaged", `"colours"`},
		"too many pixels":    {providers.Chat, "colours", chatWith("colours", "", dataURL("image/png", picture(t, "png", 1200, 1000, color.White))), first, "megapixels", `"colours"`},
		"truncated":          {providers.Chat, "colours", chatWith("colours", "", dataURL("image/png", picture(t, "png", 64, 64, color.White)[:70])), first, "truncated", `"colours"`},
		"too many images":    {providers.Chat, "colours", chatWith("colours", "", small, small, small, small, small), "messages[0].content[5].image_url.url", "at most 4 images", "colours"},
		"image to a reader":  {providers.Chat, "reader", chatWith("reader", "", small), first, "an image", `"reader"`},
		"audio":              {providers.Chat, "colours", `{"model":"colours","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}`, "messages[0].content[0]", "input_audio", `"colours"`},
		"tools":              {providers.Chat, "colours", strings.Replace(chatWith("colours", "", small), `"model"`, `"tools":[{"type":"function","function":{"name":"f"}}],"model"`, 1), "tools", "tools", `"colours"`},
		"a schema":           {providers.Chat, "colours", strings.Replace(chatWith("colours", "", small), `"model"`, `"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}},"model"`, 1), "response_format", "form of its own", `"colours"`},
		"no schema declared": {providers.Chat, "echo", `{"model":"echo","messages":[{"role":"user","content":"Hi"}]}`, "model", "/v1/models/echo/infer", "declared"},
		"prompt to an eye":   {providers.Completions, "colours", `{"model":"colours","prompt":"Hi"}`, "messages", "image", "colours"},
		"no embeddings":      {providers.Embeddings, "colours", `{"model":"colours","input":"a"}`, "model", "no embeddings", "colours"},
		"image in texts":     {providers.Embeddings, "reader", `{"model":"reader","input":["a",` + fmt.Sprintf("%q", small) + `]}`, "input[1]", "cannot be given an image", "reader"},
		"empty text":         {providers.Embeddings, "reader", `{"model":"reader","input":["a",""]}`, "input[1]", "empty", ""},
		"tokens":             {providers.Embeddings, "reader", `{"model":"reader","input":[1,2]}`, "input", "string", ""},
		"dimensions":         {providers.Embeddings, "reader", `{"model":"reader","input":"a","dimensions":7}`, "dimensions", "dimensions", `"reader"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := map[providers.Op]string{providers.Chat: "/chat/completions", providers.Completions: "/completions", providers.Embeddings: "/embeddings"}[c.op]
			_, events, err := request(t, p, c.op, path, c.model, c.body)
			e := providers.AsError(err)
			if e == nil || e.Kind != providers.BadRequest || e.Param != c.param || !strings.Contains(e.Message, c.says) || !strings.Contains(e.Message, c.more) || len(events) > 0 {
				t.Errorf("%+v, events %v", e, events)
			}
		})
	}
	if n := len(s.Headers()); n != 0 {
		t.Errorf("%d of them were sent", n)
	}
}

// TestHarmless: what cannot change the answer of a model that computes is taken.
func TestHarmless(t *testing.T) {
	web, _ := testServer().Start(t)
	p := newProvider(web, nil, schemas(t)...)
	body := strings.Replace(chatWith("colours", "", dataURL("image/png", picture(t, "png", 2, 2, color.White))), `"model"`,
		`"temperature":0.2,"top_p":0.9,"max_tokens":100,"stop":["a"],"seed":1,"stream_options":{"include_usage":true},"user":"u","response_format":{"type":"json_object"},"model"`, 1)
	if _, err := chat(t, p, "colours", body); err != nil {
		t.Error(err)
	}
	drop := newProvider(web, func(o *Options) { o.Drop = true }, schemas(t)...)
	_, events, err := request(t, drop, providers.Chat, "/chat/completions", "colours", strings.Replace(body, `"model"`, `"logprobs":true,"model"`, 1))
	if err != nil || events[0].Meta.Header.Get("X-Sluice-Dropped-Params") != "logprobs" {
		t.Errorf("%v %+v", err, events)
	}
}

func TestServerFaults(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		hi := `{"model":"x","messages":[{"role":"user","content":"Hi"}]}`
		_, err := chat(t, p, "broken", hi)
		if e := providers.AsError(err); e == nil || e.Kind != providers.UpstreamFailed || !strings.Contains(e.Message, "CUDA error") {
			t.Errorf("%v", err)
		}
		_, err = chat(t, p, "missing", hi)
		if e := providers.AsError(err); e == nil || e.Kind != providers.Passed || e.Status != http.StatusNotFound {
			t.Errorf("%+v", e)
		}
	})
}

// TestUnfit: an answer that is not what the schema says is the server's fault, or the
// schema's, and says where.
func TestUnfit(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		for name, c := range map[string]struct {
			tensors []kservetest.Tensor
			says    string
		}{
			"none":           {nil, "did not come"},
			"another":        {[]kservetest.Tensor{kservetest.Floats("other", []int64{1}, 1)}, "did not come"},
			"several rows":   {[]kservetest.Tensor{kservetest.Floats("vectors", []int64{1, 2, 2}, 1, 2, 3, 4)}, "pooling"},
			"strings":        {[]kservetest.Tensor{kservetest.Strings("vectors", "a")}, "must be numbers"},
			"more than data": {[]kservetest.Tensor{kservetest.Floats("vectors", []int64{1, 1 << 40}, 1)}, "vectors"},
			"a bad shape":    {[]kservetest.Tensor{kservetest.Floats("vectors", []int64{-1}, 1)}, "vectors"},
		} {
			s.Models["reader"] = kservetest.Model{Do: func(_ context.Context, _ map[string]kservetest.Tensor, send func(...kservetest.Tensor) error) error {
				return send(c.tensors...)
			}}
			_, _, err := request(t, p, providers.Embeddings, "/embeddings", "reader", `{"model":"reader","input":"a"}`)
			if e := providers.AsError(err); e == nil || e.Kind != providers.Protocol || !strings.Contains(e.Message, c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestModels(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		names := func() string {
			models, err := p.Models(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, m := range models {
				all = append(all, m.ID)
			}
			return strings.Join(all, " ")
		}
		if got := names(); got != "broken colours detector echo reader sizes stream writer" {
			t.Errorf("of the index: %s", got)
		}
		if err := p.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for name, change := range transports {
		s := testServer()
		s.Plain = true
		web, rpc := s.Start(t)
		base := map[bool]string{false: web, true: rpc}[name == "grpc"]
		p := newProvider(base, change, schemas(t)...)
		models, err := p.Models(t.Context())
		if err != nil || len(models) != 7 || models[0].ID != "broken" || models[6].ID != "writer" {
			t.Errorf("%s, without an index: %v %v", name, models, err)
		}
		if g, ok := p.via.(*overGRPC); ok {
			_ = g.cc.Close()
		}
	}
}

// TestReadyNames: states as servers write them.
func TestReadyNames(t *testing.T) {
	got := readyNames([]index{{"triton", "READY"}, {"mlserver", "State.READY"}, {"silent", ""}, {"loading", "LOADING"}, {"gone", "State.UNAVAILABLE"}, {"", "READY"}})
	if strings.Join(got, " ") != "triton mlserver silent" {
		t.Errorf("%v", got)
	}
}

// infer makes a request of the infer path.
func infer(contentType string, body []byte) *providers.Request {
	return &providers.Request{ID: "req_1", Op: providers.Passthrough, Path: "/models/alias/infer", ContentType: contentType, Body: body, Model: "alias", Choices: 1}
}

// TestPass sends the same tensor in each form over each transport.
func TestPass(t *testing.T) {
	data := kservetest.Floats("x", nil, 1, 2.5, -3).Raw
	head := `{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[3],"parameters":{"binary_data_size":12}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`
	message, err := proto.Marshal(&oip.ModelInferRequest{ModelName: "ignored", Id: "7", Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{3}}}, RawInputContents: [][]byte{data}})
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		call := func(contentType string, body []byte) (string, http.Header) {
			t.Helper()
			text, events, err := listen(t, p.Target("echo").Stream(t.Context(), infer(contentType, body), streaming.NewProgress(time.Now())))
			if err != nil {
				t.Fatalf("%s: %v", contentType, err)
			}
			return text, events[0].Meta.Header
		}
		text, _ := call("application/json", []byte(`{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[1,[2.5,-3.0]]}]}`))
		sameJSON(t, text, `{"id":"7","model_name":"echo","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[3],"data":[1,2.5,-3]}]}`)

		text, h := call(fmt.Sprintf("application/octet-stream; inference-header-content-length=%d", len(head)), append([]byte(head), data...))
		if !strings.HasSuffix(text, string(data)) || h.Get(headerLength) != fmt.Sprint(len(text)-len(data)) || h.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%v %q", h, text)
		}

		text, h = call("application/octet-stream", data)
		if !strings.HasSuffix(text, string(data)) || h.Get(headerLength) == "" {
			t.Errorf("%v %q", h, text)
		}

		text, h = call("application/x-protobuf", message)
		m := new(oip.ModelInferResponse)
		if err := proto.Unmarshal([]byte(text), m); err != nil || m.GetId() != "7" || m.GetModelName() != "echo" || !bytes.Equal(m.GetRawOutputContents()[0], data) || h.Get("Content-Type") != typeProto {
			t.Errorf("%v %v %v", h, m, err)
		}
	})
}

// TestPassImage: a bare image goes the way of the schema.
func TestPassImage(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, _ *kservetest.Server) {
		text, _, err := listen(t, p.Target("colours").Stream(t.Context(), infer("image/png", picture(t, "png", 3, 3, color.RGBA{0, 255, 0, 255})), streaming.NewProgress(time.Now())))
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, text, `{"model":"colours","results":[{"index":0,"width":3,"height":3,"classes":[{"label":"green","index":1,"score":1},{"label":"red","index":0,"score":0}]}]}`)
	})
}

func TestPassRefused(t *testing.T) {
	shared, err := proto.Marshal(&oip.ModelInferRequest{Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1},
		Parameters: map[string]*oip.InferParameter{"shared_memory_region": {}}}}})
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		for name, c := range map[string]struct {
			model, contentType, body string
			kind                     providers.ErrorKind
			says                     string
		}{
			"text":                     {"echo", "text/plain", "hello", providers.UnsupportedMedia, "application/json"},
			"no JSON":                  {"echo", "application/json", `{"inputs":[}`, providers.BadRequest, "not valid JSON"},
			"a list":                   {"echo", "application/json", `[]`, providers.BadRequest, "JSON object"},
			"nothing":                  {"echo", "application/json", ``, providers.BadRequest, "JSON object"},
			"no inputs":                {"echo", "application/json", `{"id":"1"}`, providers.BadRequest, "inputs is missing"},
			"shared memory":            {"echo", "application/json", `{"inputs":[{"name":"x","parameters":{"shared_memory_region":"a"}}]}`, providers.BadRequest, "shared_memory_region"},
			"shared memory, escaped":   {"echo", "application/json", `{"inputs":[{"name":"x","par\u0061meters":{"shared\u005fmemory_region":"a"}}]}`, providers.BadRequest, "shared_memory_region"},
			"shared memory, output":    {"echo", "application/json", `{"inputs":[],"outputs":[{"name":"x","parameters":{"shared_memory_offset":1}}]}`, providers.BadRequest, "shared_memory_offset"},
			"shared memory, message":   {"echo", "application/x-protobuf", string(shared), providers.BadRequest, "shared_memory_region"},
			"no message":               {"echo", "application/x-protobuf", "\xff\xff", providers.BadRequest, "ModelInferRequest"},
			"a length that is too big": {"echo", "application/octet-stream; inference-header-content-length=999", `{}`, providers.BadRequest, headerLength},
			"a length that is none":    {"echo", "application/octet-stream; inference-header-content-length=x", `{}`, providers.BadRequest, headerLength},
			"a bad image":              {"colours", "image/jpeg", "nothing", providers.BadRequest, `"alias"`},
			"an image without schema":  {"echo", "image/jpeg", "nothing", providers.BadRequest, "declared"},
			"many answers":             {"stream", "application/json", `{"inputs":[{"name":"text_input","datatype":"BYTES","shape":[1],"data":["a"]}]}`, providers.BadRequest, "/v1/chat/completions"},
			"many answers, a body":     {"stream", "application/octet-stream", "a", providers.BadRequest, "any number of times"},
			"a body of another size":   {"colours", "application/octet-stream", strings.Repeat("x", 191), providers.BadRequest, `"pixels"`},
			"a body for two inputs":    {"sizes", "application/octet-stream", "x", providers.BadRequest, "2 inputs"},
			"an image to a reader":     {"reader", "image/jpeg", "nothing", providers.UnsupportedMedia, `"alias"`},
		} {
			_, _, err := listen(t, p.Target(c.model).Stream(t.Context(), infer(c.contentType, []byte(c.body)), streaming.NewProgress(time.Now())))
			if e := providers.AsError(err); e == nil || e.Kind != c.kind || !strings.Contains(e.Message, c.says) {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if n := len(s.Headers()); n != 0 {
			t.Errorf("%d of them were sent", n)
		}
		// The server's own refusals come in its words.
		_, _, err := listen(t, p.Target("nope").Stream(t.Context(), infer("application/json", []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`)), streaming.NewProgress(time.Now())))
		if e := providers.AsError(err); e == nil || e.Kind != providers.Passed || e.Status != 404 {
			t.Errorf("%+v", e)
		}
	})
}

// TestPassBytesAsJSON: bytes that are no text are not sent where only JSON can be.
func TestPassBytesAsJSON(t *testing.T) {
	web, _ := testServer().Start(t)
	p := newProvider(web, transports["http, json"])
	in := kservetest.Strings("x", "\xff\xfe")
	message, err := proto.Marshal(&oip.ModelInferRequest{Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "BYTES", Shape: []int64{1}}}, RawInputContents: [][]byte{in.Raw}})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = listen(t, p.Target("echo").Stream(t.Context(), infer(typeProto, message), streaming.NewProgress(time.Now())))
	if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest || e.Param != "inputs[0]" {
		t.Errorf("%v", err)
	}
}

// TestFoldedKeys: what a lenient decoder takes for parameters is looked at too.
func TestFoldedKeys(t *testing.T) {
	p := &passage{model: "m", header: -1, body: []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"Parameters":{"shared_memory_region":"a"}}]}`)}
	if err := p.checkJSON(p.body); err != nil {
		t.Fatal(err)
	}
	if _, _, err := messageOf(p); err == nil {
		t.Error("a region of shared memory got through")
	}
}

// TestCancelInfer: a caller who leaves is soon known to the server, in a unary call too.
func TestCancelInfer(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		entered := make(chan struct{}, 1)
		s.Models["reader"] = kservetest.Model{Do: func(ctx context.Context, _ map[string]kservetest.Tensor, _ func(...kservetest.Tensor) error) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}}
		cause := fmt.Errorf("the caller has left")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		req, err := providers.Parse(providers.Embeddings, "/embeddings", "application/json", []byte(`{"model":"reader","input":"a"}`), 64)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, _, err := listen(t, p.Target("reader").Stream(ctx, req, streaming.NewProgress(time.Now())))
			ended <- err
		}()
		<-entered
		cancel(cause)
		select {
		case <-s.Gone():
		case <-time.After(time.Second):
			t.Error("the server does not know after a second")
		}
		if err := <-ended; err != cause {
			t.Errorf("%v", err)
		}
	})
}

func TestHeaders(t *testing.T) {
	each(t, func(t *testing.T, p *Provider, s *kservetest.Server) {
		base := p.opt.Upstream.BaseURL
		signed := newProvider(base, func(o *Options) {
			o.GRPC, o.Binary, o.Upstream.Connect = p.opt.GRPC, p.opt.Binary, p.opt.Upstream.Connect
			o.Upstream.Header = http.Header{"Authorization": {"Bearer sk-up"}, "Triton-Grpc-Protocol-Inference": {"secret"}}
		}, schemas(t)...)
		if _, _, err := request(t, signed, providers.Embeddings, "/embeddings", "reader", `{"model":"reader","input":"a"}`); err != nil {
			t.Fatal(err)
		}
		if g, ok := signed.via.(*overGRPC); ok {
			_ = g.cc.Close()
		}
		h := s.Headers()[0]
		if h.Get("Authorization") != "Bearer sk-up" || h.Get("Triton-Grpc-Protocol-Inference") != "secret" {
			t.Errorf("%v", h)
		}
	})
}

func TestBadAddress(t *testing.T) {
	p := newProvider("http://127.0.0.1:1/path", overGRPCOf(false), schemas(t)...)
	if _, err := chat(t, p, "reader", `{"model":"x","messages":[{"role":"user","content":"Hi"}]}`); providers.AsError(err) == nil {
		t.Errorf("%v", err)
	}
	if _, err := p.Models(t.Context()); err == nil {
		t.Error("models were listed")
	}
}

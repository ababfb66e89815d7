package demo

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"strings"
	"testing"

	"sluice/providers"
)

const weather = `{"type":"function","function":{"name":"weather","parameters":{"type":"object","required":["city","days","unit","ok","at","tags"],
	"properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":2.5},"unit":{"enum":["c","f"]},"ok":{"type":["null","boolean"]},
	"at":{"$ref":"#/$defs/point"},"tags":{"type":"array","items":{"type":"string","minLength":6}},"other":{"type":"string"}},
	"$defs":{"point":{"type":"object","properties":{"x":{"type":"number"}},"required":["x"]}}}}}`

const clock = `{"type":"function","function":{"name":"clock"}}`

func TestToolCalls(t *testing.T) {
	const args = `{"city":"demo","days":3,"unit":"c","ok":true,"at":{"x":1},"tags":["demo demo"]}`
	for name, c := range map[string]struct {
		more string
		want map[string]string // name to arguments
	}{
		"two at once":  {`,"tools":[` + weather + `,` + clock + `]`, map[string]string{"weather": args, "clock": "{}"}},
		"one":          {`,"tools":[` + clock + `]`, map[string]string{"clock": "{}"}},
		"no more":      {`,"tools":[` + clock + `,` + clock + `,` + clock + `]`, map[string]string{"clock": "{}"}},
		"not parallel": {`,"parallel_tool_calls":false,"tools":[` + weather + `,` + clock + `]`, map[string]string{"weather": args}},
		"chosen":       {`,"tool_choice":{"type":"function","function":{"name":"clock"}},"tools":[` + weather + `,` + clock + `]`, map[string]string{"clock": "{}"}},
		"required":     {`,"tool_choice":"required","tools":[` + clock + `]`, map[string]string{"clock": "{}"}},
		"none":         {`,"tool_choice":"none","tools":[` + clock + `]`, nil},
		"not offered":  {``, nil},
	} {
		g := inBubble(t, providers.Chat, chat(Tools, "x", c.more))
		if g.err != nil {
			t.Errorf("%s: %v", name, g.err)
			continue
		}
		names := map[string]string{}
		ids := map[string]bool{}
		for _, call := range g.tools[0] {
			names[call.Name] = call.Args
			ids[call.ID] = true
			if !json.Valid([]byte(call.Args)) || !strings.HasPrefix(call.ID, "call_") {
				t.Errorf("%s: %+v", name, call)
			}
		}
		wantStop := "tool_calls"
		if c.want == nil {
			wantStop = "stop"
		}
		if fmt.Sprint(names) != fmt.Sprint(c.want) || len(ids) != len(g.tools[0]) || len(ids) > maxCalls || g.stop[0] != wantStop || g.usage.Completion != g.tokens {
			t.Errorf("%s: calls %v, want %v; stop %q", name, names, c.want, g.stop[0])
		}
		if spoken := g.text[0] != ""; spoken != (c.want == nil) {
			t.Errorf("%s: said %q", name, g.text[0])
		}
	}
}

func TestToolResult(t *testing.T) {
	g := inBubble(t, providers.Chat, `{"model":"demo-tools","tools":[`+clock+`],"messages":[{"role":"user","content":"x"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"clock","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"a","content":"half past ten"}]}`)
	if g.err != nil || !strings.Contains(g.text[0], "half past ten") || g.stop[0] != "stop" || len(g.tools) > 0 {
		t.Errorf("%+v", g)
	}
}

// Arguments arrive in pieces, so that clients have something to put together.
func TestToolFragments(t *testing.T) {
	g := inBubble(t, providers.Chat, chat(Tools, "x", `,"tools":[`+weather+`]`))
	if g.tokens < 6 {
		t.Errorf("a call in %d events", g.tokens)
	}
}

// A schema that refers to itself, or asks for a lot, ends.
func TestSchemaBounds(t *testing.T) {
	for name, c := range map[string]struct{ parameters, want string }{
		"recursive": {`{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","required":["b"],"properties":{"b":{"$ref":"#/$defs/a"}}}}}`,
			strings.Repeat(`{"b":`, 9) + "null" + strings.Repeat("}", 9)},
		"circle":    {`{"required":["b"],"properties":{"b":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$ref":"#/$defs/a"}}}`, `{"b":"demo"}`},
		"bounds":    {`{"required":["a","b","c"],"properties":{"a":{"type":"number","exclusiveMinimum":4},"b":{"type":"integer","multipleOf":5,"minimum":7},"c":{"type":"number","maximum":-2}}}`, `{"a":5,"b":10,"c":-2}`},
		"given":     {`{"required":["a","b","c","a"],"properties":{"a":{"const":7},"b":{"type":"string","default":"x"},"c":{"anyOf":[{"type":"string","maxLength":2},{"type":"null"}]}}}`, `{"a":7,"b":"x","c":"de"}`},
		"undefined": {`{"required":["a"]}`, `{"a":"demo"}`},
	} {
		got, err := arguments(function{Name: "f", Parameters: json.RawMessage(c.parameters)})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
	wide := `{"$ref":"#/$defs/a","$defs":{"a":{"type":"array","minItems":256,"items":{"$ref":"#/$defs/a"}}}}`
	if got, err := arguments(function{Parameters: json.RawMessage(wide)}); err == nil {
		t.Errorf("%d bytes of arguments", len(got))
	}
}

type embeddings struct {
	Object string
	Model  string
	Data   []struct {
		Object    string
		Index     int
		Embedding json.RawMessage
	}
	Usage struct {
		PromptTokens int64 `json:"prompt_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	}
}

func embedOf(t *testing.T, more string) (*embeddings, [][]float32) {
	t.Helper()
	g := ask1(t, t.Context(), providers.Embeddings, `{"model":"demo-embed",`+more+`}`)
	if g.err != nil || g.meta == nil || g.usage == nil {
		t.Fatalf("%s: %+v", more, g)
	}
	var e embeddings
	if err := json.Unmarshal(g.whole, &e); err != nil {
		t.Fatalf("%v in %.200s", err, g.whole)
	}
	if e.Usage.PromptTokens != g.usage.Prompt || e.Usage.TotalTokens != g.usage.Total || e.Usage.TotalTokens != e.Usage.PromptTokens {
		t.Errorf("usage %+v, told %+v", e.Usage, g.usage)
	}
	var out [][]float32
	for i, d := range e.Data {
		if d.Index != i || d.Object != "embedding" {
			t.Errorf("entry %d: %+v", i, d)
		}
		out = append(out, numbers(t, d.Embedding))
	}
	return &e, out
}

func numbers(t *testing.T, b json.RawMessage) (v []float32) {
	t.Helper()
	if b[0] == '[' {
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	var packed []byte
	if err := json.Unmarshal(b, &packed); err != nil { // standard base64
		t.Fatal(err)
	}
	for ; len(packed) > 0; packed = packed[4:] {
		v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(packed)))
	}
	return v
}

func TestEmbeddings(t *testing.T) {
	for shape, n := range map[string]int{`"input":"a b c"`: 1, `"input":["a b c","d"]`: 2, `"input":[1,2,3]`: 1, `"input":[[1,2,3],[4]]`: 2} {
		for _, size := range []int{256, 3} {
			more := shape
			if size != 256 {
				more += fmt.Sprintf(`,"dimensions":%d`, size)
			}
			e, plain := embedOf(t, more+`,"encoding_format":"float"`)
			_, again := embedOf(t, more)
			_, packed := embedOf(t, more+`,"encoding_format":"base64"`)
			if len(plain) != n || e.Object != "list" || e.Model != Embed || e.Usage.PromptTokens != int64(2+n) && n == 2 || n == 1 && e.Usage.PromptTokens != 3 {
				t.Errorf("%s: %d vectors, %+v", more, len(plain), e.Usage)
			}
			if fmt.Sprint(plain) != fmt.Sprint(packed) || fmt.Sprint(plain) != fmt.Sprint(again) {
				t.Errorf("%s: float and base64 differ", more)
			}
			for _, v := range plain {
				if norm := length(v); len(v) != size || math.Abs(norm-1) > 1e-5 {
					t.Errorf("%s: %d numbers of length %v", more, len(v), norm)
				}
			}
		}
	}
	_, v := embedOf(t, `"input":["a","b"]`)
	if fmt.Sprint(v[0]) == fmt.Sprint(v[1]) {
		t.Error("two texts have one vector")
	}
}

func length(v []float32) float64 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

func picture(w, h int, c color.Color) *image.Paletted {
	img := image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{c})
	return img
}

func encoded(t *testing.T, format string, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, img)
	case "gif":
		err = gif.Encode(&b, img, nil)
	default:
		err = jpeg.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dataURL(mime string, data []byte) string {
	return "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(data)
}

func see(t *testing.T, urls ...string) *got {
	t.Helper()
	var parts []string
	for _, u := range urls {
		parts = append(parts, fmt.Sprintf(`{"type":"image_url","image_url":{"url":%q,"detail":"low"}}`, u))
	}
	return inBubble(t, providers.Chat, `{"model":"demo-vision","messages":[{"role":"user","content":[{"type":"text","text":"what is it?"},`+
		strings.Join(parts, ",")+`]}]}`)
}

func TestVision(t *testing.T) {
	red, blue := color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}
	for format, c := range map[string]color.Color{"png": red, "gif": blue, "jpeg": red} {
		data := encoded(t, format, picture(300, 40, c))
		want := fmt.Sprintf("I see 1 image. Image 1: image/%s, %d bytes, 300 x 40 pixels, mean colour #", format, len(data))
		g := see(t, dataURL("image/"+format, data))
		if g.err != nil || !strings.Contains(g.text[0], want) || !strings.Contains(g.text[0], map[string]string{"png": "#ff0000 (red)", "gif": "#0000ff (blue)", "jpeg": "(red)"}[format]) {
			t.Errorf("%s: %q, %v; want %q", format, g.text[0], g.err, want)
		}
		if g.usage.Prompt <= imageTokens {
			t.Errorf("%s: %d tokens in the prompt", format, g.usage.Prompt)
		}
	}
	a := dataURL("image/png", encoded(t, "png", picture(2, 2, red)))
	big := dataURL("image/png", encoded(t, "png", picture(4097, 1024, red)))
	for want, urls := range map[string][]string{
		"I see 2 images.":          {a, a},
		"4097 x 1024 pixels, more": {big},
		"fetches nothing":          {"https://example.com/a.png"},
		"no format that the demo":  {dataURL("image/webp", []byte("RIFF"))},
	} {
		if g := see(t, urls...); g.err != nil || !strings.Contains(g.text[0], want) {
			t.Errorf("%q not in %q, %v", want, g.text[0], g.err)
		}
	}
	if g := inBubble(t, providers.Chat, chat(Vision, "x", "")); !strings.Contains(g.text[0], "I see no image") {
		t.Errorf("without an image: %q", g.text[0])
	}
}

func TestVisionRefuses(t *testing.T) {
	whole := encoded(t, "png", picture(64, 64, color.White))
	for name, urls := range map[string][]string{
		"no comma":   {"data:image/png;base64"},
		"no base64":  {"data:image/png;base64,%%%"},
		"no picture": {dataURL("image/png", []byte("nothing"))},
		"damaged":    {dataURL("image/png", whole[:len(whole)-20])},
		"too many":   make([]string, maxImages+1),
	} {
		for i := range urls {
			if urls[i] == "" {
				urls[i] = "https://example.com/"
			}
		}
		if e := providers.AsError(see(t, urls...).err); e == nil || e.Param != "messages" || e.Kind != providers.BadRequest {
			t.Errorf("%s: %v", name, e)
		}
	}
}

package tokens

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
	"time"

	"sluice/providers"
)

func parse(t testing.TB, op providers.Op, body string) *providers.Request {
	t.Helper()
	req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// counted is an estimator whose tokenizer takes words for tokens.
func counted(imageTokens int64) *Estimator {
	return New([]Model{{Models: []string{"m*"}, Count: func(s string) int { return len(strings.Fields(s)) }, ImageTokens: imageTokens}})
}

func dataURL(kind string, data []byte) string {
	return "data:image/" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)
}

func pngOf(w, h int) string {
	var b bytes.Buffer
	_ = png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h)))
	return dataURL("png", b.Bytes())
}

func TestPrompt(t *testing.T) {
	image512 := fmt.Sprintf(`{"type":"image_url","image_url":{"url":%q}}`, pngOf(512, 512))
	for name, c := range map[string]struct {
		op   providers.Op
		body string
		want int64
	}{
		"a message":         {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"one two three"}]}`, 3 + 3 + 3},
		"two":               {providers.Chat, `{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":"b c"}]}`, 3 + 1 + 3 + 2 + 3},
		"parts":             {providers.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a b"},{"type":"text","text":"c"}]}]}`, 3 + 3 + 3},
		"escapes":           {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a\u0020b\nc"}]}`, 3 + 3 + 3},
		"an image":          {providers.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},` + image512 + `]}]}`, 3 + 1 + 3 + 255},
		"low detail":        {providers.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low","url":"https://x/y.png"}}]}]}`, 3 + 3 + 85},
		"an unknown image":  {providers.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`, 3 + 3 + 765},
		"audio":             {providers.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA BBBB","format":"mp3"}}]}]}`, 3 + 3},
		"tools":             {providers.Chat, `{"model":"m","messages":[{"role":"user","content":""}],"tools":[{"type":"function","function":{"name":"look","description":"looks it up"}}]}`, 3 + 1 + 3 + 3},
		"a tool's call":     {providers.Chat, `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a b c","type":"function","function":{"name":"f","arguments":"x y"}}]}]}`, 3 + 3 + 3},
		"a prompt":          {providers.Completions, `{"model":"m","prompt":"a b c"}`, 3 + 3},
		"prompts":           {providers.Completions, `{"model":"m","prompt":["a b","c"]}`, 3 + 3},
		"tokens":            {providers.Completions, `{"model":"m","prompt":[1,2,3,4]}`, 4 + 3},
		"responses":         {providers.Responses, `{"model":"m","instructions":"be brief","input":"a b"}`, 2 + 2 + 3},
		"responses, image":  {providers.Responses, `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"https://x/y.png"}]}]}`, 3 + 1 + 3 + 765},
		"embeddings":        {providers.Embeddings, `{"model":"m","input":["a b","c d"]}`, 4 + 3},
		"by bytes":          {providers.Chat, `{"model":"other","messages":[{"role":"user","content":"0123456789"}]}`, 12},
		"by bytes, image":   {providers.Chat, `{"model":"other","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]}`, 24 + 765},
		"members elsewhere": {providers.Completions, `{"model":"m","metadata":{"messages":"a b c"}}`, 0},
	} {
		if got := counted(0).Prompt(parse(t, c.op, c.body)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := counted(40).Prompt(parse(t, providers.Chat, `{"model":"m","messages":[{"role":"user","content":[`+image512+`]}]}`)); got != 3+3+40 {
		t.Errorf("with a flat figure: %d", got)
	}
}

// TestLongPrompt is counted in part, and the rest taken to be alike.
func TestLongPrompt(t *testing.T) {
	text := strings.Repeat("word ", 4*maxCounted/5)
	got := counted(0).Prompt(parse(t, providers.Chat, `{"model":"m","messages":[{"role":"user","content":"`+text+`"}]}`))
	if want := int64(4 * maxCounted / 5); got < want*99/100 || got > want*101/100 {
		t.Errorf("%d tokens, of %d words", got, want)
	}
}

func TestImageSize(t *testing.T) {
	var j, g bytes.Buffer
	if jpeg.Encode(&j, image.NewRGBA(image.Rect(0, 0, 300, 200)), nil) != nil || gif.Encode(&g, image.NewGray(image.Rect(0, 0, 30, 20)), nil) != nil {
		t.Fatal("cannot encode")
	}
	webp := func(chunk string, rest ...byte) []byte {
		return append([]byte("RIFF\x00\x00\x00\x00WEBP"+chunk+"\x00\x00\x00\x00"), append(rest, make([]byte, 20)...)...)
	}
	for name, c := range map[string]struct {
		url  string
		w, h int64
	}{
		"png":               {pngOf(640, 480), 640, 480},
		"jpeg":              {dataURL("jpeg", j.Bytes()), 300, 200},
		"jpeg behind EXIF":  {dataURL("jpeg", append([]byte("\xff\xd8\xff\xe1\x00\x06EXIF\xff\xff"), j.Bytes()[2:]...)), 300, 200},
		"gif":               {dataURL("gif", g.Bytes()), 30, 20},
		"webp, lossy":       {dataURL("webp", webp("VP8 ", 0, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00)), 320, 240},
		"webp, lossless":    {dataURL("webp", webp("VP8L", 0x2f, 0x3f, 0xc1, 0x3b, 0x00)), 320, 240},
		"webp, extended":    {dataURL("webp", webp("VP8X", 0, 0, 0, 0, 0x3f, 0x01, 0x00, 0xef, 0x00, 0x00)), 320, 240},
		"an address":        {"https://example.com/a.png", 0, 0},
		"no image":          {dataURL("png", []byte("hello")), 0, 0},
		"cut":               {dataURL("png", []byte("\x89PNG\r\n\x1a\n")), 0, 0},
		"of no size":        {dataURL("png", append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 30)...)), 0, 0},
		"of any size":       {dataURL("png", append([]byte("\x89PNG\r\n\x1a\n"), bytes.Repeat([]byte{0xff}, 30)...)), 0, 0},
		"a segment of none": {dataURL("jpeg", []byte("\xff\xd8\xff\xe0\x00\x00\xff\xff\xff\xff\xff\xff\xff")), 0, 0},
	} {
		w, h, ok := size([]byte(`"` + c.url + `"`))
		if ok != (c.w > 0) || ok && (w != c.w || h != c.h) {
			t.Errorf("%s: %d x %d, %t", name, w, h, ok)
		}
	}
}

// TestTiles has the examples of OpenAI's page, and edges.
func TestTiles(t *testing.T) {
	for _, c := range [][3]int64{{1024, 1024, 765}, {2048, 4096, 1105}, {512, 512, 255}, {1, 1, 255}, {513, 1, 425}, {60000, 1, 85 + 4*170}, {768, 768, 765}} {
		if got := tiles(c[0], c[1]); got != c[2] {
			t.Errorf("%d x %d: %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

func TestOutput(t *testing.T) {
	e := New([]Model{{Models: []string{"small"}, MaxOutput: 500}})
	for name, c := range map[string]struct {
		op   providers.Op
		body string
		want int64
	}{
		"none declared":        {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}]}`, 1024},
		"for each choice":      {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}],"n":3}`, 3072},
		"the model's own":      {providers.Chat, `{"model":"small","messages":[{"role":"user","content":"a"}]}`, 500},
		"declared":             {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":7}`, 7},
		"the largest of all":   {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":1,"max_completion_tokens":10000}`, 10000},
		"times the choices":    {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":10,"n":4}`, 40},
		"beyond the model":     {providers.Chat, `{"model":"small","messages":[{"role":"user","content":"a"}],"max_tokens":9000,"n":2}`, 1000},
		"of responses":         {providers.Responses, `{"model":"m","input":"a","max_output_tokens":16}`, 16},
		"null is not declared": {providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":null}`, 1024},
		"embeddings":           {providers.Embeddings, `{"model":"m","input":"a"}`, 0},
	} {
		got, declared := e.Output(parse(t, c.op, c.body), "key")
		if got != c.want || declared != (strings.Contains(c.body, "max_") && !strings.Contains(c.body, "null") || c.op == providers.Embeddings) {
			t.Errorf("%s: %d, want %d (declared: %t)", name, got, c.want, declared)
		}
	}
}

func TestUsual(t *testing.T) {
	e := New(nil)
	req := parse(t, providers.Chat, `{"model":"m","messages":[{"role":"user","content":"a"}]}`)
	for i := range enough {
		if got, _ := e.Output(req, "k"); got != unheard {
			t.Fatalf("after %d answers: %d", i, got)
		}
		e.Learn(req, "k", 100)
	}
	if got, _ := e.Output(req, "k"); got < 100 || got > 125 {
		t.Errorf("nine of ten answers of 100 tokens have up to %d", got)
	}
	if got, _ := e.Output(req, "other"); got != unheard {
		t.Errorf("another key: %d", got)
	}
	for range 3 * fresh {
		e.Learn(req, "k", 2000)
	}
	if got, _ := e.Output(req, "k"); got < 2000 || got > 2500 {
		t.Errorf("what was long ago still counts: %d", got)
	}
	var u usual
	for i := range 2 * pairs {
		u.add("m", fmt.Sprint(i), 1)
	}
	if len(u.by) != pairs {
		t.Errorf("%d callers are remembered", len(u.by))
	}
}

// TestSteps: every length is within its step, and not far below its end.
func TestSteps(t *testing.T) {
	for n := int64(4); n < 1<<24; n += n/100 + 1 {
		if end := upper(step(n)); end < n || end > n+n/4 {
			t.Fatalf("%d is in the step up to %d", n, end)
		}
	}
	if step(1<<40) >= steps || step(-1) < 0 {
		t.Error("beyond the steps")
	}
}

func TestTokenizer(t *testing.T) {
	for name, want := range map[string]int{"o200k_base": 4, "cl100k_base": 4} {
		count := Tokenizer(name)
		if got := count("Hello, world!"); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if got := count("\xff\xfe"); got < 1 {
			t.Errorf("%s: what is no text has %d", name, got)
		}
	}
	if Tokenizer("bytes") != nil || Tokenizer("gpt2") != nil {
		t.Error("a tokenizer that is not there")
	}
}

// TestTokenizerHasNoWorstCase: no text takes much longer than another.
func TestTokenizerHasNoWorstCase(t *testing.T) {
	count := Tokenizer("o200k_base")
	for _, piece := range []string{"a", "A", " ", "\n", "\r\n ", " \n", "\n\t", "\u3000\n", "1", "!", "\u00e9", "\U0001f600", "aB", "'s", "\u200d", "\x00"} {
		start := time.Now()
		count(strings.Repeat(piece, 64<<10/len(piece)))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%q, again and again: %v", piece, took)
		}
	}
}

// FuzzPrompt: whatever passes the parser is counted, to no less than nothing.
func FuzzPrompt(f *testing.F) {
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`)
	f.Add(`{"model":"m","prompt":[1,[2,"a"],null,{"url":"x","detail":"low"}]}`)
	f.Add(`{"model":"m","input":[[[[[["a"]]]]]]}`)
	e := counted(0)
	f.Fuzz(func(t *testing.T, body string) {
		for _, op := range []providers.Op{providers.Chat, providers.Completions, providers.Responses, providers.Embeddings} {
			req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
			if err != nil {
				continue
			}
			if n := e.Prompt(req); n < 0 || n > int64(len(body))*(imageUnknown+1)+perPrompt+2*int64(len(body)) {
				t.Errorf("%d tokens in %q", n, body)
			}
		}
	})
}

func FuzzImageSize(f *testing.F) {
	f.Add([]byte("\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x10"))
	f.Add([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, h := sizeOf(data)
		if w > 0 && h > 0 && w <= maxSide && h <= maxSide && tiles(w, h) > imageBase+16*imageTile {
			t.Errorf("%d x %d: %d tokens", w, h, tiles(w, h))
		}
	})
}

func BenchmarkTokenizer(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home. ", 20)
	for _, name := range []string{"o200k_base", "cl100k_base"} {
		b.Run(name, func(b *testing.B) {
			count := Tokenizer(name)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				count(text)
			}
		})
	}
}

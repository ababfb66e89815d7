package gemini

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

func parsed(t testing.TB, op providers.Op, body string) *providers.Request {
	t.Helper()
	req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// check translates a chat request for a model and compares what would be sent, without
// its one message, or the parameter that is refused.
func check(t *testing.T, opt Options, model, more, want string) {
	t.Helper()
	r, err := newTarget(opt, model).translate(parsed(t, providers.Chat, `{"model":"x","messages":[{"role":"user","content":"Hi"}]`+more+`}`))
	got := ""
	if err != nil {
		got = "refused " + providers.AsError(err).Param
	} else {
		b, err := json.Marshal(&r.out)
		if err != nil {
			t.Fatal(err)
		}
		got = strings.TrimPrefix(string(b), `{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]`)
		if h := r.asked.Header(); h != nil {
			got += " dropped " + h.Get("X-Sluice-Dropped-Params")
		}
	}
	if got != want {
		t.Errorf("%s %s:\n%s, want\n%s", model, more, got, want)
	}
}

func config(members string) string { return `,"generationConfig":{` + members + `}}` }

func TestModelRules(t *testing.T) {
	effort := func(e string) string { return `,"reasoning_effort":"` + e + `"` }
	for _, c := range []struct{ model, more, want string }{
		{"gemini-2.5-flash", effort("medium"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingBudget":8192}`)},
		{"gemini-2.5-flash", effort("minimal"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingBudget":1024}`)},
		{"gemini-2.5-flash", effort("max"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingBudget":24576}`)},
		{"gemini-2.5-flash", effort("none"), config(`"thinkingConfig":{"thinkingBudget":0}`)},
		{"gemini-2.5-pro", effort("none"), "refused reasoning_effort"},
		{"gemini-2.5-flash", `,"presence_penalty":0.5`, "refused presence_penalty"},
		{"gemini-2.5-flash", `,"presence_penalty":0`, "}"},
		{"gemini-2.0-flash", effort("low"), "refused reasoning_effort"},
		{"gemini-2.0-flash", effort("none"), "}"},
		{"gemini-2.0-flash", `,"presence_penalty":0.5`, config(`"presencePenalty":0.5`)},
		{"gemini-3-pro-preview", effort("xhigh"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"HIGH"}`)},
		{"gemini-3.1-flash", effort("minimal"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"MINIMAL"}`)},
		{"gemini-3-pro-preview", effort("none"), "refused reasoning_effort"},
		{"gemini-flash-latest", effort("low"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"LOW"}`)},
		{"tunedModels/x", effort("low"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingBudget":1024}`)},
	} {
		check(t, options("http://up.test"), c.model, c.more, c.want)
	}
	for _, c := range []struct {
		set               func(*Options)
		model, more, want string
	}{
		{func(o *Options) { o.Thinking = "level" }, "m", effort("low"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingLevel":"LOW"}`)},
		{func(o *Options) { o.Thinking = "budget" }, "gemini-3-pro", effort("low"), config(`"thinkingConfig":{"includeThoughts":true,"thinkingBudget":1024}`)},
		{func(o *Options) { o.Thinking = "off" }, "gemini-3-pro", effort("low"), "refused reasoning_effort"},
		{func(o *Options) { o.Thinking, o.Drop = "off", true }, "gemini-3-pro", effort("low") + `,"logit_bias":{"1":1}`, "} dropped reasoning_effort, logit_bias"},
		{func(o *Options) { o.Safety = "OFF" }, "m", "", `,"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"OFF"},{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"OFF"},` +
			`{"category":"HARM_CATEGORY_SEXUALLY_EXPLICIT","threshold":"OFF"},{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","threshold":"OFF"},{"category":"HARM_CATEGORY_CIVIC_INTEGRITY","threshold":"OFF"}]}`},
	} {
		opt := options("http://up.test")
		c.set(&opt)
		check(t, opt, c.model, c.more, c.want)
	}
}

// contents translates messages for a model.
func contents(t *testing.T, tg target, messages string) (string, error) {
	t.Helper()
	r, err := tg.translate(parsed(t, providers.Chat, `{"model":"x","messages":[`+messages+`]}`))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(r.out)
	return string(b), err
}

// TestSignatures: models from version 3 on want the signature of the first call of each
// answer; a stranger's call passes under a word that stands for one.
func TestSignatures(t *testing.T) {
	loop := `{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"f"}},{"id":"c2","function":{"name":"g"}}]},{"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"2"}`
	for model, want := range map[string][2]string{
		"gemini-3-pro":   {`"thoughtSignature":"skip_thought_signature_validator"`, `"thoughtSignature":"Sig"`},
		"gemini-2.5-pro": {"", `"thoughtSignature":"Sig"`},
	} {
		tg := newTarget(options("http://up.test"), model)
		for i, signature := range want {
			got, err := contents(t, tg, loop)
			if err != nil || signature != "" && !strings.Contains(got, `"name":"f","args":{}},`+signature+`},{"functionCall":{"name":"g","args":{}}}]`) || signature == "" && strings.Contains(got, "thoughtSignature") {
				t.Errorf("%s, %d: %s, %v", model, i, got, err)
			}
			tg.memory.Keep("c1", model, "Sig", 3)
		}
		tg.model = "gemini-9"
		if got, _ := contents(t, tg, loop); strings.Contains(got, "Sig\"") {
			t.Errorf("the signature went to another model: %s", got)
		}
	}
}

func TestSystemOfGemma(t *testing.T) {
	tg := newTarget(options("http://up.test"), "gemma-3-27b-it")
	for messages, want := range map[string]string{
		`{"role":"system","content":"s"},{"role":"user","content":"u"}`:      `{"contents":[{"role":"user","parts":[{"text":"s"},{"text":"u"}]}]}`,
		`{"role":"system","content":"s"},{"role":"assistant","content":"a"}`: `{"contents":[{"role":"user","parts":[{"text":"s"}]},{"role":"model","parts":[{"text":"a"}]}]}`,
	} {
		if got, err := contents(t, tg, messages); err != nil || got != want {
			t.Errorf("%s: %s, %v", messages, got, err)
		}
	}
}

// What Google reads with the gateway's credential is named by callers only where the
// configuration says so, however the address is written.
func TestAddresses(t *testing.T) {
	opt := options("https://Gemini.example.com:443")
	image := func(url string) string {
		return `{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + url + `"}}]}`
	}
	const neither, fetched, named = 0, 1, 2 // bits: with fetch_urls, with named_files
	for url, want := range map[string]int{
		"gs://bucket/x.png": named,
		"GS://bucket/x.png": named,
		"https://generativelanguage.googleapis.com/v1beta/files/x":      named,
		"https://GenerativeLanguage.googleapis.com.:443/v1beta/files/x": named,
		"https://a@storage.googleapis.com/b/x.png":                      named,
		"http://storage.cloud.google.com/b/x.png":                       named,
		"https://gemini.example.com/v1beta/files/x":                     named,
		"https://example.com/x.png":                                     fetched,
		"http://example.com/x.png":                                      fetched,
		"https://googleapis.com.evil.test/x":                            fetched,
		"https://www.youtube.com.evil.test/x":                           fetched,
		"ftp://example.com/x.png":                                       neither,
		"https:generativelanguage.googleapis.com/v1beta/files/x":        neither,
		"files/x": neither,
	} {
		for set := range 4 {
			opt.FetchURLs, opt.NamedFiles = set&fetched != 0, set&named != 0
			got, err := contents(t, newTarget(opt, "m"), image(url))
			if (err == nil) != (set&want != 0) || err == nil && !strings.Contains(got, `"fileUri":"`+url+`"`) {
				t.Errorf("%s, fetch_urls %t, named_files %t: %s, %v", url, opt.FetchURLs, opt.NamedFiles, got, err)
			}
			if e := providers.AsError(err); err != nil && (e.Kind != providers.BadRequest || e.Param != "messages[0].content[0].image_url.url") {
				t.Errorf("%s: %+v", url, e)
			}
		}
	}
	for _, drop := range []bool{false, true} {
		opt.NamedFiles, opt.Drop = false, drop
		check(t, opt, "gemini-2.5-flash", `,"cached_content":"projects/1/locations/x/cachedContents/y"`, "refused cached_content")
	}
	opt.NamedFiles = true
	check(t, opt, "gemini-2.5-flash", `,"cached_content":"cachedContents/y"`, `,"cachedContent":"cachedContents/y"}`)
}

// TestStopInEveryChunk: older models say STOP all the time; the text behind it counts.
func TestStopInEveryChunk(t *testing.T) {
	stream := strings.ReplaceAll(string(transcript("a", "b", "c")), `"role":"model"},"index"`, `"role":"model"},"finishReason":"STOP","index"`)
	text, stops := "", 0
	for batch, err := range play(parsed(t, providers.Chat, `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`), streaming.NewProgress(time.Now()), strings.NewReader(stream)) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			text += batch[i].Text
			if batch[i].Stop != "" {
				stops++
			}
		}
	}
	if strings.Count(stream, "STOP") != 3 || text != "abc" || stops != 1 {
		t.Errorf("%q, %d stops", text, stops)
	}
}

// TestCutWithinAnEvent: the reasons before it do not make an answer whole whose body ends
// within an event.
func TestCutWithinAnEvent(t *testing.T) {
	stream := strings.ReplaceAll(string(transcript("a", "b", "c")), `"role":"model"},"index"`, `"role":"model"},"finishReason":"STOP","index"`)
	at := strings.LastIndex(stream, "data:")
	for cut := at + 1; cut < len(stream)-2; cut++ {
		var last error
		for batch, err := range play(parsed(t, providers.Chat, `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`), streaming.NewProgress(time.Now()), strings.NewReader(stream[:cut])) {
			for i := range batch {
				if batch[i].Stop != "" {
					t.Fatalf("a Stop behind %q", stream[at:cut])
				}
			}
			last = err
		}
		if e := providers.AsError(last); e == nil || e.Kind != providers.Truncated {
			t.Fatalf("behind %q: %v", stream[at:cut], last)
		}
	}
}

func TestModels(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI()+" "+r.Header.Get("X-Goog-Api-Key"))
		if r.URL.Query().Get("pageToken") == "" {
			_, _ = io.WriteString(w, `{"models":[{"name":"models/b","supportedGenerationMethods":["generateContent"]},{"name":"models/aqa","supportedGenerationMethods":["generateAnswer"]}],"nextPageToken":"n 2"}`)
			return
		}
		_, _ = io.WriteString(w, `{"models":[{"name":"models/e","supportedGenerationMethods":["embedContent"]},{"name":"tunedModels/t"},{}]}`)
	}))
	defer srv.Close()
	list, err := New(options(srv.URL)).Models(t.Context())
	got := ""
	for _, m := range list {
		got += m.ID + " " + m.OwnedBy + ","
	}
	if err != nil || got != "b google,e google,tunedModels/t google," {
		t.Errorf("%s, %v", got, err)
	}
	if want := "/v1beta/models?pageSize=1000 key-1,/v1beta/models?pageSize=1000&pageToken=n+2 key-1"; strings.Join(asked, ",") != want {
		t.Errorf("asked %v", asked)
	}
}

func TestModelsFail(t *testing.T) {
	for body, status := range map[string]int{`{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}`: 403, `{"object":"list"}`: 200, `<html>`: 200} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		if list, err := New(options(srv.URL)).Models(t.Context()); err == nil {
			t.Errorf("%s: %v", body, list)
		}
		srv.Close()
	}
}

func TestPathsAndHeaders(t *testing.T) {
	for model, want := range map[string]string{"gemini-x": "/models/gemini-x:m", "tunedModels/a b": "/tunedModels/a%20b:m", "models/y?z": "/models/y%3Fz:m"} {
		if got := newTarget(options("http://up.test"), model).path("m"); got != want {
			t.Errorf("%s: %s, want %s", model, got, want)
		}
	}
	for auth, want := range map[string]string{"auto": "key ", "bearer": " Bearer key", "none": " "} {
		h := (&Options{APIKey: "key", Auth: auth}).sign()
		if got := h.Get("X-Goog-Api-Key") + " " + h.Get("Authorization"); got != want {
			t.Errorf("%s: %s", auth, got)
		}
	}
}

// TestEmbeddings asks for more than fits into one call.
func TestEmbeddings(t *testing.T) {
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Requests []embedding }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/v1beta/models/e:batchEmbedContents" || body.Requests[0].Model != "models/e" || body.Requests[0].Task != "CLUSTERING" {
			t.Errorf("asked %s %+v, %v", r.URL, body.Requests[:1], err)
		}
		calls++
		var out []string
		for _, e := range body.Requests {
			out = append(out, `{"values":[`+e.Content.Parts[0].Text+`,-0.5]}`)
		}
		fmt.Fprintf(w, `{"embeddings":[%s]}`, strings.Join(out, ","))
	}))
	defer srv.Close()
	var inputs []string
	for i := range 150 {
		inputs = append(inputs, fmt.Sprintf("%q", fmt.Sprint(i)))
	}
	req := parsed(t, providers.Embeddings, `{"model":"x","task_type":"CLUSTERING","input":[`+strings.Join(inputs, ",")+`]}`)
	body, err := embedded(t, srv.URL, req)
	var list struct {
		Model string
		Data  []struct{ Embedding []float64 }
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	if err != nil || json.Unmarshal(body, &list) != nil || calls != 2 || len(list.Data) != 150 || list.Data[149].Embedding[0] != 149 || list.Model != "e" || list.Usage.Prompt == 0 {
		t.Errorf("%d calls, %v, %.200s", calls, err, body)
	}
}

func embedded(t *testing.T, baseURL string, req *providers.Request) (body []byte, failed error) {
	t.Helper()
	for batch, err := range newTarget(options(baseURL), "e").Stream(t.Context(), req, streaming.NewProgress(time.Now())) {
		failed = err
		for i := range batch {
			if batch[i].Kind == streaming.Whole {
				body = append(body, batch[i].Raw...)
			}
		}
	}
	return body, failed
}

func TestEmbeddingsFail(t *testing.T) {
	for body, want := range map[string]providers.ErrorKind{
		`{"embeddings":[]}`:               providers.Protocol,
		`{"embeddings":[{"values":"x"}]}`: providers.Protocol,
		`{"embeddings":[{}]}`:             providers.Protocol,
		`{`:                               providers.Protocol,
		``:                                providers.Protocol,
		`{"error":{"code":429,"message":"slow"}}`: providers.RateLimited,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if want == providers.RateLimited {
				w.WriteHeader(http.StatusTooManyRequests)
			}
			_, _ = io.WriteString(w, body)
		}))
		_, err := embedded(t, srv.URL, parsed(t, providers.Embeddings, `{"model":"x","input":"a"}`))
		if e := providers.AsError(err); e == nil || e.Kind != want {
			t.Errorf("%s: %v", body, err)
		}
		srv.Close()
	}
}

// TestBareReader finds JSON between events wherever reads end, and nothing within them.
func TestBareReader(t *testing.T) {
	for text, want := range map[string]string{
		"data: {\"a\":1}\n\n":                "",
		"data: x\r\n\r\n{\n \"error\": 1}\n": "{\n \"error\": 1}\n",
		"[{\"error\":2}]":                    "[{\"error\":2}]",
		": {\ndata: [\n\n":                   "",
	} {
		for how, src := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
			r := &bareReader{src: src}
			if all, err := io.ReadAll(r); err != nil || string(all) != text || string(r.caught) != want {
				t.Errorf("%q %s: caught %q, %v", text, how, r.caught, err)
			}
		}
	}
}

// FuzzStream: whatever a server sends, the stream ends once and breaks no rule that a
// panic would tell.
func FuzzStream(f *testing.F) {
	f.Add(transcript("a", "b"))
	f.Add([]byte("data: {\"candidates\":[{\"index\":127,\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":[1]}}]}},5],\"promptFeedback\":{}}\n\n{\"error\":5}"))
	req := parsed(f, providers.Chat, `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		ends := 0
		for _, err := range play(req, streaming.NewProgress(time.Now()), strings.NewReader(string(text))) {
			if err != nil {
				ends++
			}
		}
		if ends > 1 {
			t.Errorf("%d errors", ends)
		}
	})
}

// FuzzRequest: a body that the gateway took is translated into valid JSON or refused.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],"tools":[{"type":"function","function":{"name":"f"}}],"stop":"x"}`))
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":" ","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1"}],"reasoning_effort":"high"}`))
	tg := newTarget(options("http://up.test"), "gemini-3-pro")
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", body, 64)
		if err != nil {
			return
		}
		r, err := tg.translate(req)
		if err != nil {
			if e := providers.AsError(err); e == nil || e.Kind != providers.BadRequest {
				t.Errorf("%s: %v", body, err)
			}
			return
		}
		if out, err := r.encode(&r.out); err != nil || !json.Valid(out) || len(r.out.Contents) == 0 {
			t.Errorf("%s became %s, %v", body, out, err)
		}
	})
}

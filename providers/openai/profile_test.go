package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/providertest"
	"sluice/providers/upstream"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// playing reads transcripts as the answers that an upstream with these options gives,
// in the form in which the adapter has asked for them, or as the body tells.
func playing(opt func(baseURL string) Options) func(*providers.Request, *streaming.Progress, io.Reader) streaming.Stream {
	return func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
		return func(yield func([]streaming.Event, error) bool) {
			ad := New(opt("http://unused"))
			c, err := ad.call(req, providertest.Model)
			if err != nil {
				yield(nil, err)
				return
			}
			first := make([]byte, 1)
			n, _ := io.ReadFull(body, first)
			kind := "text/event-stream"
			if !c.stream || n > 0 && first[0] == '{' {
				kind = "application/json"
			}
			resp := &upstream.Answer{Status: http.StatusOK, Header: upstream.Header{{Name: "Content-Type", Value: kind}},
				Body: io.MultiReader(bytes.NewReader(first[:n]), body)}
			ad.answer(req, &c, resp, p, func(batch []streaming.Event, err error) bool {
				for i := range batch {
					if batch[i].Raw != nil {
						batch[i].Raw = created.ReplaceAll(batch[i].Raw, []byte(`"created":1700000000`))
					}
				}
				return yield(batch, err)
			})
		}
	}
}

// created depends on the time of the run where the upstream does not tell it.
var created = regexp.MustCompile(`"created":\d+`)

func miiOptions(baseURL string) Options {
	o := options(baseURL)
	o.Profile, o.EOS = MII, []string{"</s>"}
	return o
}

const miiChunk = `data: {"id": "chatcmpl-X", "model": "m", "choices": [{"index": 0, "delta": {%s}, "finish_reason": %s}]}` + "\n\n"

var miiSuite = providertest.Suite{
	Dir: "testdata/mii",
	New: func(_ testing.TB, baseURL string) providers.Provider {
		return New(miiOptions(baseURL)).Target(providertest.Model)
	},
	Play: playing(miiOptions),
	Ext:  ".sse", Type: "text/event-stream", Lines: true,
	Large: func(size int) []byte {
		return fmt.Appendf(nil, miiChunk+miiChunk+"data: [DONE]\n\n", `"role": "assistant"`, "null", fmt.Sprintf(`"content": %q`, strings.Repeat("x", size)), `"stop"`)
	},
	Refusals: []providertest.Refusal{
		{Name: "bad request", Status: 400, Body: `{"object":"error","message":"top_p must be in (0, 1]","code":40001}`,
			Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "top_p must be", Code: "40001"}},
		{Name: "other model", Status: 400, Body: `{"object":"error","message":"Only m allowed now, your model x","code":40301}`,
			Want: providers.Error{Kind: providers.Passed, Status: 400, Message: "Only m allowed", Code: "40301"}},
		{Name: "credential", Status: 401, Body: `{"detail":{"error":{"message":"","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}`,
			Want: providers.Error{Kind: providers.UpstreamCredential, Status: 401}},
		{Name: "the engine failed", Status: 500, Type: "text/plain", Body: "Internal Server Error", Want: providers.Error{Kind: providers.UpstreamFailed, Status: 500}},
	},
	// The server has neither tools nor thoughts, and breaks off where others tell an error.
	Lacks: []string{"tools", "reasoning", "in-band error"},
}

func TestConformanceMII(t *testing.T) { miiSuite.Run(t) }

func thinkOptions(baseURL string) Options {
	o := options(baseURL)
	o.Think = &kit.Think{}
	return o
}

var thinkSuite = providertest.Suite{
	Dir: "testdata/think",
	New: func(_ testing.TB, baseURL string) providers.Provider {
		return New(thinkOptions(baseURL)).Target(providertest.Model)
	},
	Play: playing(thinkOptions),
	Ext:  ".sse", Type: "text/event-stream", Lines: true, Large: suite.Large, Refusals: suite.Refusals,
}

func TestConformanceThink(t *testing.T) { thinkSuite.Run(t) }

// An answer that comes as one body although its caller asked for a stream is told as one.
func TestAnswersAtOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/*/written/*.body")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d answers, %v", len(files), err)
	}
	for _, file := range files {
		stem := strings.TrimSuffix(file, ".body")
		op, opt, body := providers.Chat, miiOptions, `{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}`
		if strings.Contains(file, "completions") {
			op = providers.Completions
		}
		if strings.Contains(file, "testdata/think/") {
			opt = thinkOptions
		}
		if own, err := os.ReadFile(stem + ".request.json"); err == nil {
			body = string(own)
		}
		req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for batch, err := range playing(opt)(req, streaming.NewProgress(time.Now()), bytes.NewReader(text)) {
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for i := range batch {
				fmt.Fprintf(&got, "%s %d %q %s", kinds[batch[i].Kind], batch[i].Index, batch[i].Text, batch[i].Stop)
				if u := batch[i].Usage; u != nil {
					fmt.Fprintf(&got, " %d+%d", u.Prompt, u.Completion)
				}
				got.WriteByte('\n')
			}
		}
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(stem+".golden", []byte(got.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(stem + ".golden"); err != nil || got.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s%v", file, got.String(), want, err)
		}
	}
}

// What a profile cannot do is left out where the configuration says so, and told.
func TestDroppedByMII(t *testing.T) {
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json",
		[]byte(`{"model":"m","messages":[{"role":"user","content":"Hi"}],"seed":7,"top_k":3,"tools":[{}],"stop":"x","temperature":1}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	o := miiOptions("http://unused")
	o.Drop = true
	ad := New(o)
	c, err := ad.call(req, "org/tiny")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"model":"org/tiny","messages":[{"role":"user","content":"Hi"}],"temperature":1,"n":1,"stream":false}`
	if got := string(c.body); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	if got := ad.meta(req, &c, &upstream.Answer{}).Header.Get("X-Sluice-Dropped-Params"); got != "top_k, seed, tools" {
		t.Errorf("dropped %q", got)
	}
}

// Whoever leaves an answer leaves the server at work: it is never told.
func TestUnstoppedByMII(t *testing.T) {
	text := fmt.Sprintf(miiChunk, `"role": "assistant"`, "null") + strings.Repeat(fmt.Sprintf(miiChunk, `"content": "x "`, "null"), 20) + fmt.Sprintf(miiChunk, `"content": ""`, `"length"`) + "data: [DONE]\n\n"
	for name, c := range map[string]struct {
		members string
		leave   int // behind so many tokens
		want    int64
	}{
		"read to the end": {`,"max_tokens":20`, 99, 0}, "left": {`,"max_tokens":20`, 2, 18}, "without a bound": {``, 2, 126},
		"stopped": {`,"max_tokens":20,"stop":"x x"`, 99, 18},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]`+c.members+`}`), 64)
			if err != nil {
				t.Fatal(err)
			}
			ad, p, seen := New(miiOptions("http://unused")), streaming.NewProgress(time.Now()), 0
			call, err := ad.call(req, "m")
			if err != nil {
				t.Fatal(err)
			}
			resp := &upstream.Answer{Status: http.StatusOK, Header: upstream.Header{{Name: "Content-Type", Value: "text/event-stream"}}, Body: iotest.OneByteReader(strings.NewReader(text))}
			finished := ad.answer(req, &call, resp, p, func(batch []streaming.Event, err error) bool {
				for i := range batch {
					if batch[i].Kind == streaming.Text {
						seen++
					}
				}
				return err == nil && seen < c.leave
			})
			call.settle(t.Context(), finished, p)
			if got := p.Report().Unstopped; got != c.want {
				t.Errorf("%d tokens may still be made, want %d", got, c.want)
			}
		})
	}
}

// TestPlainAnswers: an answer that no block begins passes as it came, and is searched no
// further than its first content, without a splitter of its own.
func TestPlainAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		delta string
		plain bool
	}{
		"text": {`"content":"Hi"`, true}, "white space and text": {`"content":" \n\t Hi"`, true},
		"a call": {`"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]`, true},
		"told":   {`"reasoning_content":"a"`, true}, "told otherwise": {`"reasoning":"a"`, true}, "refused": {`"refusal":"No."`, true},
		"a block": {`"content":"<think>"`, false}, "an escaped block": {`"content":"\u003cthink>"`, false},
		"white space": {`"content":" \n"`, false}, "nothing": {`"content":""`, false},
	} {
		r := New(thinkOptions("http://unused")).newReader(&providers.Request{ID: "req_1", Op: providers.Chat, Choices: 1}, &call{}, streaming.NewProgress(time.Now()))
		const head = `{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%s},"finish_reason":null}]}`
		sent := fmt.Sprintf(head, `"role":"assistant",`+c.delta)
		if err := r.payload(&streaming.Frame{Data: []byte(sent)}); err != nil {
			t.Fatal(err)
		}
		if over := r.thoughts.over.has(0); over != c.plain || over && r.thoughts.choices != nil {
			t.Errorf("%s: searched no further: %t, want %t; %d splitters", name, over, c.plain, len(r.thoughts.choices))
		}
		if last := r.batch[len(r.batch)-1]; c.plain && name != "told otherwise" && string(last.Raw) != sent {
			t.Errorf("%s: %s became %s", name, sent, last.Raw)
		}
	}
}

// FuzzThoughts: a text becomes the same thoughts and the same answer whether it comes in
// pieces, whole or as one body, and the role comes once.
func FuzzThoughts(f *testing.F) {
	f.Add("<think>a</think>b", []byte{3, 6, 1})
	f.Add(" \n<think>\n\u00fc\"</think>\n\n\U0001f680<think>", []byte{1, 1, 1, 9})
	f.Add("<thin", []byte{2})
	f.Add("</think>", []byte{})
	f.Fuzz(func(t *testing.T, all string, cuts []byte) {
		if !utf8.ValidString(all) || all == "" {
			return
		}
		var text strings.Builder
		delta := func(members, finish string) {
			fmt.Fprintf(&text, `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%s},"finish_reason":%s}]}`+"\n\n", members, finish)
		}
		role := `"role":"assistant",`
		for runes := []rune(all); len(runes) > 0; role = "" {
			n := len(runes)
			if len(cuts) > 0 {
				n, cuts = min(max(int(cuts[0]), 1), n), cuts[1:]
			}
			delta(role+`"content":`+string(jsonscan.AppendQuote(nil, string(runes[:n]))), "null")
			runes = runes[n:]
		}
		delta("", `"stop"`)
		var streamed [2]string
		enc, roles := dialectOf(t), 0
		req := &providers.Request{ID: "req_1", Op: providers.Chat, Model: "m", Stream: true, Choices: 1}
		finished := New(thinkOptions("http://unused")).relayEvents(req, &call{}, strings.NewReader(text.String()), streaming.NewProgress(time.Now()), func(batch []streaming.Event, err error) bool {
			for i := range batch {
				roles += enc(&batch[i], &streamed)
			}
			return true
		})
		thought, answer := splitWhole(&kit.Think{}, jsonscan.AppendQuote(nil, all))
		want := [2]string{"", all}
		if answer != nil {
			want[0], _ = jsonscan.Unquote(thought)
			want[1], _ = jsonscan.Unquote(answer)
		}
		if !finished || streamed != want || roles != 1 {
			t.Errorf("%q in %s became %q, want %q; %d roles", all, text.String(), streamed, want, roles)
		}
	})
}

// dialectOf returns what adds the text of an event to thoughts or answer, as an encoder
// would write it, and tells whether that wrote a role.
func dialectOf(t *testing.T) func(ev *streaming.Event, into *[2]string) (roles int) {
	begun := false
	return func(ev *streaming.Event, into *[2]string) (roles int) {
		if ev.Kind == streaming.Meta {
			return 0
		}
		if ev.Raw == nil {
			if !begun {
				roles = 1
			}
			into[map[bool]int{true: 0, false: 1}[ev.Kind == streaming.Reasoning]] += ev.Text
		} else {
			var c struct {
				Choices []struct {
					Delta struct{ Role, Content string }
				}
			}
			if err := json.Unmarshal(ev.Raw, &c); err != nil || len(c.Choices) != 1 {
				t.Fatalf("%v in %s", err, ev.Raw)
			}
			if c.Choices[0].Delta.Role != "" {
				roles = 1
			}
			into[1] += c.Choices[0].Delta.Content
		}
		begun = true
		return roles
	}
}

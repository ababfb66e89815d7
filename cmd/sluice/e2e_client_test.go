package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// overWall is a configuration with one upstream that serves every model, and more.
func overWall(baseURL, more string) string {
	return more + fmt.Sprintf("\n[[upstreams]]\nname = \"wall\"\nbase_url = %q\nmodels = [\"*\"]\nlist_models = false\n", baseURL)
}

// wallModel is the model that carries a script, counted under a name of its own.
func wallModel(name, script string) string {
	return "wall:" + strings.TrimPrefix(script+",key="+name, ",")
}

// words is the prompt of chatBody: three tokens, as the wall counts.
const words, wordTokens = "one two three", "3"

// chatBody is a streamed chat request; more are members with a leading comma.
func chatBody(model string, stream bool, more string) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":%q}]%s}`, model, stream, words, more)
}

const askUsage = `,"stream_options":{"include_usage":true}`

// answer is what a client got.
type answer struct {
	status  int
	header  http.Header
	body    string
	failure error // of reading the body
	sse
}

// request makes a request of the API; path begins below /v1, or is a whole URL.
func (g *gatewayUnderTest) request(ctx context.Context, t testing.TB, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	if strings.HasPrefix(path, "/") {
		path = g.URL + path
	}
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.Key)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// do asks and reads the answer to its end.
func (g *gatewayUnderTest) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return g.send(t, g.request(ctx, t, method, path, body, headers...))
}

func (g *gatewayUnderTest) send(t testing.TB, r *http.Request) (a answer) {
	t.Helper()
	res, err := g.Client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a = answer{status: res.StatusCode, header: res.Header, body: string(text), failure: err}
	if isSSE(res.Header) && !strings.HasSuffix(r.URL.Path, "/responses") {
		a.sse = readSSE(t, a.body)
	}
	return a
}

func isSSE(h http.Header) bool { return strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") }

// chat asks for a streamed chat answer.
func (g *gatewayUnderTest) chat(t testing.TB, model, more string) answer {
	t.Helper()
	return g.do(t, http.MethodPost, "/chat/completions", chatBody(model, true, more))
}

// whole asks for a chat answer that is not streamed.
func (g *gatewayUnderTest) whole(t testing.TB, model, more string) answer {
	t.Helper()
	return g.do(t, http.MethodPost, "/chat/completions", chatBody(model, false, more))
}

// sse is what stands in a stream of chunks.
type sse struct {
	payloads []string // without [DONE]
	comments int
	done     bool
	text     [2]string // by choice
	finish   [2]string
	roles    [2]int
	usage    []usage
	errors   []wireError
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
}

// wireError is OpenAI's error object; all four keys must be there.
type wireError struct {
	Message, Type, Param, Code string
}

// readError reads {"error":{…}} with exactly its four keys, null as "".
func readError(t testing.TB, body string) (e wireError) {
	t.Helper()
	var envelope map[string]map[string]*string
	if err := json.Unmarshal([]byte(body), &envelope); err != nil || len(envelope) != 1 {
		t.Errorf("not an error envelope (%v): %s", err, body)
		return e
	}
	keys := envelope["error"]
	if len(keys) != 4 {
		t.Errorf("the error has not its four keys: %s", body)
	}
	for name, to := range map[string]*string{"message": &e.Message, "type": &e.Type, "param": &e.Param, "code": &e.Code} {
		value, ok := keys[name]
		if !ok {
			t.Errorf("the error has no %s: %s", name, body)
		}
		if value != nil {
			*to = *value
		}
	}
	if e.Message == "" || e.Type == "" {
		t.Errorf("the error says nothing: %s", body)
	}
	return e
}

// readSSE reads a stream as strictly as the gateway promises to write it: one
// data line and one blank line per event, comments of one line, nothing else,
// and nothing behind [DONE] or an error.
func readSSE(t testing.TB, body string) (s sse) {
	t.Helper()
	for rest := body; rest != ""; {
		if after, ok := strings.CutPrefix(rest, ": keep-alive\n"); ok {
			s.comments++
			rest = after
			continue
		}
		frame, after, ok := strings.Cut(rest, "\n\n")
		data, isData := strings.CutPrefix(frame, "data: ")
		if !ok || !isData || strings.ContainsAny(data, "\n\r") {
			t.Errorf("not an event: %.200q", rest)
			return s
		}
		if s.done || len(s.errors) > 0 {
			t.Errorf("after the end comes %.200q", rest)
		}
		s.add(t, data)
		rest = after
	}
	return s
}

// chunk is what is read of a chat or completions chunk.
type chunk struct {
	ID      string
	Model   string
	Created int64
	Choices []struct {
		Index int
		Delta struct{ Role, Content string }
		Text  string
		Stop  string `json:"finish_reason"`
	}
	Usage *usage
}

func (s *sse) add(t testing.TB, data string) {
	t.Helper()
	if data == "[DONE]" {
		s.done = true
		return
	}
	s.payloads = append(s.payloads, data)
	if strings.HasPrefix(data, `{"error":`) {
		s.errors = append(s.errors, readError(t, data))
		return
	}
	var c chunk
	if err := json.Unmarshal([]byte(data), &c); err != nil || c.ID == "" || c.Model == "" || c.Created == 0 {
		t.Errorf("not a chunk (%v): %.300s", err, data)
	}
	if c.Usage != nil {
		s.usage = append(s.usage, *c.Usage)
		if len(c.Choices) != 0 {
			t.Errorf("usage beside a choice: %.300s", data)
		}
	}
	for _, o := range c.Choices {
		i := o.Index
		s.text[i] += o.Delta.Content + o.Text
		if o.Delta.Role != "" {
			s.roles[i]++
		}
		if o.Stop != "" {
			s.finish[i] = o.Stop
		}
	}
}

// complete fails the test unless the answer ended well and has all tokens.
func (a *answer) complete(t testing.TB, tokens int) {
	t.Helper()
	if n, err := wall.Verify("wall", a.text[0]); n != tokens || err != nil {
		t.Errorf("got %d of %d tokens: %v", n, tokens, err)
	}
	if a.status != 200 || a.failure != nil || !a.done || a.finish[0] == "" || a.roles[0] != 1 || len(a.errors) != 0 {
		t.Errorf("not a complete answer: status %d, %v, done %t, finish %q, %d roles, errors %+v", a.status, a.failure, a.done, a.finish[0], a.roles[0], a.errors)
	}
}

// broken fails the test unless the answer has exactly so many tokens and then an
// error in the stream, no [DONE], and a clean end of the body.
func (a *answer) broken(t testing.TB, tokens int) wireError {
	t.Helper()
	if n, err := wall.Verify("wall", a.text[0]); n != tokens || err != nil {
		t.Errorf("got %d of %d tokens: %v", n, tokens, err)
	}
	if a.status != 200 || a.failure != nil || a.done || len(a.errors) != 1 {
		t.Fatalf("not a broken answer: status %d, %v, done %t, errors %+v\n%.1000s", a.status, a.failure, a.done, a.errors, a.body)
	}
	return a.errors[0]
}

// refused fails the test unless the answer is an error with this status.
func (a *answer) refused(t testing.TB, status int) wireError {
	t.Helper()
	if a.status != status || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, want %d: %s %.1000s", a.status, status, a.header.Get("Content-Type"), a.body)
	}
	return readError(t, a.body)
}

// awaitCall waits for the call that a wall counts under a key.
func awaitCall(t testing.TB, w *wall.Wall, key string, match func(wall.Request) bool) wall.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := w.Await(ctx, func(q wall.Request) bool { return q.Key == "key:"+key && match(q) })
	if err != nil {
		t.Fatalf("key %s: %v", key, err)
	}
	return q
}

// calls counts the calls that a wall has seen under a key.
func calls(w *wall.Wall, key string) (n int) {
	for _, q := range w.Requests() {
		if q.Key == "key:"+key {
			n++
		}
	}
	return n
}

// metric reads one sample of the admin listener, 0 when it is not there.
func (g *gatewayUnderTest) metric(t testing.TB, sample string) float64 {
	t.Helper()
	a := g.do(t, http.MethodGet, g.AdminURL+"/metrics", "")
	for line := range strings.Lines(a.body) {
		if value, ok := strings.CutPrefix(line, sample+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

// idle waits until no answer is under way.
func (g *gatewayUnderTest) idle(t testing.TB) {
	t.Helper()
	g.eventually(t, "answers are still counted as active", func() bool {
		return g.metric(t, `gateway_active_streams{transport="sse"}`) == 0 && g.metric(t, `gateway_active_streams{transport="http"}`) == 0
	})
}

// eventually looks until a condition holds that nothing announces.
func (g *gatewayUnderTest) eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s\n%s", what, g.Logs())
		}
	}
}

// arrival is a read of a body and when it came back.
type arrival struct {
	at   time.Duration // since the request
	text string
}

// openStream asks for a stream and returns once its status is there.
func (g *gatewayUnderTest) openStream(ctx context.Context, t testing.TB, body string) *http.Response {
	t.Helper()
	res, err := g.Client.Do(g.request(ctx, t, http.MethodPost, "/chat/completions", body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || !isSSE(res.Header) {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("status %d: %s", res.StatusCode, text)
	}
	return res
}

// readUntil reads a body until what was read satisfies enough, or to its end.
func readUntil(t testing.TB, body io.Reader, start time.Time, enough func(string) bool) (got []arrival) {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			got = append(got, arrival{time.Since(start), string(buf[:n])})
			all.Write(buf[:n])
			if enough != nil && enough(all.String()) {
				return got
			}
		}
		if errors.Is(err, io.EOF) && enough == nil {
			return got
		}
		if err != nil {
			t.Fatalf("after %q: %v", all.String()[max(0, all.Len()-200):], err)
		}
	}
}

func joined(got []arrival) string {
	var b strings.Builder
	for _, a := range got {
		b.WriteString(a.text)
	}
	return b.String()
}

// median of durations; it reorders them.
func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

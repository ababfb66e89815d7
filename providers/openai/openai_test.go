package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

var update = flag.Bool("update", false, "write the golden files anew")

// play feeds a transcript to the adapter and writes down what comes out: one line
// per event, then the end.
func play(t testing.TB, op providers.Op, presentAs string, body io.Reader) string {
	t.Helper()
	p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20, MaxAnswer: 1 << 20})
	req := &providers.Request{ID: "req_1", Op: op, Model: "m", Stream: true, Choices: 1, PresentAs: presentAs}
	prog := streaming.NewProgress(time.Now())
	var out strings.Builder
	end := ""
	finished := p.relayEvents(req, &call{}, body, prog, func(batch []streaming.Event, err error) bool {
		if err != nil {
			e := providers.AsError(err)
			end = fmt.Sprintf("error kind=%d status=%d type=%q code=%q: %s\n", e.Kind, e.Status, e.Type, e.Code, e.Message)
		}
		for i := range batch {
			writeEvent(&out, &batch[i])
		}
		return true
	})
	if finished {
		end = "complete\n"
	}
	r := prog.Report()
	fmt.Fprintf(&out, "%srepaired %d, malformed %d\n", end, r.Repaired, r.Malformed)
	return generated(out.String())
}

// generated hides the one value that depends on the time of the run.
func generated(text string) string {
	for back := range int64(5) {
		now := strconv.FormatInt(time.Now().Unix()-back, 10)
		text = strings.ReplaceAll(text, `"created":`+now, `"created":NOW`)
	}
	return text
}

var kinds = [...]string{"lifecycle", "meta", "text", "reasoning", "tool", "stop", "usage", "whole", "bytes"}

func writeEvent(out *strings.Builder, ev *streaming.Event) {
	fmt.Fprintf(out, "%s", kinds[ev.Kind])
	if ev.Meta != nil {
		fmt.Fprintf(out, " id=%s created=%v model=%s", ev.Meta.ID, ev.Meta.Created > 0, ev.Meta.Model)
	}
	if ev.Stop != "" {
		fmt.Fprintf(out, " stop=%s", ev.Stop)
	}
	if ev.Usage != nil {
		fmt.Fprintf(out, " usage=%d+%d", ev.Usage.Prompt, ev.Usage.Completion)
	}
	if ev.Raw != nil {
		fmt.Fprintf(out, " [%d] %s", ev.Index, ev.Raw)
	}
	out.WriteByte('\n')
}

// TestTranscripts plays every recorded or written stream whole, byte by byte and
// with CRLF, and holds it against its golden file.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.sse")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sse"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			op := providers.Chat
			if strings.Contains(file, "completions") {
				op = providers.Completions
			}
			got := play(t, op, "", bytes.NewReader(text))
			golden := strings.TrimSuffix(file, ".sse") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			crlf := strings.ReplaceAll(string(text), "\n", "\r\n")
			for how, body := range map[string]io.Reader{
				"whole": bytes.NewReader(text), "byte by byte": iotest.OneByteReader(bytes.NewReader(text)),
				"crlf": strings.NewReader(crlf), "crlf byte by byte": iotest.OneByteReader(strings.NewReader(crlf)),
			} {
				if got := play(t, op, "", body); got != string(want) {
					t.Errorf("%s:\n%s\nwant\n%s", how, got, want)
				}
			}
		})
	}
}

// Every chunk that comes out of a transcript must be what strict clients demand.
func TestMendedChunksAreLegal(t *testing.T) {
	files, _ := filepath.Glob("testdata/*/*.sse")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		op := providers.Chat
		if strings.Contains(file, "completions") {
			op = providers.Completions
		}
		p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20})
		req := &providers.Request{ID: "req_1", Op: op, Model: "m", Stream: true, Choices: 1}
		l := &legal{chat: op == providers.Chat, role: map[int]bool{}}
		p.relayEvents(req, &call{}, bytes.NewReader(text), streaming.NewProgress(time.Now()), func(batch []streaming.Event, _ error) bool {
			for i := range batch {
				if batch[i].Raw != nil {
					if err := l.check(batch[i].Raw); err != nil {
						t.Errorf("%s: %v in %s", file, err, batch[i].Raw)
					}
				}
			}
			return true
		})
	}
}

// legal holds the demands on a chunk: its identity never changes, the role comes
// first and once, usage stands alone, no error member.
type legal struct {
	chat bool
	id   string
	role map[int]bool
}

func (l *legal) check(raw []byte) error {
	var c struct {
		ID      string           `json:"id"`
		Object  string           `json:"object"`
		Created *int64           `json:"created"`
		Model   string           `json:"model"`
		Error   *json.RawMessage `json:"error"`
		Usage   *json.RawMessage `json:"usage"`
		Choices *[]struct {
			Index  *int             `json:"index"`
			Delta  *map[string]any  `json:"delta"`
			Text   *string          `json:"text"`
			Finish *json.RawMessage `json:"finish_reason"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	identity := c.ID + "|" + c.Object + "|" + c.Model
	if l.id == "" {
		l.id = identity
	}
	switch {
	case c.ID == "" || c.Object == "" || c.Model == "" || c.Created == nil || c.Choices == nil || c.Error != nil:
		return fmt.Errorf("a member is missing or must not be there")
	case identity != l.id:
		return fmt.Errorf("identity %s, was %s", identity, l.id)
	case len(*c.Choices) > 1 || len(*c.Choices) == 1 && c.Usage != nil && string(*c.Usage) != "null":
		return fmt.Errorf("several choices, or usage beside one")
	}
	for _, choice := range *c.Choices {
		if choice.Index == nil || l.chat && choice.Delta == nil || !l.chat && choice.Text == nil {
			return fmt.Errorf("an incomplete choice")
		}
		if l.chat {
			_, has := (*choice.Delta)["role"]
			if has == l.role[*choice.Index] {
				return fmt.Errorf("role given %v, before %v", has, l.role[*choice.Index])
			}
			l.role[*choice.Index] = true
		}
		if choice.Finish != nil && string(*choice.Finish) == `""` {
			return fmt.Errorf("an empty finish_reason")
		}
	}
	return nil
}

// What breaks behind a whole answer does not make it a cut one.
func TestBrokenBehindAWholeAnswer(t *testing.T) {
	const chunk = `data: {"id":"a","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":%s}]}` + "\n\n"
	for finish, want := range map[string]string{`"stop"`: "complete", "null": "error kind=15"} {
		body := io.MultiReader(strings.NewReader(fmt.Sprintf(chunk, finish)), iotest.ErrReader(io.ErrUnexpectedEOF))
		if got := play(t, providers.Chat, "", body); !strings.Contains(got, want) {
			t.Errorf("finish_reason %s, then a broken connection: %s", finish, got)
		}
	}
}

func TestPresentAs(t *testing.T) {
	text := "data: {\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"up-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	got := play(t, providers.Chat, "public", strings.NewReader(text))
	if !strings.Contains(got, `"model":"public"`) || strings.Contains(got, "up-1") {
		t.Error(got)
	}
}

// FuzzStream: whatever a server sends, nothing panics, every split gives the same
// events, and what passes is JSON.
func FuzzStream(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.sse")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole := play(t, providers.Chat, "", bytes.NewReader(text))
		if split := play(t, providers.Chat, "", iotest.OneByteReader(bytes.NewReader(text))); split != whole {
			t.Errorf("byte by byte:\n%s\nwhole:\n%s", split, whole)
		}
		p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20})
		req := &providers.Request{ID: "req_1", Op: providers.Chat, Model: "m", Stream: true, Choices: 1}
		p.relayEvents(req, &call{}, bytes.NewReader(text), streaming.NewProgress(time.Now()), func(batch []streaming.Event, _ error) bool {
			for i := range batch {
				if batch[i].Raw != nil && !json.Valid(batch[i].Raw) {
					t.Errorf("%q is no JSON", batch[i].Raw)
				}
			}
			return true
		})
	})
}

// Nothing of the caller's headers reaches the upstream, and its own do.
func TestRequestIsRebuilt(t *testing.T) {
	var got http.Header
	var path string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, path = r.Header, r.URL.String()
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"x","choices":[]}`)
	}))
	defer srv.Close()
	p := New(Options{Upstream: upstream.Options{Name: "az", BaseURL: srv.URL + "/openai/deployments/d/", Query: map[string]string{"api-version": "2024"},
		Header: http.Header{"X-Extra": {"1"}, "User-Agent": {"sluice/test"}}}, APIKey: "k", Auth: "api-key", MaxAnswer: 1 << 20})
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","messages":[{}]}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range p.Target("m").Stream(context.Background(), req, streaming.NewProgress(time.Now())) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if path != "/openai/deployments/d/chat/completions?api-version=2024" {
		t.Errorf("path %s", path)
	}
	for k, want := range map[string]string{"Api-Key": "k", "X-Extra": "1", "Accept-Encoding": "identity", "User-Agent": "sluice/test", "Authorization": "", "X-Request-Id": ""} {
		if got.Get(k) != want {
			t.Errorf("%s: %q, want %q", k, got.Get(k), want)
		}
	}
}

// A usage that is null and was not asked for costs no copy.
func TestUnaskedUsageIsCutOutInPlace(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1,"usage":null}`: `{"a":1}`, `{"usage":null,"a":1}`: `{"a":1}`, `{"a":1, "usage" : null , "b":2}`: `{"a":1 , "b":2}`, `{"usage":null}`: `{}`,
	} {
		s := &state{}
		b := []byte(in)
		if !s.look.scan(b) {
			t.Fatal(in)
		}
		if got := s.withoutUsage(b); string(got) != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func BenchmarkCleanChunk(b *testing.B) {
	chunk := []byte(`{"id":"chatcmpl-0123456789abcdefghijklmnop","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}`)
	first := bytes.Replace(chunk, []byte(`{"content":" token"}`), []byte(`{"role":"assistant","content":""}`), 1)
	r := &reader{state: newState(&providers.Request{Op: providers.Chat, ID: "1", WantsUsage: true}), target: "up", progress: streaming.NewProgress(time.Now())}
	if err := r.payload(&streaming.Frame{Data: first}); err != nil {
		b.Fatal(err)
	}
	f := &streaming.Frame{Data: chunk}
	b.ReportAllocs()
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		r.batch = r.batch[:0]
		if err := r.payload(f); err != nil {
			b.Fatal(err)
		}
	}
	if r.progress.Report().Repaired != 0 {
		b.Fatal("the chunk was not clean")
	}
}

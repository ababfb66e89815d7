package mock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRequestRoundTrip(t *testing.T) {
	for _, want := range []Shape{
		{Tokens: 50},
		{Tokens: 64, Seed: 3, Stream: true},
		{Tokens: 700, Every: 20 * time.Millisecond, Seed: 15, Stream: true, Usage: true},
	} {
		body := want.Request()
		if !json.Valid(body) {
			t.Fatalf("not JSON: %s", body)
		}
		for name, b := range map[string][]byte{
			"as is":       body,
			"with spaces": bytes.ReplaceAll(body, []byte(`":`), []byte(`" : `)),
		} {
			if got, err := ParseRequest(b); err != nil || got != want {
				t.Errorf("%s: ParseRequest = %+v, %v; want %+v", name, got, err, want)
			}
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for _, body := range []string{
		``, `{"messages":[]}`, `"bench tokens=x every_us=1 seed=1."`, `"bench tokens=5 every_us=1"`,
		`"bench tokens=-5 every_us=1 seed=1."`, `"bench tokens=99999999999 every_us=1 seed=1."`,
	} {
		if s, err := ParseRequest([]byte(body)); err == nil {
			t.Errorf("ParseRequest(%q) = %+v without an error", body, s)
		}
	}
}

func TestWordsDiffer(t *testing.T) {
	seen := map[string]string{}
	for seed := range Seeds {
		for i, w := range Words(seed) {
			at := fmt.Sprintf("%d/%d", seed, i)
			if seen[w] != "" {
				t.Fatalf("token %s is the same as %s", at, seen[w])
			}
			seen[w] = at
		}
	}
}

func serve(t *testing.T) (string, *Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, done := new(Server), make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String(), s
}

func post(t *testing.T, url string, s Shape) (*http.Response, string) {
	t.Helper()
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", bytes.NewReader(s.Request()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

type chunk struct {
	Object  string
	Choices []struct {
		Delta        struct{ Role, Content string }
		Message      struct{ Content string }
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		CompletionTokens int `json:"completion_tokens"`
	}
}

func TestStream(t *testing.T) {
	url, _ := serve(t)
	for _, s := range []Shape{
		{Tokens: 0, Stream: true},
		{Tokens: 1, Stream: true, Usage: true},
		{Tokens: 1, Every: time.Millisecond, Stream: true},
		{Tokens: 30, Every: time.Millisecond, Seed: 2, Stream: true, Usage: true},
		{Tokens: 2*Period + 5, Seed: 7, Stream: true, Usage: true},
	} {
		resp, body := post(t, url, s)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			t.Fatalf("%+v: %s %s", s, resp.Status, body)
		}
		events := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
		if last := events[len(events)-1]; last != "data: [DONE]" {
			t.Fatalf("%+v ends with %q", s, last)
		}
		var text strings.Builder
		var finish string
		usage := -1
		for _, e := range events[:len(events)-1] {
			var c chunk
			if err := json.Unmarshal([]byte(strings.TrimPrefix(e, "data: ")), &c); err != nil || c.Object != "chat.completion.chunk" {
				t.Fatalf("event %q: %v", e, err)
			}
			if c.Usage != nil {
				usage = c.Usage.CompletionTokens
			}
			for _, ch := range c.Choices {
				text.WriteString(ch.Delta.Content)
				finish += ch.FinishReason
			}
		}
		if text.String() != Text(s.Seed, s.Tokens) || finish != "stop" {
			t.Errorf("%+v: wrong content or finish %q", s, finish)
		}
		if want := map[bool]int{true: s.Tokens, false: -1}[s.Usage]; usage != want {
			t.Errorf("%+v: usage %d, want %d", s, usage, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range []Shape{{}, {Usage: true}} {
		sc := scriptFor(s)
		if n := len(sc.events) / Period; n < 275 || n > 310 {
			t.Errorf("usage %v: events of %d bytes, want about 290", s.Usage, n)
		}
	}
	_, body, _ := strings.Cut(string(whole(nil, Shape{Tokens: 50})), "\r\n\r\n")
	if len(body) < 1100 || len(body) > 1300 {
		t.Errorf("whole answer of %d bytes, want about 1,200", len(body))
	}
}

func TestWhole(t *testing.T) {
	url, _ := serve(t)
	s := Shape{Tokens: 50, Seed: 4}
	resp, body := post(t, url, s)
	var c chunk
	if err := json.Unmarshal([]byte(body), &c); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %v %s", resp.Status, err, body)
	}
	if c.Choices[0].Message.Content != Text(4, 50) {
		t.Errorf("content %q", c.Choices[0].Message.Content)
	}
}

func TestClientGoneEndsGeneration(t *testing.T) {
	url, s := serve(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	body := Shape{Tokens: 100_000, Every: time.Millisecond, Stream: true}.Request()
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if n := s.active.Load(); n != 1 {
		t.Fatalf("%d active streams, want 1", n)
	}
	_ = c.Close()
	for end := time.Now().Add(5 * time.Second); s.active.Load() != 0; {
		if time.Now().After(end) {
			t.Fatal("the stream is still generated five seconds after its client has gone")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestBadRequests(t *testing.T) {
	url, _ := serve(t)
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(`{}`))
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("no tag: %v %v", resp, err)
	}
	if resp, err = http.Get(url + "/nothing"); err != nil || resp.StatusCode != 404 {
		t.Errorf("unknown path: %v %v", resp, err)
	}
}

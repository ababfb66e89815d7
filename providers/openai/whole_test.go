package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// answerWith has the adapter read one HTTP answer.
func answerWith(op providers.Op, stream bool, contentType string, body io.Reader) (events []streaming.Event, end error) {
	p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20, MaxAnswer: 1 << 20})
	resp := &upstream.Answer{Status: http.StatusOK, Header: upstream.Header{{Name: "Content-Type", Value: contentType}}, Body: body}
	req := &providers.Request{ID: "req_1", Op: op, Model: "m", Stream: stream, Choices: 1}
	p.answer(req, &call{}, resp, streaming.NewProgress(time.Now()), func(batch []streaming.Event, err error) bool {
		for i := range batch {
			events = append(events, batch[i].Clone())
		}
		end = errors.Join(end, err)
		return true
	})
	return events, end
}

// The estimate of usage needs the size of what the model wrote, not of the body.
func TestSizeOfWholeAnswers(t *testing.T) {
	for _, c := range []struct {
		op   providers.Op
		body string
		want int
	}{
		{providers.Chat, `{"choices":[{"message":{"role":"assistant","content":"12345"}}]}`, 5},
		{providers.Chat, `{"choices":[{"message":{"content":"12"}},{"message":{"content":"345"}}]}`, 5},
		{providers.Chat, `{"choices":[{"message":{"content":null,"reasoning_content":"123","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}}]}`, 3 + 1 + 2},
		{providers.Chat, `{"choices":[{"message":{"content":"1","reasoning":"23"}}]}`, 3},
		{providers.Chat, `{"choices":[{"message":{"content":"12345"}}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`, 5},
		{providers.Chat, `{"choices":[{"message":{"content":"12345"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, 0},
		{providers.Chat, `{"choices":[null,{"message":null},{"message":{"tool_calls":[1,{"function":null}]}}]}`, 0},
		{providers.Completions, `{"choices":[{"text":"123"},{"text":"4"}]}`, 4},
		{providers.Embeddings, `{"data":[{"embedding":[1,2,3]}]}`, 0},
	} {
		events, err := answerWith(c.op, false, "application/json", strings.NewReader(c.body))
		if err != nil || len(events) != 2 || events[1].Kind != streaming.Whole || events[1].Size != c.want {
			t.Errorf("%s: %v, %+v, want size %d", c.body, err, events, c.want)
		}
	}
}

// An answer that the server gave up has failed, streamed or not.
func TestWholeAnswerGivenUp(t *testing.T) {
	for _, c := range []struct {
		op     providers.Op
		body   string
		failed bool
	}{
		{providers.Chat, `{"id":"a","choices":[{"message":{"content":"x"},"finish_reason":"abort"}]}`, true},
		{providers.Chat, `{"id":"a","choices":[{"message":{"content":"x"},"finish_reason":"error"},{"message":{"content":"x"},"finish_reason":"stop"}]}`, true},
		{providers.Completions, `{"id":"a","choices":[{"text":"x","finish_reason":"abort"}]}`, true},
		{providers.Chat, `{"id":"a","choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`, false},
		{providers.Chat, `{"id":"a","choices":[{"message":{"content":"x"},"finish_reason":null}]}`, false},
	} {
		for _, stream := range []bool{false, true} {
			events, err := answerWith(c.op, stream, "application/json", strings.NewReader(c.body))
			e := providers.AsError(err)
			if c.failed != (e != nil && e.Kind == providers.UpstreamFailed) || c.failed && len(events) > 1 {
				t.Errorf("%s, stream %v: %v, %d events", c.body, stream, err, len(events))
			}
		}
	}
}

// Proxies in front must not hold back a stream that is passed on unread.
func TestHeadersOfPassedStreams(t *testing.T) {
	for contentType, want := range map[string][2]string{
		"text/event-stream; charset=utf-8": {"no", "no-cache, no-transform"},
		"audio/mpeg":                       {"", ""},
	} {
		events, err := answerWith(providers.Passthrough, true, contentType, strings.NewReader("data: x\n\n"))
		if err != nil {
			t.Fatal(err)
		}
		h := events[0].Meta.Header
		if got := [2]string{h.Get("X-Accel-Buffering"), h.Get("Cache-Control")}; got != want || h.Get("Content-Type") != contentType {
			t.Errorf("%s: %q", contentType, h)
		}
	}
	if events, _ := answerWith(providers.Chat, true, "text/event-stream", strings.NewReader("")); events[0].Meta.Header.Get("X-Accel-Buffering") != "" {
		t.Error("the gateway's own streams set their headers elsewhere")
	}
}

// pieces gives each read at most the next of its sizes and notes the room it had.
type pieces struct {
	sizes []int
	rooms []int
	text  bytes.Buffer
}

func (r *pieces) Read(p []byte) (int, error) {
	r.rooms = append(r.rooms, len(p))
	if len(r.sizes) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.sizes[0])
	r.sizes = r.sizes[1:]
	for i := range n {
		p[i] = byte(r.text.Len())
		r.text.WriteByte(p[i])
	}
	return n, nil
}

// While a passed body is silent it holds a small buffer, and a large one only
// between reads that fill it.
func TestBufferOfPassedBodies(t *testing.T) {
	const much = 1 << 20
	src := &pieces{sizes: []int{10, much, much, much, 10, 10, much, idlePiece + 1, 1}}
	events, err := answerWith(providers.Passthrough, false, "audio/mpeg", src)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := range events {
		got = append(got, events[i].Raw...)
	}
	if !bytes.Equal(got, src.text.Bytes()) {
		t.Errorf("%d bytes came out of %d, or others", len(got), src.text.Len())
	}
	const s, l = idlePiece, busyPiece
	want := []int{s, s, l, l, l, s, s, l, l, s}
	if len(src.rooms) != len(want) {
		t.Fatalf("rooms %v, want %v", src.rooms, want)
	}
	for i := range want {
		if src.rooms[i] != want[i] {
			t.Fatalf("rooms %v, want %v", src.rooms, want)
		}
	}
}

// Reasoning reaches the client under the name that its libraries read, whichever name the
// upstream uses, and the upstream's own name stays.
func TestReasoningHasItsUsualName(t *testing.T) {
	for in, want := range map[string]string{
		`{"model":"m","choices":[{"message":{"reasoning":"a","content":"b"}},{"message":{"content":"c","reasoning":"d"}}]}`: `{"model":"n","choices":[{"message":{"reasoning":"a","reasoning_content":"a","content":"b"}},{"message":{"content":"c","reasoning":"d","reasoning_content":"d"}}]}`,
		`{"choices":[{"message":{"reasoning":"a"}}],"model":"m"}`:                                                           `{"choices":[{"message":{"reasoning":"a","reasoning_content":"a"}}],"model":"n"}`,
		`{"model":"m","choices":[{"message":{"reasoning":"a","reasoning_content":"a"}}]}`:                                   `{"model":"n","choices":[{"message":{"reasoning":"a","reasoning_content":"a"}}]}`,
		`{"model":"m","choices":[{"message":{"reasoning":null,"content":"b"}}]}`:                                            `{"model":"n","choices":[{"message":{"reasoning":null,"content":"b"}}]}`,
		`{"choices":[{"message":{"reasoning":{"x":1},"content":"b"}}]}`:                                                     `{"choices":[{"message":{"reasoning":{"x":1},"content":"b"}}]}`,
	} {
		seen := lookAtWhole([]byte(in), nil)
		if got := string(seen.splice([]byte(in), "n")); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", in, got, want)
		}
	}
}

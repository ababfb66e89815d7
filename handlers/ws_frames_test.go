package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

func TestParseFrame(t *testing.T) {
	for name, c := range map[string]struct {
		message string
		want    wsFrame
	}{
		"create":           {`{"type":"create","stream_id":"a","request":{"model":"m"}}`, wsFrame{"create", "a", []byte(`{"model":"m"}`)}},
		"default stream":   {`{"type":"cancel"}`, wsFrame{"cancel", "0", nil}},
		"blanks":           {" {\n\t\"type\" : \"cancel\" , \"stream_id\" : \"b\" } ", wsFrame{"cancel", "b", nil}},
		"others":           {`{"event_id":1,"type":"create","request":[1],"x":{"type":"cancel"}}`, wsFrame{"create", "0", []byte(`[1]`)}},
		"escaped":          {`{"type":"\u0063ancel","stream_id":"\u0041"}`, wsFrame{"cancel", "A", nil}},
		"longest stream":   {`{"type":"cancel","stream_id":"` + strings.Repeat("Z", 256) + `"}`, wsFrame{"cancel", strings.Repeat("Z", 256), nil}},
		"all the alphabet": {`{"type":"cancel","stream_id":"azAZ09_.-"}`, wsFrame{"cancel", "azAZ09_.-", nil}},
	} {
		if got, err := parseFrame([]byte(c.message), 64); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestStreamIDs(t *testing.T) {
	legal := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
	for ch := range 256 {
		if got := validStreamID(string([]byte{byte(ch)})); got != (strings.IndexByte(legal, byte(ch)) >= 0) {
			t.Errorf("%#x: %t", ch, got)
		}
	}
}

// FuzzFrame holds what is read of a message against encoding/json.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"create","stream_id":"a","request":{"model":"m","messages":[]}}`, `{"type":"cancel"}`, `{"type":"create","request":{ }}`,
		`{"type":"create","request":{"stream":null}}`, `{"type":"create","request":{"stream":false}}`, `{"type":"create","request":{"stream":true,"x":1}}`,
		`{"type":"create","type":"create"}`, `{"stream_id":"\u0000"}`, `[]`, `{`, ``, `{"type":"cancel","stream_id":"` + strings.Repeat("a", 257) + `"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := parseFrame(msg, 64)
		if fault := new(wsFault); err != nil {
			if !errors.As(err, &fault) || fault.err.Message == "" || fault.close == 0 {
				t.Fatalf("%v is no fault", err)
			}
			return
		}
		var want struct {
			Type    string
			Stream  *string `json:"stream_id"`
			Request json.RawMessage
		}
		if err := json.Unmarshal(msg, &want); err != nil {
			t.Fatalf("taken, and not JSON: %v", err)
		}
		if foreign(msg) {
			return // encoding/json takes names in another case as well
		}
		if want.Stream == nil {
			zero := defaultStream
			want.Stream = &zero
		}
		if got.kind != want.Type || got.stream != *want.Stream || !bytes.Equal(bytes.TrimSpace(got.request), bytes.TrimSpace(want.Request)) || !validStreamID(got.stream) {
			t.Fatalf("read %+v, want %+v", got, want)
		}
		if got.request != nil {
			checkImplied(t, got.request)
		}
	})
}

// foreign reports whether a message has members whose names only look like ours.
func foreign(msg []byte) bool {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(msg, &members)
	for name := range members {
		for _, ours := range []string{"type", "stream_id", "request"} {
			if name != ours && strings.EqualFold(name, ours) || bytes.Count(msg, []byte(ours)) > 1 || bytes.Contains(msg, []byte(`\u`)) {
				return true
			}
		}
	}
	return false
}

// checkImplied wants the same request and a stream.
func checkImplied(t *testing.T, request []byte) {
	t.Helper()
	before := bytes.Clone(request)
	body, err := impliedStream(request)
	if !bytes.Equal(before, request) {
		t.Fatalf("the message was changed: %q", request)
	}
	var had, has map[string]json.RawMessage
	if err != nil || json.Unmarshal(request, &had) != nil || had == nil {
		return // refused, or no object
	}
	if err := json.Unmarshal(body, &has); err != nil {
		t.Fatalf("%q became %q: %v", request, body, err)
	}
	if s := string(had["stream"]); s == "" || s == "null" {
		if string(has["stream"]) != "true" && bytes.Count(request, []byte("stream")) < 2 {
			t.Fatalf("%q became %q", request, body)
		}
		delete(had, "stream")
		delete(has, "stream")
	}
	if len(had) != len(has) {
		t.Fatalf("%q became %q", request, body)
	}
}

func TestMessages(t *testing.T) {
	u := &streaming.UsageData{Prompt: 3, Completion: 5}
	full := &streaming.UsageData{Prompt: 3, Completion: 5, Total: 9, Cached: 1, Reasoning: 2, Estimated: true}
	draining := describe(streaming.ErrDraining)
	refused := describe(providers.Invalid("model", `no "model"`))
	for _, c := range []struct{ got, want string }{
		{string(acceptedMessage("a", "req_1", 2)), `{"type":"accepted","stream_id":"a","request_id":"req_1","position":2}`},
		{chunkBefore("a") + `{}` + chunkAfter, `{"type":"chunk","stream_id":"a","data":{}}`},
		{string(appendDone(nil, "a", "stop", u, 1500*time.Microsecond, 2*time.Second)),
			`{"type":"done","stream_id":"a","finish_reason":"stop","usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8},"ttft_ms":1,"total_ms":2000}`},
		{string(appendDone(nil, "a", "", full, 0, 0)),
			`{"type":"done","stream_id":"a","finish_reason":null,"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":{"reasoning_tokens":2},"estimated":true},"ttft_ms":null,"total_ms":0}`},
		{string(appendCancelled(nil, "a", &streaming.UsageData{})), `{"type":"cancelled","stream_id":"a","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`},
		{string(draining.appendErrorMessage(nil, "a", "req_1")),
			`{"type":"error","stream_id":"a","request_id":"req_1","status":503,"retry_after_ms":1000,"error":{"message":"The gateway is shutting down. Try again; another replica will answer.","type":"service_unavailable_error","param":null,"code":"server_draining"}}`},
		{string(refused.appendErrorMessage(nil, "", "")), `{"type":"error","status":400,"error":{"message":"no \"model\"","type":"invalid_request_error","param":"model","code":null}}`},
		{string(goingAwayMessage(time.Minute, "limit")), `{"type":"going_away","in_ms":60000,"reason":"limit"}`},
	} {
		if c.got != c.want || !json.Valid([]byte(c.got)) {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

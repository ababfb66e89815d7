package wall

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

func TestEnds(t *testing.T) {
	base, w := Start(t)
	for _, tc := range []struct {
		spec   string
		tokens int // whole tokens that arrive
		end    End
		err    error // nil: clean end; errAny: any
		finish string
		done   bool
	}{
		{"nodone", 16, Complete, nil, "stop", false},
		{"nofinish", 16, Complete, nil, "", true},
		{"done_only", 16, Complete, nil, "", true},
		{"nofinish nodone", 16, Complete, nil, "", false},
		{"cut=5", 5, Cut, nil, "", false},
		{"cut=0", 0, Cut, nil, "", false},
		{"cut=16", 16, Cut, nil, "", false},
		{"cut=end", 16, Cut, nil, "stop", false},
		{"cut=headers", 0, Cut, nil, "", false},
		{"cut=5 partial", 5, Cut, nil, "", false},
		{"cut=16 nofinish", 16, Cut, nil, "", false},
		{"abort=5", 5, Abort, io.ErrUnexpectedEOF, "", false},
		{"abort=5 partial", 5, Abort, io.ErrUnexpectedEOF, "", false},
		{"reset=5", 5, Reset, syscall.ECONNRESET, "", false},
		{"reset=5 burst=3", 5, Reset, syscall.ECONNRESET, "", false},
		{"reset=headers", 0, Reset, syscall.ECONNRESET, "", false},
		{"reset=pre", 0, Reset, syscall.ECONNRESET, "", false},
		{"abort=pre", 0, Abort, io.EOF, "", false},
		{"stall=5:10ms reset=7", 7, Reset, syscall.ECONNRESET, "", false},
		{"http10 cut=5", 5, Cut, nil, "", false},
		{"finish=content_filter tokens=3", 3, Complete, nil, "content_filter", true},
		{"malformed=3 malformed_lossy cut=3", 3, Cut, nil, "", false},
		{"tokens=0", 0, Complete, nil, "stop", true},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			body, err := chatStream(t, base, tc.spec)
			if !errors.Is(err, tc.err) {
				t.Fatalf("ended with %v", err)
			}
			c := collect(body)
			if n, err := Verify("wall", c.text); n != tc.tokens || err != nil {
				t.Errorf("%d tokens, %v", n, err)
			}
			if c.finish != tc.finish || c.done != tc.done {
				t.Errorf("finish %q, done %v", c.finish, c.done)
			}
			q := awaitKey(t, w, tc.spec)
			if q.End != tc.end || q.Tokens != tc.tokens && !strings.Contains(tc.spec, "lossy") {
				t.Errorf("recorded %q after %d tokens: %s", q.End, q.Tokens, q.Error)
			}
		})
	}
}

func TestErrorsInsideTheStream(t *testing.T) {
	base, w := Start(t)
	for shape, want := range map[string]struct {
		line string
		done bool
	}{
		"openai":       {`data: {"error":{"message":"boom","type":"server_error","param":null,"code":null}}`, false},
		"string":       {`data: {"error":"boom"}`, false},
		"vllm":         {`data: {"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}`, true},
		"llamacpp":     {`data: {"error":{"code":500,"message":"boom","type":"server_error"}}`, false},
		"llamacpp_old": {`error: {"code":500,"message":"boom","type":"server_error"}`, false},
		"tgi":          {`data: {"error":{"message":"boom","http_status_code":422}}`, true},
		"tgi_native":   {`data: {"error":"boom","error_type":"generation"}`, false},
		"sglang":       {`data: {"error":{"object":"error","message":"boom","type":"InternalServerError","param":null,"code":500}}`, true},
		"localai":      {`data: {"error":{"code":"server_error","message":"boom","type":"server_error"}}`, true},
		"localai_text": {`"content":"Internal error: boom"},"logprobs":null,"finish_reason":"stop"}`, false},
		"ollama":       {`"model":"","system_fingerprint":"fp_ollama"`, false},
		"choices":      {`"finish_reason":null}],"error":{"message":"boom"`, false},
		"event":        {"event: error\ndata: {\"error\":{\"message\":\"boom\"", false},
		"event_flat":   {"event: error\ndata: {\"type\":\"error\",\"message\":\"boom\"}", false},
		"flat":         {`data: {"type":"error","message":"boom"}`, false},
		"padded":       {`data: { "error": {"message":"boom"`, false},
		"raw":          {"\n" + `{"error":{"message":"boom"`, false},
		"finish":       {`"finish_reason":"error"`, true},
	} {
		t.Run(shape, func(t *testing.T) {
			spec := "error=4:" + shape
			body, err := chatStream(t, base, spec)
			if err != nil {
				t.Fatal(err)
			}
			c := collect(body)
			if !strings.Contains(body, want.line) || c.done != want.done {
				t.Errorf("done %v, body:\n%s", c.done, body)
			}
			if text, _, _ := strings.Cut(c.text, "Internal"); text != Text("wall", 4) {
				t.Errorf("text %q", c.text)
			}
			if q := awaitKey(t, w, spec); q.End != Failed || q.Tokens != 4 {
				t.Errorf("recorded %q after %d", q.End, q.Tokens)
			}
		})
	}
	body, err := chatStream(t, base, "error=end:vllm error_done=no")
	if c := collect(body); err != nil || c.done || c.finish != "stop" || !strings.Contains(body, `"boom"`) {
		t.Errorf("error after the finish: %v\n%s", err, body)
	}
}

func TestErrorStatus(t *testing.T) {
	base, w := Start(t)
	for _, tc := range []struct {
		spec, contentType, body string
		status                  int
		header                  string
	}{
		{"status=503 retry_after=30", "application/json", `{"error":{"message":"The server is overloaded","type":"service_unavailable_error","param":null,"code":"server_is_overloaded"}}`, 503, "Retry-After:30"},
		{"status=429 retry_after_ms=50", "application/json", `"code":"rate_limit_exceeded"`, 429, "Retry-After-Ms:50"},
		{"status=401 err=string", "application/json", `{"error":"wall: Unauthorized"}`, 401, "Www-Authenticate:Bearer"},
		{"status=400 err=flat", "application/json", `{"object":"error","message":"wall: Bad Request","type":"invalid_request_error","param":null,"code":400}`, 400, ""},
		{"status=422 err=detail", "application/json", `{"detail":[`, 422, ""},
		{"status=502 err=html", "text/html; charset=utf-8", `<html>`, 502, ""},
		{"status=500 err=empty", "text/plain; charset=utf-8", "", 500, ""},
		{"status=500 err=vllm", "application/json", `"code":500}}`, 500, ""},
		{"status=500 err=llamacpp", "application/json", `{"error":{"code":500,`, 500, ""},
		{"context", "application/json", `"code":"context_length_exceeded"`, 400, ""},
		{"content_filter", "application/json", `"code":"content_filter"`, 400, ""},
		{"html200", "text/html; charset=utf-8", `<html>`, 200, ""},
		{"json200", "application/json", `{"error":{`, 200, ""},
		{"status=302 header=location:http%3A//127.0.0.1%3A1/", "application/json", "", 302, "Location:http://127.0.0.1:1/"},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			raw, _ := json.Marshal(chatBody(tc.spec, true))
			req, _ := http.NewRequest(http.MethodPost, base+"/chat/completions", bytes.NewReader(raw))
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != tc.status || res.Header.Get("Content-Type") != tc.contentType || !strings.Contains(string(body), tc.body) {
				t.Errorf("%d %s %s", res.StatusCode, res.Header.Get("Content-Type"), body)
			}
			if name, value, ok := strings.Cut(tc.header, ":"); ok && res.Header.Get(name) != value {
				t.Errorf("headers: %v", res.Header)
			}
			if q := awaitKey(t, w, tc.spec); q.End != Refused || q.Status != tc.status {
				t.Errorf("recorded %q, %d", q.End, q.Status)
			}
		})
	}
}

func TestPlainFaults(t *testing.T) {
	base, w := Start(t)
	for _, tc := range []struct {
		spec  string
		err   error
		valid bool
		end   End
	}{
		{"tokens=3", nil, true, Complete},
		{"cut=3", nil, false, Cut},
		{"abort=3", io.ErrUnexpectedEOF, false, Abort},
		{"reset=3", syscall.ECONNRESET, false, Reset},
		{"malformed=3", nil, false, Complete},
		{"stall=3:10ms", nil, true, Complete},
		{"giant=3:2MiB", nil, true, Complete},
		{"split=7 gzip", nil, true, Complete},
		{"http10", nil, true, Complete},
		{"extra error_null spaced tools=2 reasoning=3 tokens=2", nil, true, Complete},
		{"error=3:vllm", nil, true, Refused},
		{"abort=headers", io.ErrUnexpectedEOF, false, Abort},
		{"stall=pre:5ms", nil, true, Complete},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			_, body, err := post(t, base, "/chat/completions", chatBody(tc.spec, false))
			if !errors.Is(err, tc.err) || json.Valid([]byte(body)) != tc.valid {
				t.Errorf("%v: %s", err, head(body))
			}
			if q := awaitKey(t, w, tc.spec); q.End != tc.end {
				t.Errorf("recorded %q", q.End)
			}
		})
	}
}

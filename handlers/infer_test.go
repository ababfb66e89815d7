package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/streaming"
)

// inferUpstream keeps the request that it got, and answers with bytes.
type inferUpstream struct {
	got *providers.Request
	err error // behind the first piece
}

func (u *inferUpstream) Stream(_ context.Context, req *providers.Request, _ *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		u.got = req
		meta := &streaming.MetaData{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/octet-stream"}, inferHeaderLength: {"2"}}}
		if !yield([]streaming.Event{{Kind: streaming.Meta, Meta: meta}, {Kind: streaming.Bytes, Dialect: streaming.Opaque, Raw: []byte("{}\x00\x01")}}, nil) {
			return
		}
		if u.err != nil {
			yield(nil, u.err)
		}
	}
}

type openDoor struct{ shut bool }

func (o openDoor) Authenticate(http.Header) (auth.Principal, error) {
	if o.shut {
		return auth.Principal{}, &providers.Error{Kind: providers.Unauthorized, Message: "no key"}
	}
	return auth.Principal{}, nil
}

func inferServer(u *inferUpstream, shut bool) *Server {
	return New(Options{
		Provider: u, Auth: openDoor{shut}, Relay: streaming.Relay{},
		Total:      func(context.Context, string) time.Duration { return time.Minute },
		WriteLimit: time.Second, Body: 64, BodyVision: 128, Depth: 64,
		Drain: NewDrain(), Observer: NewObserver(nil), Log: slog.New(slog.DiscardHandler),
	})
}

func postInfer(s *Server, path, contentType, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestInferRequest: what the upstream is asked for each form of a call.
func TestInferRequest(t *testing.T) {
	const octets = "application/octet-stream"
	for name, c := range map[string]struct {
		path, contentType, length string
		model, kind, asked        string
	}{
		"JSON":                      {"/v1/models/m/infer", "application/json; charset=utf-8", "", "m", "application/json", "/models/m/infer"},
		"without a type":            {"/v1/models/m/infer", "", "", "m", "application/json", "/models/m/infer"},
		"without the version":       {"/models/m/infer", "", "", "m", "application/json", "/models/m/infer"},
		"bytes":                     {"/v1/models/m/infer", octets, "", "m", octets, "/models/m/infer"},
		"bytes behind JSON":         {"/v1/models/m/infer", octets, "12", "m", octets + "; inference-header-content-length=12", "/models/m/infer"},
		"bytes behind JSON, called": {"/v1/models/m/infer", "application/json", "12", "m", octets + "; inference-header-content-length=12", "/models/m/infer"},
		"a message":                 {"/v1/models/m/infer", "application/x-protobuf", "", "m", "application/x-protobuf", "/models/m/infer"},
		"an image":                  {"/v1/models/m/infer", "image/webp", "", "m", "image/webp", "/models/m/infer"},
		"a slash":                   {"/v1/models/org/m/infer", "", "", "org/m", "application/json", "/models/org%2Fm/infer"},
		"an escaped slash":          {"/v1/models/org%2Fm/infer", "", "", "org/m", "application/json", "/models/org%2Fm/infer"},
		"a model called infer":      {"/v1/models/infer/infer", "", "", "infer", "application/json", "/models/infer/infer"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &inferUpstream{}
			w := postInfer(inferServer(u, false), c.path, c.contentType, "body", inferHeaderLength, c.length)
			if w.Code != http.StatusOK || w.Body.String() != "{}\x00\x01" || w.Header().Get(inferHeaderLength) != "2" || w.Header().Get("Content-Type") != octets {
				t.Fatalf("%d %v %q", w.Code, w.Header(), w.Body)
			}
			if r := u.got; r.Model != c.model || r.ContentType != c.kind || r.Path != c.asked || string(r.Body) != "body" || r.Op != providers.Passthrough || r.ID == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestInferRefused(t *testing.T) {
	for name, c := range map[string]struct {
		path, contentType, body, length string
		shut                            bool
		status                          int
	}{
		"no key":            {path: "/v1/models/m/infer", shut: true, status: 401},
		"another type":      {path: "/v1/models/m/infer", contentType: "text/plain", status: 415},
		"a broken type":     {path: "/v1/models/m/infer", contentType: ";;", status: 415},
		"a GIF":             {path: "/v1/models/m/infer", contentType: "image/gif", status: 415},
		"a long body":       {path: "/v1/models/m/infer", body: strings.Repeat("x", 129), status: 413},
		"no model":          {path: "/v1/models//infer", status: 400},
		"a long name":       {path: "/v1/models/" + strings.Repeat("m", 257) + "/infer", status: 400},
		"a bad length":      {path: "/v1/models/m/infer", length: "-1", status: 400},
		"a length of words": {path: "/v1/models/m/infer", length: "ten", status: 400},
		"not infer":         {path: "/v1/models/m", status: 405},
	} {
		t.Run(name, func(t *testing.T) {
			u := &inferUpstream{}
			w := postInfer(inferServer(u, c.shut), c.path, c.contentType, c.body, inferHeaderLength, c.length)
			if w.Code != c.status || u.got != nil || !strings.Contains(w.Body.String(), `"error"`) {
				t.Errorf("%d %s, want %d; asked: %v", w.Code, w.Body, c.status, u.got != nil)
			}
		})
	}
}

// TestInferCut: an answer that breaks off does not look like a whole one.
func TestInferCut(t *testing.T) {
	u := &inferUpstream{err: &providers.Error{Kind: providers.Truncated, Message: "cut"}}
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("the handler ended with %v", v)
		}
	}()
	postInfer(inferServer(u, false), "/v1/models/m/infer", "", "{}")
}

// TestInferDraining: a replica that is going away takes no new work.
func TestInferDraining(t *testing.T) {
	s := inferServer(&inferUpstream{}, false)
	s.opt.Drain.Refuse()
	if w := postInfer(s, "/v1/models/m/infer", "", "{}"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d", w.Code)
	}
}

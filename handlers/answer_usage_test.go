package handlers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

// countless answers without telling usage: from events, or with one body.
type countless struct{ complete bool }

func (p countless) Stream(context.Context, *providers.Request, *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		if p.complete {
			yield([]streaming.Event{{Kind: streaming.Whole, Raw: []byte(`{"choices":[]}`), Dialect: streaming.Opaque}}, nil)
			return
		}
		yield([]streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{}}, {Kind: streaming.Text, Text: "one"},
			{Kind: streaming.Text, Text: " two"}, {Kind: streaming.Stop, Stop: "stop"}}, nil)
	}
}

// TestWholeUsage: a body that is put together here has the usage that a stream would have
// told; one that came complete gets nothing added.
func TestWholeUsage(t *testing.T) {
	ask := func(p providers.Provider, path, members string) string {
		s := tallied(&tally{})
		s.opt.Provider = p
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"model":"m",`+members+`}`)))
		return w.Body.String()
	}
	const chat, prompt = `"messages":[{"role":"user","content":"hi"}]`, `"prompt":"hi"`
	for _, c := range [][2]string{{"/v1/chat/completions", chat}, {"/v1/completions", prompt}} {
		_, streamed, _ := strings.Cut(ask(countless{}, c[0], c[1]+`,"stream":true,"stream_options":{"include_usage":true}`), `"choices":[],`)
		usage, _, _ := strings.Cut(streamed, "}")
		if whole := ask(countless{}, c[0], c[1]); !strings.Contains(usage, `"completion_tokens":2`) || !strings.Contains(whole, usage+"}") {
			t.Errorf("%s: whole %s, streamed %s", c[0], whole, usage)
		}
	}
	if got := ask(countless{complete: true}, "/v1/chat/completions", chat); got != `{"choices":[]}` {
		t.Errorf("a complete body became %s", got)
	}
}

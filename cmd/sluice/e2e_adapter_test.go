package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

// throwaway is an adapter of a protocol that nobody speaks.
type throwaway struct{ baseURL string }

func (a throwaway) Models(context.Context) ([]providers.Model, error) {
	return []providers.Model{{ID: "listed", OwnedBy: "nobody"}}, nil
}

func (a throwaway) Target(model string) providers.Provider { return throwawayTarget{a, model} }

type throwawayTarget struct {
	throwaway
	model string
}

func (t throwawayTarget) Stream(_ context.Context, req *providers.Request, _ *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		_ = yield([]streaming.Event{{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: "chatcmpl-1", Model: t.model}}}, nil) &&
			yield([]streaming.Event{
				{Kind: streaming.Text, Text: "from " + t.baseURL},
				{Kind: streaming.Stop, Stop: "stop"},
				{Kind: streaming.Usage, Usage: &streaming.UsageData{Prompt: 1, Completion: 2, Total: 3}},
			}, nil)
	}
}

// TestAnAdapterIsOneRow: what an adapter without settings of its own needs here is its row
// in the table of factories. The configuration, the list of models, retries, capabilities,
// both dialects, streamed and not, know nothing of kinds.
func TestAnAdapterIsOneRow(t *testing.T) {
	factories["throwaway"] = func(_ *Config, u *Upstream, _ maker) adapter { return throwaway{u.BaseURL} }
	t.Cleanup(func() { delete(factories, "throwaway") })
	g := boot(t, "[demo]\nenabled = false\n[[upstreams]]\nname = \"up\"\nkind = \"throwaway\"\nbase_url = \"http://there.test\"\nmodels = [\"named\", \"listed\"]\n"+
		"capabilities = { tools = false }\n[[models]]\nname = \"pool\"\ntargets = [{ upstream = \"up\", model = \"x\" }]\n")
	for _, model := range []string{"named", "listed", "pool"} {
		for path, members := range map[string]string{chatPath: message, "/completions": `"prompt":"Hi"`} {
			for stream, wants := range map[string]string{"false": `"usage":{"prompt_tokens":1,"completion_tokens":2,`, "true": "data: [DONE]"} {
				a := g.do(t, http.MethodPost, path, fmt.Sprintf(`{"model":%q,%s,"stream":%s}`, model, members, stream))
				if a.status != http.StatusOK || !strings.Contains(a.body, `"from http://there.test"`) || !strings.Contains(a.body, wants) {
					t.Errorf("%s %s, streamed %s: %d %s", model, path, stream, a.status, a.body)
				}
			}
		}
	}
	if a := g.do(t, http.MethodGet, "/models", ""); !strings.Contains(a.body, `"id":"listed"`) || !strings.Contains(a.body, `"tools":false`) {
		t.Errorf("the list: %s", a.body)
	}
	if a := g.do(t, http.MethodPost, chatPath, `{"model":"pool",`+toolMember+`}`); a.status != http.StatusBadRequest {
		t.Errorf("tools: %d %s", a.status, a.body)
	}
}

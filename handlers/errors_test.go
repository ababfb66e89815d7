package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Every kind of failure has a row, and every row is an OpenAI envelope with all four keys.
func TestEveryEndIsInTheTable(t *testing.T) {
	for kind := providers.Internal; kind <= providers.Passed; kind++ {
		e, ok := ends[kind]
		if !ok || e.name == "" || e.status < 400 || e.kind == "" {
			t.Errorf("kind %d: %+v", kind, e)
		}
		w := httptest.NewRecorder()
		describe(&providers.Error{Kind: kind, Message: "m"}).write(w, false)
		var body struct {
			Error map[string]any `json:"error"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || len(body.Error) != 4 || body.Error["message"] == "" {
			t.Errorf("kind %d: %v in %s", kind, err, w.Body)
		}
	}
}

func TestDescribe(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	for name, c := range map[string]struct {
		err    error
		name   string
		status int
	}{
		"client":                     {fmt.Errorf("%w: reset", streaming.ErrClientGone), "client_gone", 499},
		"slow":                       {streaming.ErrSlow, "client_slow", 499},
		"total":                      {streaming.ErrTotal, "timeout", 504},
		"draining":                   {streaming.ErrDraining, "draining", 503},
		"panic":                      {&streaming.PanicError{Value: "x"}, "internal_error", 500},
		"unknown":                    {errors.New("x"), "internal_error", 500},
		"a dial that timed out":      {&providers.Error{Kind: providers.Unreachable, Err: dial}, "upstream_unreachable", 502},
		"a call cut by a context":    {&providers.Error{Kind: providers.Truncated, Err: context.Canceled}, "upstream_truncated", 502},
		"a refusal keeps its status": {&providers.Error{Kind: providers.Passed, Status: 422}, "upstream_refused", 422},
		"a failure keeps its status": {&providers.Error{Kind: providers.UpstreamFailed, Status: 500}, "upstream_error", 500},
	} {
		if f := describe(c.err); f.name != c.name || f.status != c.status {
			t.Errorf("%s: %+v", name, f.end)
		}
	}
}

func TestErrorsTellNoSecrets(t *testing.T) {
	f := describe(&providers.Error{Kind: providers.UpstreamCredential, Target: "up", Message: "Incorrect API key: sk-proj-abcd****wxyz", Err: errors.New("dial tcp 10.0.0.7:443")})
	body := string(f.appendError(nil))
	if strings.Contains(body, "sk-proj") || strings.Contains(body, "10.0.0.7") || !f.final {
		t.Errorf("the client reads %s", body)
	}
}

func TestRetryHints(t *testing.T) {
	w := httptest.NewRecorder()
	describe(&providers.Error{Kind: providers.RateLimited, RetryAfter: 1500 * time.Millisecond}).write(w, false)
	if h := w.Header(); h.Get("Retry-After") != "2" || h.Get("Retry-After-Ms") != "1500" || h.Get("X-Should-Retry") != "" {
		t.Errorf("%v", h)
	}
	w = httptest.NewRecorder()
	describe(&providers.Error{Kind: providers.RateLimited, Code: "insufficient_quota"}).write(w, false)
	if w.Header().Get("X-Should-Retry") != "false" {
		t.Error("no money is no reason to try again")
	}
}

package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestExplainRoute(t *testing.T) {
	_, opt := someTraffic()
	var asked RouteQuestion
	opt.Explain = func(_ context.Context, q *RouteQuestion) (*RouteAnswer, error) {
		asked = *q
		if q.Op == "nothing" {
			return nil, errors.New("there is no such operation")
		}
		return &RouteAnswer{Model: q.Model, Rules: []RouteRule{{Name: "r", Then: "ask x"}}, Targets: []RouteTarget{}, Then: []string{}, Shadows: []RouteShadow{}}, nil
	}
	a := got[RouteAnswer](t, ask(t, opt, aViewer, "POST", "/routes/explain", `{"model":"m","key":"app","headers":{"X-A":"b"},"body":{"messages":[]},"at":"2026-11-21T22:00:00Z"}`), 200)
	if a.Model != "m" || len(a.Rules) != 1 || asked.Key != "app" || asked.Headers["X-A"] != "b" || string(asked.Body) != `{"messages":[]}` || asked.At == nil {
		t.Errorf("%+v of %+v", a, asked)
	}
	for body, want := range map[string]string{`{}`: "model is missing", `{"model":"m","op":"nothing"}`: "there is no such operation", `{"model":"m","colour":1}`: "no field colour", `{"model":"m","at":"noon"}`: "parsing time"} {
		if e := got[envelope](t, ask(t, opt, aViewer, "POST", "/routes/explain", body), 400); !strings.Contains(e.Error.Message, want) {
			t.Errorf("%s: %+v", body, e)
		}
	}
	got[envelope](t, ask(t, opt, nobody, "POST", "/routes/explain", `{"model":"m"}`), 401)
	got[envelope](t, ask(t, opt, aKeyUser, "POST", "/routes/explain", `{"model":"m"}`), 403)
	got[envelope](t, ask(t, Options{}, aViewer, "POST", "/routes/explain", `{"model":"m"}`), 404)
}

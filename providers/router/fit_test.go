package router

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// able is a fake that knows what it can do.
type able struct {
	*fake
	can   providers.Capabilities
	asked []providers.Feature
}

func (a *able) Capabilities(_ context.Context, of providers.Feature) providers.Capabilities {
	a.asked = append(a.asked, of)
	return a.can
}

// poolAble has a target for each capability; the first one is chosen while it may be.
func poolAble(can ...providers.Capabilities) (*Pool, []*able) {
	p, all := &Pool{Model: "m"}, []*able{}
	for i := range can {
		can[i].Kind = "toy"
		a := &able{fake: &fake{scripts: [][]streamtest.Step{done}}, can: can[i]}
		all = append(all, a)
		weight := 0
		if i == 0 {
			weight = 1
		}
		p.Targets = append(p.Targets, &Target{Name: string(rune('a' + i)), Provider: a, Phases: phasesForTest, Weight: weight})
	}
	return p, all
}

func request(t testing.TB, members string) *providers.Request {
	t.Helper()
	r, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","stream":true,`+members+`}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	plainChat = `"messages":[{"role":"user","content":"hi"}]`
	twoTools  = plainChat + `,"n":2,"tools":[{}]`
	aPicture  = `"messages":[{"role":"system","content":"x"},{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"x"}}]}]`
)

func lacking(f providers.Feature) providers.Capabilities { return providers.Capabilities{No: f} }
func dropping(f providers.Feature) providers.Capabilities {
	return providers.Capabilities{No: f, Dropped: f}
}

func TestFit(t *testing.T) {
	const tools, n, vision = providers.Tools, providers.Choices, providers.Vision
	for name, c := range map[string]struct {
		members string
		can     []providers.Capabilities
		want    int    // the target that answers, -1 for none
		param   string // of the refusal
		says    string
	}{
		"nothing is known":              {twoTools, []providers.Capabilities{{}, {}}, 0, "", ""},
		"what is lacked is not asked":   {plainChat, []providers.Capabilities{lacking(tools | n | vision), {}}, 0, "", ""},
		"the capable one":               {twoTools, []providers.Capabilities{lacking(n), {}}, 1, "", ""},
		"the only one of three":         {aPicture, []providers.Capabilities{lacking(vision), lacking(vision), {Yes: vision}}, 2, "", ""},
		"one that leaves nothing out":   {twoTools, []providers.Capabilities{dropping(tools), {}}, 1, "", ""},
		"one that leaves it out":        {twoTools, []providers.Capabilities{lacking(tools), dropping(tools | n)}, 1, "", ""},
		"both leave something out":      {twoTools, []providers.Capabilities{dropping(tools), dropping(n)}, 0, "", ""},
		"none, of one":                  {twoTools, []providers.Capabilities{lacking(n)}, -1, "n", `n cannot be used with the model "m": its upstream is of kind toy, which gives one answer to a call.`},
		"none, each for its reason":     {twoTools, []providers.Capabilities{lacking(n), lacking(tools)}, -1, "n", "None of its 2 targets can serve this request."},
		"none, for a common reason":     {twoTools, []providers.Capabilities{lacking(n | tools), lacking(n)}, -1, "n", "one answer"},
		"a picture":                     {aPicture, []providers.Capabilities{lacking(vision)}, -1, "messages[1].content[1]", "cannot be given images"},
		"half of it cannot be left out": {twoTools, []providers.Capabilities{{No: n | tools, Dropped: tools}}, -1, "n", ""},
		"the route":                     {plainChat, []providers.Capabilities{lacking(providers.ChatRoute)}, -1, "model", "cannot be asked at /chat/completions"},
	} {
		t.Run(name, func(t *testing.T) {
			p, targets := poolAble(c.can...)
			_, prog, err := askFor(t.Context(), options(), p, request(t, c.members))
			e := providers.AsError(err)
			var asked []int
			for i, a := range targets {
				if a.calls > 0 {
					asked = append(asked, i)
				}
			}
			if c.want >= 0 && (err != nil || !slices.Equal(asked, []int{c.want})) {
				t.Errorf("asked %v, %v; want %d", asked, err, c.want)
			}
			if c.want < 0 && (e == nil || e.Kind != providers.BadRequest || e.Param != c.param || !strings.Contains(e.Message, c.says) || e.Target != "" || len(asked) > 0) {
				t.Errorf("asked %v, %+v; want %s refused: %s", asked, e, c.param, c.says)
			}
			if n := prog.Report().Attempts; n != int64(len(asked)) {
				t.Errorf("%d attempts, and %v asked", n, asked)
			}
		})
	}
}

// A refused request is no call: it adds nothing to the retries that a pool may make, and
// one that is routed past a target has its tries elsewhere.
func TestFitAndRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, targets := poolAble(lacking(providers.Tools), providers.Capabilities{})
		targets[1].scripts = [][]streamtest.Step{fails(upstream(providers.UpstreamFailed)), done}
		if _, prog, err := askFor(t.Context(), options(), p, request(t, twoTools)); err != nil || targets[0].calls != 0 || targets[1].calls != 2 || prog.Report().Attempts != 2 {
			t.Errorf("%d and %d calls, %v", targets[0].calls, targets[1].calls, err)
		}
		none, _ := poolAble(lacking(providers.Tools))
		for range 100 {
			if _, _, err := askFor(t.Context(), options(), none, request(t, twoTools)); err == nil {
				t.Fatal("it was answered")
			}
		}
		if !none.budget.at.IsZero() {
			t.Error("a refused request counts as a call")
		}
	})
}

// The configuration goes before what is known, and what it decides is not asked for.
func TestOverride(t *testing.T) {
	p, targets := poolAble(lacking(providers.Tools))
	p.Targets[0].Override = Override{Yes: providers.Tools}.Under(Override{No: providers.Vision})
	if _, _, err := askFor(t.Context(), options(), p, request(t, twoTools)); err != nil {
		t.Error(err)
	}
	_, _, err := askFor(t.Context(), options(), p, request(t, aPicture))
	if e := providers.AsError(err); e == nil || e.Param != "messages[1].content[1]" || !strings.Contains(e.Message, `it is configured to have no "vision"`) {
		t.Errorf("%v", err)
	}
	if want := []providers.Feature{providers.ChatRoute | providers.Choices, providers.ChatRoute}; !slices.Equal(targets[0].asked, want) {
		t.Errorf("asked about %v, want %v", targets[0].asked, want)
	}
	if got := (Override{Yes: providers.Tools}).Under(Override{No: providers.Tools}); got != (Override{No: providers.Tools}) {
		t.Errorf("%+v", got)
	}
}

// telling is a lister whose entries tell something.
type telling struct {
	lister
	can map[string]providers.Capabilities
}

func (l *telling) Told(m *providers.Model) providers.Capabilities { return l.can[m.ID] }

// What a list tells is known from then on. Nobody waits for it who asks for an answer.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &telling{lister: lister{ids: []string{"sees", "blind"}, after: 2 * time.Second},
			can: map[string]providers.Capabilities{"sees": {Yes: providers.Vision}, "blind": {No: providers.Vision, Model: providers.Vision}}}
		u := up("a", nil, "sees", "blind", "else")
		u.Lister, u.Override = l, Override{No: providers.Logprobs}
		both := &Pool{Model: "both", Targets: []*Target{
			{Name: "a/blind", Upstream: "a", Model: "blind", Provider: &fake{scripts: [][]streamtest.Step{done}}, Phases: phasesForTest},
			{Name: "a/sees", Upstream: "a", Model: "sees", Provider: &fake{scripts: [][]streamtest.Step{done}}, Phases: phasesForTest}}}
		c := NewCatalog([]*Pool{both}, []Upstream{u}, 3*time.Second, time.Minute)
		r := New(c, options())
		send := func(model, members string) error {
			req := request(t, members)
			req.Model = model
			for _, err := range r.Stream(t.Context(), req, streaming.NewProgress(time.Now())) {
				if err != nil {
					return err
				}
			}
			return nil
		}
		if err := send("blind", plainChat); err != nil || l.calls != 0 {
			t.Errorf("a plain chat: %v, %d lists", err, l.calls)
		}
		start := time.Now()
		if err := send("blind", aPicture); err != nil || time.Since(start) > 0 {
			t.Errorf("before the list is there: %v after %s", err, time.Since(start))
		}
		time.Sleep(3 * time.Second) // in the bubble
		if e := providers.AsError(send("blind", aPicture)); e == nil || e.Kind != providers.BadRequest || !strings.Contains(e.Message, `this model has no "vision"`) {
			t.Errorf("%v", e)
		}
		if err := send("sees", aPicture); err != nil || l.calls != 1 {
			t.Errorf("%v, %d lists", err, l.calls)
		}
		if err := send("both", aPicture); err != nil || both.Targets[0].Provider.(*fake).calls != 0 {
			t.Errorf("%v, %d calls of the blind", err, both.Targets[0].Provider.(*fake).calls)
		}
		got := map[string]string{}
		for _, m := range c.Models(t.Context()) {
			got[m.ID] = string(m.Capabilities.AppendJSON(nil))
			if one := c.Capabilities(t.Context(), m.ID); string(one.AppendJSON(nil)) != got[m.ID] {
				t.Errorf("%s alone: %s, in the list %s", m.ID, one.AppendJSON(nil), got[m.ID])
			}
		}
		// Nothing is configured for the pool's targets.
		for id, want := range map[string]string{"both": `{"vision":true}`, "sees": `{"vision":true,"logprobs":false}`,
			"blind": `{"vision":false,"logprobs":false}`, "else": `{"logprobs":false}`} {
			if got[id] != want {
				t.Errorf("%s: %s, want %s", id, got[id], want)
			}
		}
	})
}

// BenchmarkFit is what the look at capabilities adds to a plain chat.
func BenchmarkFit(b *testing.B) {
	p, _ := poolAble(lacking(providers.Tools), lacking(providers.Vision))
	for _, t := range p.Targets {
		t.Provider = fixed{t.Provider, lacking(providers.Logprobs)}
	}
	req := request(b, plainChat)
	b.ReportAllocs()
	for b.Loop() {
		if out, _, err := p.unfit(b.Context(), req); out.len() > 0 || err != nil {
			b.Fatal(out, err)
		}
	}
}

type fixed struct {
	providers.Provider
	can providers.Capabilities
}

func (f fixed) Capabilities(context.Context, providers.Feature) providers.Capabilities { return f.can }

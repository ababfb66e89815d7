package admin

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth/store"
)

// aConfig is a Config and Overrides in memory.
type aConfig struct {
	reload  ConfigReload
	sent    string
	set     []OverrideView
	version uint64
	fail    error
}

func (a *aConfig) Effective() ConfigView {
	return ConfigView{File: "config.toml", Generation: 3, Config: map[string]any{"log": map[string]any{}}, TOML: "[log]\n", Restart: []string{}, LastReload: a.reload, Overrides: a.set}
}

func (a *aConfig) Validate(text []byte) ConfigCheck {
	a.sent = string(text)
	return ConfigCheck{Errors: []ConfigProblem{{Source: "config.toml:1:2", Line: 1, Column: 2, Message: "no"}}, Unchecked: []string{}, Stale: []string{}}
}

func (a *aConfig) Reload(by string) ConfigReload {
	a.reload.Why = by
	return a.reload
}

func (a *aConfig) Overrides() ([]OverrideView, uint64) { return a.set, a.version }

func (a *aConfig) Override(path string) (OverrideView, error) {
	for _, o := range a.set {
		if o.Path == path {
			return o, nil
		}
	}
	return OverrideView{}, a.fail
}

func (a *aConfig) SetOverride(_ context.Context, edit OverrideEdit, version uint64) (was, is OverrideView, err error) {
	if a.fail != nil {
		return was, is, a.fail
	}
	was, _ = a.Override(edit.Path)
	if version != 0 && version != was.Version {
		return was, is, store.ErrConflict
	}
	a.version++
	is = OverrideView{Path: edit.Path, Value: json.RawMessage(edit.Value), TOML: string(edit.Value), By: edit.By, Note: edit.Note, At: time.Unix(0, 0).UTC(), InForce: true, Version: a.version}
	a.set = []OverrideView{is}
	return was, is, nil
}

func (a *aConfig) RemoveOverride(_ context.Context, path string, _ uint64) (OverrideView, error) {
	was, _ := a.Override(path)
	a.set = nil
	return was, a.fail
}

func newAConfig() *aConfig {
	return &aConfig{
		reload: ConfigReload{Reloaded: true, Generation: 3, Changed: []string{"log.level"}, Restart: []string{}, Warnings: []string{}, Errors: []ConfigProblem{}},
		set:    []OverrideView{},
	}
}

func TestConfig(t *testing.T) {
	c := newAConfig()
	opt := Options{Config: c, Overrides: c}
	if v := got[ConfigView](t, ask(t, opt, aViewer, "GET", "/config", ""), 200); v.Generation != 3 || v.TOML != "" {
		t.Errorf("%+v", v)
	}
	if w := ask(t, opt, aViewer, "GET", "/config?format=toml", ""); w.Code != 200 || w.Body.String() != "[log]\n" || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/toml") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/config?format=xml", ""), 400)
	got[envelope](t, ask(t, Options{}, aViewer, "GET", "/config", ""), 404)
	got[envelope](t, ask(t, opt, aViewer, "POST", "/config/reload", ""), 403)
	if v := got[ConfigReload](t, ask(t, opt, anAdmin, "POST", "/config/reload", ""), 200); !v.Reloaded || v.Why != "ada" {
		t.Errorf("%+v", v)
	}
	c.reload.Reloaded, c.reload.Errors = false, []ConfigProblem{{Source: "config.toml:1:2", Path: "log.level", Message: "want debug"}}
	w := ask(t, opt, anAdmin, "POST", "/config/reload", "")
	if e := got[envelope](t, w, 422); e.Error.Code != "config_invalid" || !strings.Contains(e.Error.Message, "config.toml:1:2: log.level: want debug") {
		t.Errorf("%s", w.Body)
	}
	if v := got[ConfigReload](t, w, 422); len(v.Errors) != 1 || v.Reloaded {
		t.Errorf("%s", w.Body)
	}
	if v := got[ConfigCheck](t, ask(t, opt, anAdmin, "POST", "/config/validate", "[log"), 200); v.Valid || len(v.Errors) != 1 || c.sent != "[log" {
		t.Errorf("%+v, sent %q", v, c.sent)
	}
	got[envelope](t, ask(t, opt, anAdmin, "POST", "/config/validate", strings.Repeat("x", 2<<20)), 413)
}

func TestOverrideRoutes(t *testing.T) {
	c := newAConfig()
	opt := Options{Config: c, Overrides: c}
	const path = `models."gpt-4.1".targets."openai/gpt-4.1".weight`
	at := "/overrides/" + strings.ReplaceAll(path, `"`, "%22")
	w := ask(t, opt, anAdmin, "PUT", at, `{"value":3,"note":"canary"}`)
	if v := got[OverrideView](t, w, 200); v.Path != path || v.By != "ada" || v.Note != "canary" || w.Header().Get("ETag") != `"1"` {
		t.Errorf("%+v %v", v, w.Header())
	}
	if v := got[OverrideView](t, ask(t, opt, aViewer, "GET", at, ""), 200); v.Value != 3.0 {
		t.Errorf("%+v", v)
	}
	if v := got[list[OverrideView]](t, ask(t, opt, aViewer, "GET", "/overrides", ""), 200); len(v.Data) != 1 {
		t.Errorf("%+v", v)
	}
	if w := ask(t, opt, aViewer, "GET", "/overrides.toml", ""); !strings.HasSuffix(w.Body.String(), "\n# by ada at 1970-01-01T00:00:00Z\n# canary\n"+path+" = 3\n") {
		t.Errorf("%s", w.Body)
	}
	got[envelope](t, ask(t, opt, anAdmin, "PUT", at, `{"value":4}`, "If-Match", `"9"`), 409)
	got[envelope](t, ask(t, opt, aViewer, "PUT", at, `{"value":4}`), 403)
	for _, body := range []string{`{}`, `{"value":1,"by":"me"}`, `{"value":1,"note":7}`} {
		got[envelope](t, ask(t, opt, anAdmin, "PUT", at, body), 400)
	}
	if w := ask(t, opt, anAdmin, "DELETE", at, ""); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for err, want := range map[error]int{
		&BadOverride{Field: "path", Message: "No."}: 400, store.ErrNoOverride: 404, store.ErrConflict: 409, store.ErrFull: 409, store.ErrUnavailable: 503, errors.New("x"): 500,
	} {
		c.fail = err
		got[envelope](t, ask(t, opt, anAdmin, "PUT", at, `{"value":4}`), want)
	}
}

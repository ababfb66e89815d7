package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Wall is a scripted upstream. It is an http.Handler, safe for concurrent use.
type Wall struct {
	name   string
	apiKey string
	keep   int
	models []string

	waiters  atomic.Int64
	stirring atomic.Bool

	mu      sync.Mutex
	ring    []*record // newest last
	changed chan struct{}
	nextID  int64
	active  int
	total   int64
	tokens  int64
	dialed  int64
	byEnd   map[End]int
	conns   map[net.Conn]struct{}
	calls   map[string]int // calls seen per key
	scripts map[string]source
	paths   map[string]source
}

// source gives the script of each call in turn.
type source func(attempt int) Script

// Option changes a new Wall.
type Option func(*Wall)

// Named gives the wall a name, by which a tag can address it alone: [[wall@NAME ...]].
func Named(name string) Option { return func(w *Wall) { w.name = name } }

// APIKey makes the wall refuse calls without this bearer key.
func APIKey(key string) Option { return func(w *Wall) { w.apiKey = key } }

// Keep sets how many calls are kept (1,024).
func Keep(n int) Option { return func(w *Wall) { w.keep = max(n, 1) } }

// Models adds names to the list of models. Any other name works too.
func Models(names ...string) Option {
	return func(w *Wall) { w.models = append(w.models, names...) }
}

// Default sets the scripts for calls that name none: one for each call in turn, the last for all further ones.
func Default(scripts ...Script) Option { return func(w *Wall) { w.SetDefault(scripts...) } }

// New returns a wall.
func New(options ...Option) *Wall {
	w := &Wall{
		keep: 1024, models: []string{"wall"}, nextID: 1, changed: make(chan struct{}), byEnd: map[End]int{}, calls: map[string]int{},
		conns: map[net.Conn]struct{}{}, scripts: map[string]source{}, paths: map[string]source{},
	}
	for _, option := range options {
		option(w)
	}
	return w
}

// Script registers scripts under a model name: one for each call in turn, the last for all further ones. It replaces
// what the name had and starts its count anew.
func (w *Wall) Script(model string, scripts ...Script) { w.register(w.scripts, model, inTurn(scripts)) }

// SetDefault is Script for the calls that name no script.
func (w *Wall) SetDefault(scripts ...Script) { w.Script("", scripts...) }

// SetDefaultSpec is SetDefault with the textual form.
func (w *Wall) SetDefaultSpec(spec string) error { return w.ScriptSpec("", spec) }

// ScriptSpec is Script with the textual form.
func (w *Wall) ScriptSpec(model, spec string) error {
	plan, err := Parse(spec)
	if err != nil {
		return fmt.Errorf("parsing the script of %q: %w", model, err)
	}
	w.register(w.scripts, model, plan.Script)
	return nil
}

// ScriptPath is Script for the calls to one path, such as "/health" or "/v1/models"; it stands behind all others.
func (w *Wall) ScriptPath(path string, scripts ...Script) {
	w.register(w.paths, trimVersion(path), inTurn(scripts))
}

func (w *Wall) register(into map[string]source, name string, s source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	into[name] = s
	delete(w.calls, countKey(name))
}

func countKey(name string) string { return "name:" + name }

func inTurn(scripts []Script) source {
	scripts = slices.Clone(scripts)
	return func(attempt int) Script {
		if len(scripts) == 0 {
			return Script{}
		}
		return scripts[min(attempt, len(scripts)-1)]
	}
}

// choose finds the script of a call: from the registered base (by model, else by path, else the default), changed by
// the model's own text and then by the last tag in the body. It also returns the key that counted the call.
func (w *Wall) choose(path, model, body string) (s Script, key string, attempt int, err error) {
	var plans []*Plan
	for _, find := range []func() (string, bool, error){
		func() (string, bool, error) { spec, ok := strings.CutPrefix(model, "wall:"); return spec, ok, nil },
		func() (string, bool, error) { return findTag(body, w.name) },
	} {
		spec, ok, err := find()
		if err != nil {
			return s, "", 0, err
		}
		if !ok {
			continue
		}
		plan, err := Parse(spec)
		if err != nil {
			return s, "", 0, err
		}
		plans, key = append(plans, plan), spec
		if name := plan.value("key"); name != "" {
			key = "key:" + name
		}
		if name := plan.value("script"); name != "" {
			model = name
		}
	}
	base, name, err := w.base(path, model, plans)
	if err != nil {
		return s, "", 0, err
	}
	if key == "" {
		key = countKey(name)
	}
	attempt = w.count(key)
	s = base(attempt)
	for _, plan := range plans {
		s = plan.Apply(s, attempt)
	}
	if s, err = s.attempt(attempt); err == nil {
		err = s.check()
	}
	return s, key, attempt, err
}

func (w *Wall) base(path, model string, plans []*Plan) (source, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.scripts[model]; ok && model != "" {
		return s, model, nil
	}
	for _, plan := range plans {
		if name := plan.value("script"); name != "" {
			return nil, "", fmt.Errorf("key \"script\": no script %q is registered", name)
		}
	}
	if s, ok := w.paths[path]; ok {
		return s, path, nil
	}
	if s, ok := w.scripts[""]; ok {
		return s, "", nil
	}
	return inTurn(nil), "", nil
}

func (w *Wall) count(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) > 100_000 {
		// Bounded: a test that makes so many keys does not come back to the first of them.
		clear(w.calls)
	}
	w.calls[key]++
	return w.calls[key] - 1
}

// findTag returns the inside of the last [[wall ...]] or [[wall@name ...]] in a body; one that names this wall wins.
// The search is in the raw text, so that the tag is found in every kind of request; JSON keeps its characters as they are.
func findTag(body, name string) (spec string, ok bool, err error) {
	named := false
	for rest := body; ; {
		_, after, found := strings.Cut(rest, "[[wall")
		if !found {
			return spec, ok, nil
		}
		rest = after
		inner, _, closed := strings.Cut(after, "]]")
		if inner != "" && inner[0] != ' ' && inner[0] != '@' && inner[0] != '\\' {
			continue
		}
		if !closed {
			return "", false, errors.New("tag [[wall has no end ]]")
		}
		inner = strings.NewReplacer(`\n`, " ", `\t`, " ", `\r`, " ").Replace(inner)
		addressed := strings.HasPrefix(inner, "@")
		if addressed {
			var who string
			if who, inner, _ = strings.Cut(inner[1:], " "); who != name {
				continue
			}
		}
		if addressed || !named {
			spec, ok, named = inner, true, named || addressed
		}
	}
}

// modelNames lists the models, sorted.
func (w *Wall) modelNames() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	set := map[string]bool{}
	for _, name := range w.models {
		set[name] = true
	}
	for name := range w.scripts {
		set[name] = true
	}
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

// maxBody bounds a request body, keptBody what the record keeps of it.
const (
	maxBody  = 64 << 20
	keptBody = 64 << 10
)

// ServeHTTP answers one call. It reads the whole body first, because net/http notices a client that leaves only after that.
func (w *Wall) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/wall/") {
		w.control(rw, r)
		return
	}
	rec := w.open(r)
	defer rec.close(ClientGone, errors.New("the handler broke off"))
	ctx := r.Context()
	stop := context.AfterFunc(ctx, rec.gone)
	defer stop()
	c := &call{wall: w, rec: rec, ctx: ctx, out: newWriter(rw, r, rec)}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	rec.update(func(q *Request) {
		q.BodySize, q.Body = len(body), strings.ToValidUTF8(string(body[:min(len(body), keptBody)]), "\uFFFD")
	})
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		c.invalid(http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	if err != nil {
		rec.close(ClientGone, fmt.Errorf("reading the body: %w", err))
		return
	}
	if c.serve(r, body) {
		// The connection ends without the end of the body.
		panic(http.ErrAbortHandler)
	}
}

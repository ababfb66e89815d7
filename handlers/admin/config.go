package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/handlers/auth/store"
)

// Config is the configuration of the gateway as operators see it.
type Config interface {
	// Effective is what is in force.
	Effective() ConfigView
	// Validate says what is wrong with a configuration that somebody thinks of. It looks at no
	// file and no variable of the environment.
	Validate(text []byte) ConfigCheck
	// Reload reads the configuration again for somebody. It returns once it is in force, or
	// when it turns out that it cannot be: then nothing has changed.
	Reload(by string) ConfigReload
}

// ConfigView is the configuration in force. Secrets are masked.
type ConfigView struct {
	File       string         `json:"file"` // "" for none
	Generation int64          `json:"generation"`
	Config     any            `json:"config"`         // sections, keys, and for each its value and source
	TOML       string         `json:"toml,omitempty"` // the same as a file with comments
	Restart    []string       `json:"restart_needed"` // keys whose new value only a restart puts in force
	LastReload ConfigReload   `json:"last_reload"`
	Overrides  []OverrideView `json:"overrides"`
}

// ConfigCheck is what there is to say of a configuration.
type ConfigCheck struct {
	Valid     bool            `json:"valid"`
	Errors    []ConfigProblem `json:"errors"`
	Unchecked []string        `json:"unchecked"` // keys whose values depend on files or the environment
	Stale     []string        `json:"stale_overrides"`
}

// ConfigProblem is one mistake. Line and Column count from 1; 0 outside files.
type ConfigProblem struct {
	Source  string `json:"source"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Excerpt string `json:"excerpt,omitempty"`
}

// ConfigReload is what became of a reload.
type ConfigReload struct {
	At         time.Time       `json:"at"`
	Reloaded   bool            `json:"reloaded"`
	Why        string          `json:"why"`        // what it was for
	Generation int64           `json:"generation"` // in force since
	Changed    []string        `json:"changed"`
	Restart    []string        `json:"restart_needed"`
	Warnings   []string        `json:"warnings"`
	Errors     []ConfigProblem `json:"errors"`
}

// Overrides are the values that are set over the configuration.
type Overrides interface {
	// Overrides are all of them, by path, and the version of the set.
	Overrides() (all []OverrideView, version uint64)
	// Override reads a path, and finds what is set over it; version 0: nothing is.
	Override(path string) (OverrideView, error)
	// SetOverride puts one in force and returns the one before, whose version is 0 if there was
	// none; version, if not 0, is the one that is edited. RemoveOverride takes one away.
	// Errors are *BadOverride and those of store.Overrides.
	SetOverride(ctx context.Context, edit OverrideEdit, version uint64) (was, is OverrideView, err error)
	RemoveOverride(ctx context.Context, path string, version uint64) (was OverrideView, err error)
}

// OverrideView is one value that is set over the configuration.
type OverrideView struct {
	Path    string    `json:"path"`
	Value   any       `json:"value"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Note    string    `json:"note,omitempty"`
	InForce bool      `json:"in_force"`
	Stale   bool      `json:"stale"`             // what it is about is not in the configuration
	Ignored string    `json:"ignored,omitempty"` // why it is not in force
	Version uint64    `json:"version"`
	TOML    string    `json:"-"` // the value as TOML writes it
}

// OverrideEdit is what somebody wants to set. Value is JSON.
type OverrideEdit struct {
	Path, Note, By string
	Value          []byte
}

// BadOverride means a path that cannot be overridden, or a value that it cannot have.
type BadOverride struct{ Field, Message string }

func (e *BadOverride) Error() string { return e.Message }

func (s *server) configRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/config", role: viewer, query: []string{"format"}, handle: s.config},
		{method: http.MethodPost, path: "/config/validate", role: admin, handle: s.validateConfig},
		{method: http.MethodPost, path: "/config/reload", role: admin, audit: true, handle: s.reloadConfig},
		{method: http.MethodGet, path: "/overrides", role: viewer, handle: s.listOverrides},
		{method: http.MethodGet, path: "/overrides.toml", role: viewer, handle: s.exportOverrides},
		{method: http.MethodGet, path: "/overrides/{path...}", role: viewer, handle: s.getOverride},
		{method: http.MethodPut, path: "/overrides/{path...}", role: admin, audit: true, handle: s.setOverride},
		{method: http.MethodDelete, path: "/overrides/{path...}", role: admin, audit: true, handle: s.removeOverride},
	}
}

func noConfig() error { return notFound("The configuration cannot be seen here.") }

// config answers with JSON, or with a file of TOML that names the source of each value.
func (s *server) config(c *call) error {
	if s.opt.Config == nil {
		return noConfig()
	}
	v := s.opt.Config.Effective()
	switch c.query("format") {
	case "", "json":
		v.TOML = ""
		return c.reply(http.StatusOK, v)
	case "toml":
		return c.text("application/toml", v.TOML)
	default:
		return badField("format", "format is json or toml.")
	}
}

// text answers with text that is no JSON.
func (c *call) text(kind, text string) error {
	c.status, c.kind, c.body = http.StatusOK, kind+"; charset=utf-8", []byte(text)
	return nil
}

// validateConfig takes a configuration as the text of its file.
func (s *server) validateConfig(c *call) error {
	if s.opt.Config == nil {
		return noConfig()
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, bodyLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &fault{status: http.StatusRequestEntityTooLarge, code: "request_too_large", message: "The body is larger than 1 MiB."}
	}
	if err != nil {
		return badField("", "The body did not come whole.")
	}
	return c.reply(http.StatusOK, s.opt.Config.Validate(text))
}

// reloadConfig answers 422 when the configuration has mistakes.
func (s *server) reloadConfig(c *call) error {
	if s.opt.Config == nil {
		return noConfig()
	}
	done := s.opt.Config.Reload(c.who.Name)
	c.changed("configuration", nil, done)
	if done.Reloaded {
		return c.reply(http.StatusOK, done)
	}
	message := "The configuration has mistakes; the one before stays in force."
	for i := range done.Errors {
		message += "\n" + done.Errors[i].String()
	}
	return c.reply(http.StatusUnprocessableEntity, struct {
		Error errorBody `json:"error"`
		ConfigReload
	}{errorBody{Message: message, Type: "invalid_request_error", Code: "config_invalid"}, done})
}

// String is "source: path: message".
func (p *ConfigProblem) String() string {
	if p.Path == "" {
		return p.Source + ": " + p.Message
	}
	return p.Source + ": " + p.Path + ": " + p.Message
}

func noOverrides() error { return notFound("Nothing can be set over the configuration here.") }

func (s *server) listOverrides(c *call) error {
	if s.opt.Overrides == nil {
		return noOverrides()
	}
	all, version := s.opt.Overrides.Overrides()
	c.etag(fmt.Sprint(version))
	return c.reply(http.StatusOK, list[OverrideView]{Data: append([]OverrideView{}, all...)})
}

// exportOverrides writes them as TOML with dotted keys. It is no configuration file: tables
// that have names there are lists in a file.
func (s *server) exportOverrides(c *call) error {
	if s.opt.Overrides == nil {
		return noOverrides()
	}
	all, _ := s.opt.Overrides.Overrides()
	var b strings.Builder
	b.WriteString("# What is set over the configuration of this gateway, by name.\n")
	for i := range all {
		o := &all[i]
		fmt.Fprintf(&b, "\n# by %s at %s\n", oneLine(o.By), o.At.UTC().Format(time.RFC3339))
		if o.Note != "" {
			fmt.Fprintf(&b, "# %s\n", oneLine(o.Note))
		}
		if o.Ignored != "" {
			fmt.Fprintf(&b, "# ignored: %s\n#", oneLine(o.Ignored))
		}
		fmt.Fprintf(&b, "%s = %s\n", o.Path, o.TOML)
	}
	return c.text("application/toml", b.String())
}

// oneLine keeps a text inside a comment.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func (s *server) getOverride(c *call) error {
	if s.opt.Overrides == nil {
		return noOverrides()
	}
	o, err := s.opt.Overrides.Override(c.path("path"))
	if err != nil {
		return overrideFault(err)
	}
	if o.Version == 0 {
		return overrideFault(store.ErrNoOverride)
	}
	c.etag(fmt.Sprint(o.Version))
	return c.reply(http.StatusOK, o)
}

func (s *server) setOverride(c *call) error {
	if s.opt.Overrides == nil {
		return noOverrides()
	}
	var body struct {
		Value jsonValue `json:"value"`
		Note  string    `json:"note"`
	}
	if err := c.read(&body); err != nil {
		return err
	}
	if body.Value == nil {
		return badField("value", "A value is required.")
	}
	version, err := c.version()
	if err != nil {
		return err
	}
	edit := OverrideEdit{Path: c.path("path"), Note: body.Note, By: c.who.Name, Value: body.Value}
	was, is, err := s.opt.Overrides.SetOverride(c.r.Context(), edit, version)
	if err != nil {
		return overrideFault(err)
	}
	c.changed("override "+is.Path, beforeOf(&was), is)
	c.etag(fmt.Sprint(is.Version))
	return c.reply(http.StatusOK, is)
}

// beforeOf is nil for what was not there.
func beforeOf(was *OverrideView) any {
	if was.Version == 0 {
		return nil
	}
	return was
}

func (s *server) removeOverride(c *call) error {
	if s.opt.Overrides == nil {
		return noOverrides()
	}
	version, err := c.version()
	if err != nil {
		return err
	}
	was, err := s.opt.Overrides.RemoveOverride(c.r.Context(), c.path("path"), version)
	if err != nil {
		return overrideFault(err)
	}
	c.changed("override "+was.Path, was, nil)
	return c.done()
}

// overrideFault is what the caller is told of an error of Overrides.
func overrideFault(err error) error {
	var bad *BadOverride
	var problems store.Problems
	switch {
	case errors.As(err, &bad):
		return badField(bad.Field, "%s", bad.Message)
	case errors.As(err, &problems):
		return badField(problems[0].Field, "%s: %s.", problems[0].Field, problems[0].Text)
	case errors.Is(err, store.ErrNoOverride):
		return notFound("Nothing is set over this path.")
	case errors.Is(err, store.ErrConflict):
		return conflict("It was edited meanwhile; read it again.")
	case errors.Is(err, store.ErrFull):
		return conflict("Too much is set over the configuration; remove some of it.")
	case errors.Is(err, store.ErrUnavailable):
		return unavailable("The store cannot be reached; it is not known whether this was written.")
	default:
		return err
	}
}

// jsonValue is a JSON value as it was sent.
type jsonValue []byte

// UnmarshalJSON implements json.Unmarshaler.
func (v *jsonValue) UnmarshalJSON(text []byte) error {
	*v = append(jsonValue{}, text...)
	return nil
}

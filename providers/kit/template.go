package kit

import (
	"fmt"
	"slices"
	"strings"
	"text/template"
)

// Message is one message of a conversation. Role is system, user or assistant.
type Message struct{ Role, Text string }

// Turn is what a user said and what was answered to it. Several messages in a row from
// one side are one, with a blank line between them.
type Turn struct {
	User, Assistant string
	// Last says that the answer to this turn is the one to be given; Assistant is then
	// what it begins with.
	Last bool
}

// Conversation is what a chat template is executed with.
type Conversation struct {
	Messages []Message // in order, without what the answer begins with
	System   string    // all system messages, with a blank line between them
	Turns    []Turn    // the same without system messages, never empty
	Prefill  string    // what the answer begins with: a last message of the assistant's
}

// Template makes the prompt for models that take text. It is safe for concurrent use.
type Template struct {
	// Name is that of a built-in template or of a file.
	Name string
	// Stops are the marks that end a turn in this format, whatever the server takes for
	// the end of an answer: nothing behind one belongs to it.
	Stops []string
	// EOS is what models of this format end an answer with, where their server shows it.
	EOS    []string
	text   *template.Template
	escape *strings.Replacer
}

// BuiltIn lists the names of the templates that need no file.
func BuiltIn() []string {
	names := make([]string, 0, len(builtIn))
	for _, t := range builtIn {
		names = append(names, t.name)
	}
	return names
}

// NamedTemplate returns a built-in template. The error lists those that there are.
func NamedTemplate(name string) (*Template, error) {
	for _, t := range builtIn {
		if t.name == name {
			return newTemplate(&Template{Name: t.name, Stops: t.stops, EOS: t.eos}, t.text, t.marks)
		}
	}
	return nil, fmt.Errorf("there is no chat template %q; there are %s, and files", name, strings.Join(BuiltIn(), ", "))
}

// ParseTemplate reads a template in the language of Go's text/template, which is
// executed with a Conversation. stops are the marks that end a turn in it.
func ParseTemplate(name, text string, stops []string) (*Template, error) {
	t, err := newTemplate(&Template{Name: name, Stops: stops}, text, nil)
	if err != nil {
		return nil, err
	}
	for _, probe := range [][]Message{
		{{"user", "a"}}, {{"system", "a"}, {"user", "b"}, {"assistant", "c"}, {"user", "d"}},
		{{"user", "a"}, {"assistant", "b"}}, {{"system", "a"}},
	} {
		if _, err := t.Prompt(probe); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func newTemplate(t *Template, text string, marks []string) (_ *Template, err error) {
	t.text, err = template.New(t.Name).Option("missingkey=error").Funcs(template.FuncMap{"trim": strings.TrimSpace}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading chat template: %w", err)
	}
	var pairs []string
	for _, m := range slices.Concat(t.Stops, t.EOS, marks) {
		if m != "" {
			pairs = append(pairs, m, broken(m))
		}
	}
	t.escape = strings.NewReplacer(pairs...)
	return t, nil
}

// TokenStops are those of Stops that are tokens of their own, such as <|eot_id|>: they end
// a turn also where no template has made the prompt. Others are words, which a text may
// well contain.
func (t *Template) TokenStops() (tokens []string) {
	for _, s := range t.Stops {
		if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
			tokens = append(tokens, s)
		}
	}
	return tokens
}

// broken is a mark that is none any more, and that people read as before.
func broken(mark string) string {
	at := 1
	if n := len(mark) - 1; n > 0 && mark[n] == ':' {
		at = n
	}
	return mark[:at] + " " + mark[at:]
}

// Prompt makes the prompt for the next answer. A mark of the format that stands in a
// message is broken by a space, so that no message can pretend to be several.
func (t *Template) Prompt(messages []Message) (string, error) {
	var b strings.Builder
	if err := t.text.Execute(&b, t.conversation(messages)); err != nil {
		return "", fmt.Errorf("executing chat template: %w", err)
	}
	return b.String(), nil
}

func (t *Template) conversation(messages []Message) *Conversation {
	c := &Conversation{}
	for _, m := range messages {
		c.Messages = append(c.Messages, Message{m.Role, t.escape.Replace(m.Text)})
	}
	if n := len(c.Messages) - 1; n >= 0 && c.Messages[n].Role == "assistant" {
		c.Prefill, c.Messages = c.Messages[n].Text, c.Messages[:n]
	}
	for _, m := range c.Messages {
		switch m.Role {
		case "system":
			c.System = joined(c.System, m.Text)
		case "assistant":
			c.turn(false).Assistant = joined(c.turn(false).Assistant, m.Text)
		default:
			next := c.turn(true)
			next.User = joined(next.User, m.Text)
		}
	}
	last := c.turn(false)
	if last.Assistant != "" {
		c.Turns = append(c.Turns, Turn{})
		last = c.turn(false)
	}
	last.Last, last.Assistant = true, c.Prefill
	return c
}

// turn returns the turn under way; a user who speaks behind an answer begins one.
func (c *Conversation) turn(user bool) *Turn {
	n := len(c.Turns)
	if n == 0 || user && c.Turns[n-1].Assistant != "" {
		c.Turns = append(c.Turns, Turn{})
		n++
	}
	return &c.Turns[n-1]
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}

// IsBuiltIn reports whether a name is that of a template that needs no file.
func IsBuiltIn(name string) bool { return slices.Contains(BuiltIn(), name) }

package gemini

import (
	"encoding/json"
	"mime"
	"net/url"
	"path"
	"slices"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/ask"
)

// content is a turn of a conversation.
type content struct {
	Role  string `json:"role,omitempty"` // user or model
	Parts []part `json:"parts"`
}

// part is a piece of a turn; one of its fields is set, and beside it a signature.
type part struct {
	Text      string            `json:"text,omitempty"`
	Inline    *blob             `json:"inlineData,omitempty"`
	File      *file             `json:"fileData,omitempty"`
	Call      *functionCall     `json:"functionCall,omitempty"`
	Response  *functionResponse `json:"functionResponse,omitempty"`
	Signature string            `json:"thoughtSignature,omitempty"`
}

type blob struct {
	MIME string `json:"mimeType"`
	Data string `json:"data"` // base64
}

type file struct {
	MIME string `json:"mimeType,omitempty"`
	URI  string `json:"fileUri"`
}

type functionCall struct {
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

type functionResponse struct {
	Name     string          `json:"name"`
	Response json.RawMessage `json:"response"`
	Parts    []part          `json:"parts,omitempty"`
}

// skipSignature is the word that stands for the signature of a call which no model of
// Google's has made, or whose own is lost.
const skipSignature = "skip_thought_signature_validator"

// pending are the calls of the last model turn, and their results as they come.
type pending struct {
	calls   []ask.Call
	results []*part
	left    int
	at      int // the turn that the results become; behind it comes what the user says
}

// converse translates the messages.
func (r *request) converse() error {
	r.asked.TakeMedia()
	list, err := r.asked.Messages()
	if err != nil {
		return err
	}
	var open pending
	for i := range list {
		m := &list[i]
		switch m.Role {
		case "system":
			err = r.instruct(m)
		case "user":
			err = r.user(m)
		case "assistant":
			if err = r.answered(&open, m.Param); err == nil {
				open, err = r.model(m)
			}
		case "tool":
			err = r.result(&open, m)
		}
		if err != nil {
			return err
		}
	}
	if err := r.answered(&open, "messages"); err != nil {
		return err
	}
	r.placeInstruction()
	if len(r.out.Contents) == 0 {
		return r.asked.Wrong("messages", "a conversation in which the user has said something, for this model")
	}
	return nil
}

// say adds to the conversation. Neighbours of one role are merged, unless one of them
// has to do with functions, whose turns must match.
func (r *request) say(role string, parts ...part) {
	if len(parts) == 0 {
		return
	}
	if n := len(r.out.Contents); n > 0 && r.out.Contents[n-1].Role == role && !functional(parts) && !functional(r.out.Contents[n-1].Parts) {
		last := &r.out.Contents[n-1]
		last.Parts = append(last.Parts, parts...)
		return
	}
	r.out.Contents = append(r.out.Contents, content{Role: role, Parts: parts})
}

func functional(parts []part) bool {
	return slices.ContainsFunc(parts, func(p part) bool { return p.Call != nil || p.Response != nil })
}

func (r *request) instruct(m *ask.Message) error {
	for _, p := range m.Parts {
		if p.Image != nil {
			return r.asked.CannotRead(p.Image.Param, "an image as a system message")
		}
		if p.Media != nil {
			return r.asked.CannotRead(p.Media.Param, "a file as a system message")
		}
		if p.Text == "" {
			continue
		}
		if r.out.System == nil {
			r.out.System = &content{}
		}
		r.out.System.Parts = append(r.out.System.Parts, part{Text: p.Text})
	}
	return nil
}

// placeInstruction puts the instruction in front of the conversation where the model
// takes none.
func (r *request) placeInstruction() {
	if r.system || r.out.System == nil {
		return
	}
	parts := r.out.System.Parts
	r.out.System = nil
	if len(r.out.Contents) > 0 && r.out.Contents[0].Role == "user" {
		r.out.Contents[0].Parts = slices.Concat(parts, r.out.Contents[0].Parts)
		return
	}
	r.out.Contents = slices.Insert(r.out.Contents, 0, content{Role: "user", Parts: parts})
}

func (r *request) user(m *ask.Message) error {
	parts, err := r.parts(m)
	r.say("user", parts...)
	return err
}

// parts translates what a message holds. Empty text, which the API refuses, is left out.
func (r *request) parts(m *ask.Message) (parts []part, err error) {
	for i := range m.Parts {
		switch p := &m.Parts[i]; {
		case p.Image != nil:
			one, err := r.image(p.Image)
			if err != nil {
				return nil, err
			}
			parts = append(parts, one)
		case p.Media != nil:
			parts = append(parts, part{Inline: &blob{MIME: p.Media.Type, Data: p.Media.Data}})
		case p.Text != "":
			parts = append(parts, part{Text: p.Text})
		}
	}
	return parts, nil
}

// image takes a data URL, or an address where the configuration lets callers name one.
func (r *request) image(i *ask.Image) (part, error) {
	if !strings.HasPrefix(strings.ToLower(i.URL), "data:") {
		u, err := url.Parse(i.URL)
		if err == nil && r.isOurs(u) && !r.opt.NamedFiles {
			return part{}, r.asked.CannotRead(i.Param, "files that Google keeps, for it would read them with the gateway's credential; send a data URL")
		}
		if err != nil || !r.fetches(u) {
			return part{}, r.asked.CannotRead(i.Param, "the address of an image; send a data URL")
		}
		kind, _, _ := strings.Cut(mime.TypeByExtension(path.Ext(u.Path)), ";")
		return part{File: &file{MIME: kind, URI: i.URL}}, nil
	}
	kind, data, err := i.Data()
	if err != nil {
		return part{}, err
	}
	return part{Inline: &blob{MIME: kind, Data: data}}, nil
}

// fetches reports whether an address may be named: a public video, a file of the
// upstream's own account or any address, as the configuration says. The gateway itself
// fetches nothing.
func (r *request) fetches(u *url.URL) bool {
	switch {
	case r.isOurs(u):
		return r.opt.NamedFiles
	case u.Scheme == "https" && slices.Contains([]string{"www.youtube.com", "youtube.com", "youtu.be"}, u.Host):
		return true
	default:
		return r.opt.FetchURLs && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
	}
}

// isOurs reports whether Google may read an address by the credential of the call, as it
// does for Cloud Storage and for the Files API, instead of as anybody could.
func (r *request) isOurs(u *url.URL) bool {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	return u.Scheme == "gs" || host == r.host || host == "storage.cloud.google.com" ||
		host == "googleapis.com" || strings.HasSuffix(host, ".googleapis.com")
}

// model translates an answer of an earlier turn.
func (r *request) model(m *ask.Message) (open pending, err error) {
	parts, err := r.parts(m)
	if err != nil {
		return open, err
	}
	for i := range m.Calls {
		c := &m.Calls[i]
		args, ok := c.Object()
		if !ok {
			return open, providers.Invalid(m.Param+".tool_calls", m.Param+".tool_calls: the arguments of "+c.Name+" must be a JSON object for this model.")
		}
		p := part{Call: &functionCall{Name: c.Name, Args: args}, Signature: r.memory.Recall(c.ID, r.target.model)}
		if p.Signature == "" && i == 0 && r.signed { // of parallel calls only the first is signed
			p.Signature = skipSignature
		}
		parts = append(parts, p)
	}
	r.say("model", parts...)
	return pending{calls: m.Calls, results: make([]*part, len(m.Calls)), left: len(m.Calls), at: len(r.out.Contents)}, nil
}

// result adds what a function gave. The API wants the results of a turn together, as
// many as there were calls and in their order.
func (r *request) result(open *pending, m *ask.Message) error {
	i := slices.IndexFunc(open.calls, func(c ask.Call) bool { return c.ID == m.CallID })
	if i < 0 || open.results[i] != nil {
		return providers.Invalid(m.Param+".tool_call_id", m.Param+".tool_call_id: no tool call with this id waits for a result.")
	}
	response, err := r.response(m)
	if err != nil {
		return err
	}
	response.Name = open.calls[i].Name
	open.results[i] = &part{Response: response}
	if open.left--; open.left > 0 {
		return nil
	}
	all := content{Role: "user"}
	for _, p := range open.results {
		all.Parts = append(all.Parts, *p)
	}
	r.out.Contents = slices.Insert(r.out.Contents, open.at, all)
	return nil
}

// response wraps what is no object: the API wants one, and gives "output" its meaning.
func (r *request) response(m *ask.Message) (*functionResponse, error) {
	parts, err := r.parts(m)
	if err != nil {
		return nil, err
	}
	f := &functionResponse{}
	var texts []string
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		} else {
			f.Parts = append(f.Parts, p)
		}
	}
	text := strings.Join(texts, "\n")
	c := ask.Call{Args: text}
	if object, ok := c.Object(); ok && text != "" {
		f.Response = object
		return f, nil
	}
	f.Response, err = r.encode(map[string]string{"output": text})
	return f, err
}

// answered checks that no call is left without a result.
func (r *request) answered(open *pending, param string) error {
	if open.left == 0 {
		return nil
	}
	i := slices.Index(open.results, nil)
	return providers.Invalid(param, param+": the tool call with the id "+open.calls[i].ID+" has no result: a message of the role tool must follow it.")
}
